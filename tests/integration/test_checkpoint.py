"""Checkpoints of real nodes: killed all at once they go on from the newest; one that finds a live model takes that."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from adpsgd_node.checkpoint.manifest import MANIFEST_FILE, MODEL_FILE, TRAINER_FILE, Manifest, decode_manifest
from adpsgd_node.core.membership.member import Phase
from support.checkpoints import flip
from support.node_process import LOOK_EVERY_S, NodeProcess, Nodes, trainer

INTERVAL_S = 1.0
NAMES = ("n0", "n1", "n2")
OPTIONS = ("--epochs=100000", f"--checkpoint-interval={INTERVAL_S}")
FROM_THE_END = 5
"""Bytes; there a manifest has the last character of its digest."""


def folder_of(nodes: Nodes, name: str) -> Path:
    return nodes.folder / "checkpoints" / name


def checkpoints_of(nodes: Nodes, name: str) -> list[Path]:
    """List a node's checkpoints, the newest first."""
    return sorted(folder_of(nodes, name).glob("[0-9]*"), reverse=True)


def manifest_of(checkpoint: str | Path) -> Manifest:
    return decode_manifest((Path(checkpoint) / MANIFEST_FILE).read_bytes())


def newest_of(nodes: Nodes) -> dict[str, Manifest]:
    return {name: manifest_of(checkpoints_of(nodes, name)[0]) for name in NAMES}


def start(nodes: Nodes, name: str, *options: str, seeds: Sequence[str] = (), script: Sequence[str] = ()) -> NodeProcess:
    """Start a node that finds its own checkpoints again."""
    checkpoints = f"--checkpoints={folder_of(nodes, name)}"
    return nodes.start(name, *OPTIONS, checkpoints, *options, seeds=seeds, script=trainer(*script))


async def start_all(nodes: Nodes, *options: str, script: Sequence[str] = ()) -> list[NodeProcess]:
    """Start one node of each name, the first being the others' seed."""
    first = start(nodes, NAMES[0], *options, script=script)
    seeds = [(await first.up()).self_member.address]
    return [first, *(start(nodes, name, *options, seeds=seeds, script=script) for name in NAMES[1:])]


async def kill(*group: NodeProcess) -> None:
    for node in group:
        node.signal(signal.SIGKILL)
    for node in group:
        await node.ended()


def joined(node: NodeProcess) -> dict[str, object]:
    return node.events("joined")[-1]


async def run_for_some_checkpoints(group: Sequence[NodeProcess]) -> None:
    for node in group:
        await node.wait_for(lambda s: s.checkpoint.endswith("2") and s.step > 150, "two checkpoints")


Told = dict[str, list[tuple[float, int]]]
"""By node: how many samples of the run it told, and when that was heard."""


async def watch(group: Sequence[NodeProcess], seconds: float) -> Told:
    """Ask the nodes for their progress, one after the other, for as long."""
    told: Told = {node.name: [] for node in group}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for node in group:
            samples = (await node.up()).samples_total
            told[node.name].append((time.monotonic(), samples))
        await asyncio.sleep(LOOK_EVERY_S)
    return told


def assert_little_is_lost(holder: NodeProcess, told: Sequence[tuple[float, int]], kept: int, killed_at: float) -> None:
    """See that what the holder of the newest checkpoint told one interval before its end is in there.

    A checkpoint counts once it is written: the longest time that took is granted too.
    """
    writes_s = [float(found) for found in re.findall(r"wrote a checkpoint .*seconds=(\S+)", holder.text())]
    earlier = [samples for heard_at, samples in told if heard_at <= killed_at - INTERVAL_S - max(writes_s)]
    print(f"told {earlier[-1]} an interval before the end, {told[-1][1]} last; kept {kept}; writing took {writes_s} s")
    assert earlier[0] < earlier[-1], "there was no progress to be kept"
    assert kept >= earlier[-1], "more than one interval is lost"


@pytest.mark.slow
async def test_killed_all_at_once_the_nodes_go_on_from_the_newest_checkpoint(nodes: Nodes) -> None:
    first = await start_all(nodes)
    await run_for_some_checkpoints(first)
    told = await watch(first, 4 * INTERVAL_S)
    killed_at = time.monotonic()
    await kill(*first)
    kept = newest_of(nodes)
    holder = max(first, key=lambda node: kept[node.name].standing)
    newest = kept[holder.name].standing
    assert_little_is_lost(holder, told[holder.name], newest.samples, killed_at)

    last = checkpoints_of(nodes, NAMES[1])[0].name
    gate = nodes.folder / "all-were-asked"
    second = await start_all(nodes, script=[f"--start-when={gate}"])
    for node in second:
        status = await node.wait_for(lambda s: s.self_member.phase is Phase.TRAINING, "a model")
        assert status.samples_total == newest.samples, f"{node.name} goes on from somewhere else"
    gate.touch()
    for node in second:
        await node.training()
    (founder,) = [node for node in second if "goes on from a checkpoint" in node.text()]
    assert kept[founder.name].standing == newest
    for node in second:
        assert joined(node)["adopted"]
        assert bool(joined(node)["donor"]) == (node is not founder)
        assert joined(node)["restored"], "its own script's state"
        assert "starts with its own initial parameters" not in node.text()
    begun = first[0].events("step")[0]["loss"]
    assert max(node.events("step")[0]["loss"] for node in second) < begun / 4, "someone began from scratch"
    await second[1].wait_for(lambda s: s.exchanges_initiated > 10, "exchanges")
    await second[1].wait_for(lambda s: Path(s.checkpoint).name > last, "a checkpoint behind those of the first life")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (MODEL_FILE, "it is damaged: its SHA-256 is not the one in the manifest"),
        (TRAINER_FILE, "it is damaged: its SHA-256 is not the one in the manifest"),
        (MANIFEST_FILE, "it is damaged: its digest does not match its content"),
    ],
    ids=["model", "trainer", "manifest"],
)
async def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_begins(
    nodes: Nodes, name: str, reason: str
) -> None:
    first = await start_all(nodes)
    await run_for_some_checkpoints(first)
    await kill(*first)
    kept = newest_of(nodes)
    holder = max(kept, key=lambda node: kept[node].standing)
    usable = [manifest_of(path).standing for node in NAMES for path in checkpoints_of(nodes, node)]
    usable.remove(kept[holder].standing)
    damaged = checkpoints_of(nodes, holder)[0] / name
    flip(damaged, damaged.stat().st_size - FROM_THE_END)

    second = {node.name: node for node in await start_all(nodes)}
    for node in second.values():
        await node.training()
    (founder,) = [node for node in second.values() if "goes on from a checkpoint" in node.text()]
    assert f"samples={max(usable).samples}" in founder.text()
    refusals = [line for line in second[holder].text().splitlines() if "a checkpoint is not used" in line]
    assert refusals
    assert all(f"{damaged}: {reason}" in line for line in refusals), refusals


@pytest.mark.slow
async def test_a_node_that_lost_its_disk_begins_with_the_others_checkpoint(nodes: Nodes) -> None:
    first = await start_all(nodes)
    await run_for_some_checkpoints(first)
    await kill(*first)
    shutil.rmtree(folder_of(nodes, "n1"))
    newest = max(manifest_of(checkpoints_of(nodes, name)[0]).standing for name in ("n0", "n2"))
    second = await start_all(nodes)
    for node in second:
        status = await node.training()
        assert status.samples_total >= newest.samples
    assert joined(second[1])["donor"]
    assert joined(second[1])["restored"] is None


@pytest.mark.slow
@pytest.mark.parametrize("with_seeds", [True, False], ids=["seeds", "no-seeds"])
async def test_a_node_that_finds_a_live_model_adopts_it_though_it_has_a_checkpoint(
    nodes: Nodes, with_seeds: bool
) -> None:
    """Without any seed it is the members named in its checkpoint that lead it back to the run."""
    first, second, third = await start_all(nodes)
    await run_for_some_checkpoints([first, second, third])
    await kill(first)
    await second.wait_for(lambda s: s.step > 300, "steps without it")
    seeds = [(await second.status()).self_member.address] if with_seeds else []
    again = start(nodes, "n0", seeds=seeds)
    status = await again.training()
    assert joined(again)["donor"] in ("n1", "n2")
    assert joined(again)["restored"]
    assert status.samples_total >= (manifest_of(checkpoints_of(nodes, "n0")[0])).run_samples
    assert "goes on from a checkpoint" not in again.text()
    await again.wait_for(lambda s: s.exchanges_initiated > 5, "exchanges")


@pytest.mark.slow
async def test_a_lone_node_goes_on_from_its_checkpoint_at_once(nodes: Nodes) -> None:
    first = start(nodes, "n0")
    await run_for_some_checkpoints([first])
    await kill(first)
    manifest = manifest_of(checkpoints_of(nodes, "n0")[0])
    assert manifest.members == ()
    again = start(nodes, "n0", "--cold-start-timeout=1000")
    status = await again.training()
    assert status.samples_total >= manifest.run_samples
    assert "waiting for the parameters" not in again.text()


@pytest.mark.slow
async def test_members_that_a_checkpoint_names_are_waited_for_by_name_and_not_for_ever(nodes: Nodes) -> None:
    first = await start_all(nodes)
    await run_for_some_checkpoints(first)
    await kill(*first)
    again = start(nodes, "n0", "--cold-start-timeout=2")
    await again.says("this node's checkpoint names it; it may hold a newer one")
    await again.training()
    assert "goes on from a checkpoint" in again.text()


@pytest.mark.slow
async def test_a_script_that_crashes_gets_its_state_back_and_the_plane_goes_on(nodes: Nodes) -> None:
    node = start(nodes, "n0", script=["--wait-to-rejoin"])
    await run_for_some_checkpoints([node])
    status = await node.status()
    kept = manifest_of(checkpoints_of(nodes, "n0")[0])
    os.kill(status.trainer_pid, signal.SIGKILL)
    await node.wait_for(lambda s: s.trainer_pid == 0, "the script's end")
    (node.folder / "script.jsonl.rejoin").touch()
    await node.wait_for(lambda s: s.trainer_restarts == 1 and s.step > status.step + 20, "steps")
    event = joined(node)
    assert event["resumed"]
    assert event["restored"]["step"] >= kept.step - 1  # type: ignore[index]


@pytest.mark.slow
async def test_a_full_disk_costs_checkpoints_but_neither_training_nor_those_before(nodes: Nodes) -> None:
    """The daemon may write no file beyond a size, which is what a full disk is to it; a small tmpfs would need root."""
    node = start(nodes, "n0", script=["--dim=200000", "--lr=1e-7"])
    await node.wait_for(lambda s: s.checkpoint, "a checkpoint")
    limit = 400_000  # the model has twice that; its log has less
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    status = await node.wait_for(lambda s: "cannot write a checkpoint" in s.problem, "the problem")
    assert "File too large" in status.problem
    assert status.checkpoint in map(str, checkpoints_of(nodes, "n0"))
    await node.wait_for(lambda s: s.step > status.step + 20, "training that goes on")
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    recovered = await node.wait_for(lambda s: not s.problem and s.checkpoint != status.checkpoint, "a checkpoint")
    assert manifest_of(recovered.checkpoint).run_steps > manifest_of(status.checkpoint).run_steps


TORCH_SCRIPT = """
import json, sys, torch, adpsgd_node
torch.manual_seed(1)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
with adpsgd_node.join(model, optimizer, batch_size=4) as node:
    steps = [int(entry["step"]) for entry in optimizer.state_dict()["state"].values()]
    with open(sys.argv[1], "a") as log:
        log.write(json.dumps(steps) + "\\n")
    while not node.should_stop:
        optimizer.zero_grad()
        (model(torch.randn(4, 8)) - 1).square().mean().backward()
        optimizer.step()
        node.log(loss=1.0)
"""


@pytest.mark.slow
async def test_the_optimizer_of_a_killed_node_goes_on_where_its_checkpoint_was(nodes: Nodes) -> None:
    path, log = nodes.folder / "script.py", nodes.folder / "adam"
    path.write_text(TORCH_SCRIPT)

    def start_torch() -> NodeProcess:
        return nodes.start("n0", *OPTIONS[1:], f"--checkpoints={folder_of(nodes, 'n0')}", script=[str(path), str(log)])

    node = start_torch()
    await node.wait_for(lambda s: s.checkpoint.endswith("2"), "two checkpoints")
    await kill(node)
    kept = manifest_of(checkpoints_of(nodes, "n0")[0])
    assert kept.trainer_absent == ""
    await start_torch().wait_for(lambda s: s.step > 10, "steps of the second life")
    first, second = [json.loads(line) for line in log.read_text().splitlines()]
    assert first == []
    assert len(second) == 2
    assert min(second) >= kept.step
