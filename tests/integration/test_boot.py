"""The clock was set back: a restarted node still counts as a later life than its own ghost, and steals no name."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.errors import NameInUseError
from support.node_process import NodeProcess, Nodes

AHEAD_MS = 10**9
"""How far the first life's boot number is ahead of the clock: eleven days."""


async def test_a_node_begins_above_the_boot_number_of_its_last_life(nodes: Nodes) -> None:
    output, future = _folder_of_an_earlier_life(nodes)
    first = nodes.start("a", f"--output={output}")
    assert (await first.up()).self_member.id.boot == future + 1
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    again = nodes.start("a", f"--output={output}")
    assert (await again.up()).self_member.id.boot == future + 2


async def test_without_its_folder_a_restarted_node_outbids_its_ghost_at_the_same_address(nodes: Nodes) -> None:
    seed, ghost = await _pair_with_a_ghost(nodes)
    address = (await ghost.status()).self_member.address
    ghost.signal(signal.SIGKILL)
    await ghost.ended()
    again = nodes.start("b", "--epochs=1000", f"--listen={address}", seeds=[await _address(seed)])
    await _trains_as_a_later_life(again, seed, ghost)


async def test_without_its_folder_a_node_at_another_address_outbids_its_ghost_once_that_is_dead(nodes: Nodes) -> None:
    seed, ghost = await _pair_with_a_ghost(nodes)
    ghost.signal(signal.SIGKILL)
    await seed.sees("b", MemberState.DEAD)
    again = nodes.start("b", "--epochs=1000", seeds=[await _address(seed)])
    await _trains_as_a_later_life(again, seed, ghost)


async def test_the_name_of_a_live_node_with_a_larger_boot_number_is_not_taken(nodes: Nodes) -> None:
    seed, holder = await _pair_with_a_ghost(nodes)
    boot = (await holder.status()).self_member.id.boot
    other = nodes.start("b", runtime="elsewhere", seeds=[await _address(seed)])
    assert await other.ended() == NameInUseError.exit_code, other.text()
    assert "begins anew" not in other.text()
    assert (await holder.status()).self_member.id.boot == boot
    assert (await seed.sees("b", MemberState.ALIVE)).self_member.id.name == "a"


async def test_a_node_that_trained_before_it_met_its_ghost_ends_and_its_next_life_is_above(nodes: Nodes) -> None:
    seed, ghost = await _pair_with_a_ghost(nodes)
    address, seed_address = (await ghost.status()).self_member.address, await _address(seed)
    ghost.signal(signal.SIGKILL)
    await seed.sees("b", MemberState.DEAD)
    seed.signal(signal.SIGSTOP)
    hidden = nodes.start("b", "--epochs=1000", f"--listen={address}")
    await hidden.training()
    seed.signal(signal.SIGCONT)
    assert await hidden.ended() == NameInUseError.exit_code, hidden.text()
    assert "was the clock set back?" in hidden.text()
    again = nodes.start(
        "b", "--epochs=1000", f"--listen={address}", f"--output={hidden.model.parent}", seeds=[seed_address]
    )
    earlier = int((ghost.folder.parent / "earlier" / "boot").read_text())
    assert (await again.training()).self_member.id.boot == earlier + 2
    await seed.sees("b", MemberState.ALIVE)


def _folder_of_an_earlier_life(nodes: Nodes) -> tuple[Path, int]:
    output, future = nodes.folder / "earlier", time.time_ns() // 1_000_000 + AHEAD_MS
    output.mkdir()
    (output / "boot").write_text(f"{future}\n")
    return output, future


async def _pair_with_a_ghost(nodes: Nodes) -> tuple[NodeProcess, NodeProcess]:
    """Start a seed, and a node whose boot number is ahead of the clock."""
    seed = nodes.start("a", "--epochs=1000")
    output, future = _folder_of_an_earlier_life(nodes)
    ghost = nodes.start("b", f"--output={output}", "--epochs=1000", seeds=[await _address(seed)])
    await ghost.training()
    assert (await ghost.status()).self_member.id.boot == future + 1
    await seed.sees("b", MemberState.ALIVE)
    return seed, ghost


async def _address(node: NodeProcess) -> str:
    return (await node.up()).self_member.address


async def _trains_as_a_later_life(again: NodeProcess, seed: NodeProcess, ghost: NodeProcess) -> None:
    earlier = int((ghost.folder.parent / "earlier" / "boot").read_text())
    status = await again.training()
    assert status.self_member.id.boot == earlier + 1
    assert int((again.model.parent / "boot").read_text()) == earlier + 1
    assert again.text().count("begins anew above it") == 1
    await seed.wait_for(
        lambda s: any(e.member.id == status.self_member.id and e.member.state is MemberState.ALIVE for e in s.members),
        "the later life being alive",
    )
    exchanges = (await again.status()).exchanges_responded
    await again.wait_for(lambda s: s.exchanges_responded > exchanges, "exchanges that the others begin")
