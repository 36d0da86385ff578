"""The pages of a running node's HTTP server."""

from __future__ import annotations

import asyncio
import json

from adpsgd_node.core.membership.member import MemberState
from support.http_page import answer, page
from support.node_process import LOOK_EVERY_S, PATIENCE_S, Nodes, trainer


async def metrics(address: str) -> dict[str, float]:
    """Read all samples of a node's metrics, by name and labels."""
    lines = (await page(address, "/metrics")).splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


async def test_a_running_node_answers_metrics_health_readiness_and_status(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=1000"])
    await second.training()
    status = await first.wait_for(lambda s: s.exchanges_initiated > 3 and len(s.members) == 2, "exchanges")
    assert await page(status.http_address, "/healthz") == "ok\n"
    assert await page(status.http_address, "/readyz") == "ready\n"
    assert "n1#" in await page(status.http_address, "/")
    told = json.loads(await page(status.http_address, "/status"))
    assert (told["node"], told["phase"]) == ("n0", "training")
    assert [member["name"] for member in told["members"]] == ["n0", "n1"]
    values = await metrics(status.http_address)
    assert values["adpsgd_steps_total"] >= status.step
    assert values["adpsgd_step_seconds_count"] >= status.step
    assert values["adpsgd_trainer_up"] == 1
    assert values['adpsgd_members{state="alive"}'] == 2
    assert values['adpsgd_member_phases{phase="training"}'] == 2
    assert values['adpsgd_exchanges_total{outcome="complete",role="initiator"}'] >= status.exchanges_initiated
    assert values["adpsgd_bytes_sent_total"] > 0
    assert values["adpsgd_run_target_samples"] == 800_000
    # Two exchanges without a step in between leave nothing to average: the distance of the second is 0.
    async with asyncio.timeout(PATIENCE_S):
        while not (await metrics(status.http_address))["adpsgd_consensus_distance"] > 0:
            await asyncio.sleep(LOOK_EVERY_S)


async def test_a_node_that_looks_for_its_seeds_is_alive_but_not_ready(nodes: Nodes) -> None:
    node = nodes.start("n0", seeds=["127.0.0.1:1"])
    address = (await node.up()).http_address
    assert await page(address, "/healthz") == "ok\n"
    status, text = await answer(address, "/readyz")
    assert status == 503
    assert "no seed has answered" in text


LATE = """
import pathlib, runpy, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)  # between two looks
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Imports for a long time, so to speak."""


async def test_a_node_is_ready_only_once_it_holds_the_model(nodes: Nodes) -> None:
    first = nodes.start("n0", "--epochs=1000")
    seed = (await first.training()).self_member.address
    assert await page((await first.status()).http_address, "/readyz") == "ready\n"
    late, go = nodes.folder / "late.py", nodes.folder / "go"
    late.write_text(LATE)
    node = nodes.start("n1", "--epochs=1000", script=[str(late), str(go), *trainer()], seeds=[seed])
    address = (await node.up()).http_address
    await first.sees("n1", MemberState.ALIVE)
    assert await answer(address, "/readyz") == (503, "not ready: no model yet: no script has joined\n")
    go.touch()
    await node.training()
    assert await page(address, "/readyz") == "ready\n"
