"""Nodes of real processes train with parameter servers, by A-PSGD."""

from __future__ import annotations

import itertools
import signal

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.errors import JoinError, PeerLostError, RunMismatchError
from support.node_process import NodeProcess, Nodes, relative_distance

TOLERANCE = 1e-3


def options(servers: str, *more: str) -> list[str]:
    return ["--algorithm=a-psgd", f"--servers={servers}", "--chunk-bytes=4096", *more]


def steps_of(node: NodeProcess) -> int:
    return len(node.events("step"))


async def further(node: NodeProcess, what: str) -> None:
    before = steps_of(node)
    await node.until(lambda: steps_of(node) > before + 10, what)


async def test_all_nodes_learn_and_end_with_the_same_model_and_none_waits_for_a_slow_one(nodes: Nodes) -> None:
    slow = {"n2": ["--dim=2048", "--lr=0.003", "--momentum=0.5", "--steps-per-s=10"]}
    usual = {name: ["--dim=2048", "--lr=0.003", "--momentum=0.5"] for name in ("n0", "n1")}
    group = await nodes.start_together("n0", "n1", "n2", options=options("n0,n1", "--epochs=6"), scripts=usual | slow)
    for node in group:
        assert await node.ended() == 0, node.text()
        assert "WARNING" not in node.text()
    counts = [steps_of(node) for node in group]
    assert min(counts[:2]) > 3 * counts[2], counts
    models = [read_tensors(node.model)["weight"] for node in group]
    assert max(relative_distance(one, other) for one, other in itertools.combinations(models, 2)) <= TOLERANCE
    losses = [event["loss"] for event in group[2].events("step")]
    assert losses[-1] < losses[0] / 2, "the slow node has the others' parameters"


async def test_a_lost_worker_is_not_missed_and_takes_part_again_when_it_is_back(nodes: Nodes) -> None:
    given = options("n0", "--epochs=10000")
    first, second, lost = await nodes.start_together("n0", "n1", "n2", options=given)
    await further(first, "steps with all")
    lost.signal(signal.SIGKILL)
    await lost.ended()
    for node in (first, second):
        await further(node, "steps while nobody knows")
        await node.sees("n2", MemberState.DEAD)
        await further(node, "steps without the lost one")
    back = nodes.start("n2", *given, seeds=[(await first.status()).self_member.address])
    await back.training()
    await further(back, "steps of the one that is back")


async def test_without_a_server_all_end_and_say_which_is_lost(nodes: Nodes) -> None:
    group = await nodes.start_together("n0", "n1", "n2", options=options("n0,n1", "--epochs=10000"))
    for node in group:
        await further(node, "steps with all")
    group[1].signal(signal.SIGKILL)
    for node in (group[0], group[2]):
        assert await node.ended() == PeerLostError.exit_code, node.text()
        assert "n1" in node.last_error()
        assert "lost" in node.last_error()
        assert "background task" not in node.text()


async def test_a_server_that_is_started_again_has_not_what_was_pulled_from_it(nodes: Nodes) -> None:
    given = options("n0", "--epochs=10000")
    server, worker = await nodes.start_together("n0", "n1", options=given)
    await further(worker, "steps with the server")
    address = (await worker.status()).self_member.address
    server.signal(signal.SIGKILL)
    await server.ended()
    nodes.start("n0", *given, seeds=[address])
    assert await worker.ended() == PeerLostError.exit_code, worker.text()
    assert "n0" in worker.last_error()


async def test_a_script_that_is_started_again_goes_on_with_what_it_had_pulled(nodes: Nodes) -> None:
    crash = {"n1": ["--crash-at=20"], "n0": ["--crash-at=30"]}
    group = await nodes.start_together("n0", "n1", options=options("n0", "--epochs=3"), scripts=crash)
    for node in group:
        assert await node.ended() == 0, node.text()
        assert len(node.events("joined")) == 2
        assert node.events("joined")[1]["resumed"]
        losses = [event["loss"] for event in node.events("step")]
        assert losses[-1] < losses[0] / 10


async def test_a_worker_leaves_in_good_order_and_nobody_minds(nodes: Nodes) -> None:
    first, second, leaver = await nodes.start_together("n0", "n1", "n2", options=options("n0", "--epochs=10000"))
    await further(first, "steps with all")
    leaver.signal(signal.SIGTERM)
    assert await leaver.ended() == 0, leaver.text()
    for node in (first, second):
        await further(node, "steps without the one that left")


async def test_a_server_that_leaves_ends_the_run_by_name(nodes: Nodes) -> None:
    server, worker = await nodes.start_together("n0", "n1", options=options("n0", "--epochs=10000"))
    await further(worker, "steps with the server")
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0, server.text()
    assert await worker.ended() == PeerLostError.exit_code, worker.text()
    assert "n0" in worker.last_error()


async def test_nodes_that_name_other_servers_are_refused(nodes: Nodes) -> None:
    server = nodes.start("n0", *options("n0", "--epochs=10000"))
    await server.training()
    other = nodes.start("n1", *options("n0,n1", "--epochs=10000"), seeds=[(await server.status()).self_member.address])
    assert await other.ended() == RunMismatchError.exit_code, other.text()
    assert "it runs --algorithm a-psgd --servers n0, and --algorithm a-psgd --servers n0,n1 came" in other.last_error()
    await further(server, "steps of the server, which is as it should be")


async def test_servers_that_do_not_come_are_waited_for_so_long(nodes: Nodes) -> None:
    node = nodes.start("n0", *options("n9", "--epochs=1", "--join-timeout=2"))
    assert await node.ended() == JoinError.exit_code, node.text()
    assert "servers n9" in node.last_error()


async def test_one_node_serves_itself(nodes: Nodes) -> None:
    node = nodes.start("n0", *options("n0", "--epochs=1"))
    assert await node.ended() == 0, node.text()
    losses = [event["loss"] for event in node.events("step")]
    assert losses[-1] < losses[0]


async def test_parameters_that_are_not_finite_reach_no_server(nodes: Nodes) -> None:
    ruined = {"n1": ["--ruin-at=20"]}
    group = await nodes.start_together(
        "n0", "n1", "n2", options=options("n0", "--epochs=3", "--poison-timeout=3"), scripts=ruined
    )
    for node in (group[0], group[2]):
        assert await node.ended() == 0, node.text()
        assert all(event["loss"] < 1e3 for event in node.events("step"))
    assert "not finite" in group[1].text()
