"""Whole clusters on a virtual clock. A failure prints the seed and what every node believed."""

from __future__ import annotations

import pytest

from adpsgd_node.core.membership import MembershipConfig, MemberState, Phase, membership_preset
from adpsgd_node.core.membership.effect import (
    AskToJoin,
    Joined,
    JoinRefused,
    MemberChanged,
    NameConflict,
    NameInUse,
    Refuted,
    Rejected,
    Waiting,
)
from adpsgd_node.core.membership.event import Advanced, Leave, PhaseChanged
from adpsgd_node.core.progress import Totals
from support.swim_cluster import Node, SwimCluster, address_of

SEEDS = [1, 2, 3]


def settled(seed: int, count: int, config: MembershipConfig | None = None) -> tuple[SwimCluster, list[Node]]:
    cluster = SwimCluster(seed, config)
    nodes = cluster.cluster_of(count)
    cluster.run_until(lambda: cluster.agreed(*nodes), 120.0)
    return cluster, nodes


def deaths(node: Node) -> list[str]:
    return [
        effect.member.name
        for effect in node.heard(MemberChanged)
        if isinstance(effect, MemberChanged) and effect.member.state is MemberState.DEAD
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_nodes_that_join_through_one_seed_all_find_each_other(seed: int, count: int) -> None:
    _, nodes = settled(seed, count)
    for node in nodes:
        assert len(node.heard(Joined)) == 1


def test_same_seed_gives_the_same_history() -> None:
    histories = []
    for _ in range(2):
        cluster, nodes = settled(1, 5)
        cluster.run(10.0)
        histories.append([node.told for node in nodes])
    assert histories[0] == histories[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quiet_cluster_stays_quiet(seed: int) -> None:
    cluster, nodes = settled(seed, 8)
    cluster.run(1.0)
    begin = cluster.now
    before = cluster.packets
    cluster.run(60.0)
    assert not [effect for node in nodes for effect in node.heard(MemberChanged, begin)]
    assert cluster.packets - before <= 8 * 61 * 2  # a ping and its ack, per node and interval


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 3, 12])
@pytest.mark.parametrize("preset", ["local", "lan"])
def test_a_crashed_node_is_found_dead_by_all(seed: int, count: int, preset: str) -> None:
    cluster, nodes = settled(seed, count, membership_preset(preset))
    *survivors, victim = nodes
    cluster.crash(victim)
    cluster.run_until(lambda: cluster.agreed(*survivors), 60.0)
    for node in survivors:
        assert deaths(node) == [victim.swim.self_member.name]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("preset", ["local", "lan"])
def test_one_packet_lost_in_ten_kills_nobody(seed: int, preset: str) -> None:
    cluster, nodes = settled(seed, 8, membership_preset(preset))
    cluster.loss = 0.1
    cluster.run(120.0 * cluster.config.probe_interval_s)
    assert [deaths(node) for node in nodes] == [[]] * 8


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_heavy_loss_made_look_dead_is_back_once_it_ends(seed: int) -> None:
    cluster, nodes = settled(seed, 8)
    cluster.loss = 0.9
    cluster.run(120.0)
    assert any(deaths(node) for node in nodes), "the loss was too light to test anything"
    cluster.loss = 0.0
    cluster.run_until(lambda: cluster.agreed(*nodes), 120.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_is_found_through_lost_packets(seed: int) -> None:
    cluster, nodes = settled(seed, 8)
    cluster.loss = 0.2
    cluster.crash(nodes[3])
    survivors = [node for node in nodes if node is not nodes[3]]
    cluster.run_until(lambda: all("n03" not in node.live_names() for node in survivors), 60.0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cut", [1, 3])
def test_a_partition_heals(seed: int, cut: int) -> None:
    cluster, nodes = settled(seed, 6)
    one, other = nodes[:cut], nodes[cut:]
    cluster.partition(one, other)
    cluster.run_until(lambda: cluster.agreed(*one) and cluster.agreed(*other), 60.0)
    cluster.run(60.0)
    cluster.heal()
    cluster.run_until(lambda: cluster.agreed(*nodes), 120.0)


def test_a_partition_heals_even_after_the_dead_are_forgotten() -> None:
    cluster, nodes = settled(1, 6, MembershipConfig(tombstone_s=20.0))
    one, other = nodes[:3], nodes[3:]
    cluster.partition(one, other)
    cluster.run(90.0)
    assert all(len(node.swim.members()) == 3 for node in nodes)
    cluster.heal()
    cluster.run_until(lambda: cluster.agreed(*nodes), 180.0)


def test_a_partition_heals_without_any_seed_because_the_dead_are_tried_again() -> None:
    cluster, nodes = settled(1, 6)
    cluster.crash(nodes[0])  # the only seed
    one, other = nodes[1:3], nodes[3:]
    cluster.partition(one, other)
    cluster.run_until(lambda: cluster.agreed(*one) and cluster.agreed(*other), 60.0)
    cluster.run(30.0)  # until no ping to the other side is under way any more
    cluster.heal()
    cluster.run_until(lambda: cluster.agreed(*one, *other), 120.0)


def test_one_broken_link_kills_nobody_because_relays_reach_over_it() -> None:
    cluster, nodes = settled(1, 4)
    a, b, c, d = nodes
    cluster.partition([a, c, d], [b, c, d])
    cluster.run(60.0)
    assert [deaths(node) for node in nodes] == [[]] * 4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_paused_node_is_found_dead_and_returns_by_refuting(seed: int) -> None:
    cluster, nodes = settled(seed, 4)
    paused, *others = nodes
    cluster.pause(paused)
    cluster.run_until(lambda: all(node.states()["n00"] is MemberState.DEAD for node in others), 30.0)
    cluster.run(5.0)
    woke = cluster.now
    cluster.resume(paused)
    cluster.run_until(lambda: cluster.agreed(*nodes), 30.0)
    assert paused.heard(Refuted, woke)
    assert deaths(paused) == [], "who stood still must not judge the others by timers that ran out meanwhile"


def test_a_node_restarted_in_place_supersedes_its_earlier_life_at_once() -> None:
    cluster, nodes = settled(1, 4)
    again = cluster.add("n02", ["n00"], boot=2)
    everyone = [nodes[0], nodes[1], again, nodes[3]]
    took = cluster.run_until(lambda: cluster.agreed(*everyone), 30.0)
    assert took < MembershipConfig().minimum_suspicion_s
    for node in (nodes[0], nodes[1], nodes[3]):
        assert deaths(node) == []
        changes = [effect for effect in node.heard(MemberChanged) if effect.member.id.boot == 2]  # type: ignore[attr-defined]
        assert changes[0].before.id.boot == 1  # type: ignore[attr-defined]


def test_a_lone_seed_that_restarts_is_found_again_by_those_it_knew() -> None:
    cluster, nodes = settled(1, 3)
    cluster.crash(nodes[0])
    cluster.run_until(lambda: cluster.agreed(nodes[1], nodes[2]), 60.0)
    again = cluster.add("n00", [], boot=2)
    cluster.run_until(lambda: cluster.agreed(again, nodes[1], nodes[2]), 60.0)


def test_a_name_moves_to_a_new_address_only_after_its_holder_is_dead() -> None:
    cluster, nodes = settled(1, 3)
    cluster.crash(nodes[2])
    moved = cluster.add("n02", ["n00"], boot=2, address=address_of("elsewhere"))
    cluster.run(1.0)
    assert moved.heard(NameInUse)
    assert not moved.swim.joined
    cluster.run_until(lambda: cluster.agreed(nodes[0], nodes[1], moved), 60.0)


def test_a_second_live_node_of_one_name_is_never_let_in() -> None:
    cluster, nodes = settled(1, 3)
    twin = cluster.add("n02", ["n00", "n02"], boot=2, address=address_of("elsewhere"))
    cluster.run(120.0)
    assert not twin.swim.joined
    holders = [effect.holder for effect in twin.heard(NameInUse) if isinstance(effect, NameInUse)]
    assert {holder.address for holder in holders if holder} == {nodes[2].address}
    assert cluster.agreed(*nodes)


def test_two_nodes_of_one_name_that_joined_apart_both_hear_of_the_conflict() -> None:
    cluster = SwimCluster(1)
    one = cluster.add("twin", [], boot=1, address=address_of("left"))
    other = cluster.add("twin", [], boot=2, address=address_of("right"))
    friend = cluster.add("friend", ["left"])
    cluster.run(5.0)
    assert not one.heard(NameConflict)
    cluster.add("bridge", ["right"])
    cluster.run(5.0)
    # The two halves meet: someone of one half asks a member of the other to be let in.
    response, effects = friend.swim.answer_join(cluster.nodes[address_of("bridge")].swim.join_request(), cluster.now)
    assert response.refusal is None
    assert effects
    cluster.run_until(lambda: bool(one.heard(NameConflict)) and bool(other.heard(NameConflict)), 60.0)
    for node in (one, other):
        assert len(node.heard(NameConflict)) <= 1 + cluster.now / cluster.config.reconnect_interval_s


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_waits_for_its_seeds_and_joins_once_one_is_up(seed: int) -> None:
    cluster = SwimCluster(seed)
    early = cluster.add("early", ["x", "y"])
    cluster.run(60.0)
    assert not early.swim.joined
    asked = [effect.seed for effect in early.heard(AskToJoin) if isinstance(effect, AskToJoin)]
    assert asked[:4] == [address_of("x"), address_of("y"), address_of("x"), address_of("y")]
    assert 8 <= len(asked) <= 60, "neither in a hurry nor asleep"
    assert early.heard(Waiting)
    seed_node = cluster.add("y", [])
    cluster.run_until(lambda: cluster.agreed(early, seed_node), 15.0)
    assert early.heard(Joined) == [Joined(address_of("y"))]


def test_two_nodes_that_are_each_others_seed_start_together() -> None:
    cluster = SwimCluster(1)
    pair = [cluster.add("a", ["b"]), cluster.add("b", ["a"])]
    cluster.run_until(lambda: cluster.agreed(*pair) and all(node.swim.joined for node in pair), 10.0)


def test_a_node_left_alone_finds_a_seed_that_comes_back_as_another_life() -> None:
    cluster = SwimCluster(1, MembershipConfig(tombstone_s=5.0))
    seed_node = cluster.add("s", [])
    alone = cluster.add("a", ["s"])
    cluster.run_until(lambda: cluster.agreed(seed_node, alone), 10.0)
    cluster.crash(seed_node)
    cluster.run(120.0)
    assert alone.live_names() == ["a"]
    again = cluster.add("s", [], boot=2)
    cluster.run_until(lambda: cluster.agreed(again, alone), 15.0)
    assert len(alone.heard(Joined)) == 1


def test_a_node_that_leaves_is_no_failure_and_is_not_suspected() -> None:
    cluster, nodes = settled(1, 6)
    *rest, leaver = nodes
    cluster.tell(leaver, Leave())
    cluster.run(0.5)
    cluster.crash(leaver)
    cluster.run_until(lambda: all("n05" not in node.live_names() for node in rest), 30.0)
    for node in rest:
        assert node.states()["n05"] is MemberState.LEFT
        assert deaths(node) == []


def test_a_phase_reaches_everyone() -> None:
    cluster, nodes = settled(1, 10)
    cluster.tell(nodes[4], PhaseChanged(Phase.TRAINING))

    def phases() -> set[Phase]:
        return {member.phase for node in nodes for member in node.swim.members() if member.name == "n04"}

    cluster.run_until(lambda: phases() == {Phase.TRAINING}, 30.0)


def test_progress_of_all_reaches_all_and_outlives_its_node() -> None:
    cluster, nodes = settled(1, 40)
    for node in nodes:
        cluster.tell(node, Advanced(10, 320))
    cluster.run_until(lambda: all(node.swim.progress.totals() == Totals(400, 12800) for node in nodes), 60.0)
    cluster.crash(nodes[7])
    cluster.run(30.0)
    late = cluster.add("late", ["n00"])
    cluster.run(1.0)
    assert late.swim.progress.totals() == Totals(400, 12800)


def test_a_node_of_another_run_is_refused_and_its_packets_are_dropped() -> None:
    cluster, nodes = settled(1, 2)
    stranger = cluster.add("stranger", ["n00"], run="other")
    cluster.run(30.0)
    assert stranger.heard(JoinRefused)
    assert not stranger.swim.joined
    assert cluster.agreed(*nodes)
    # Another run takes over the address of a member: what comes from there is dropped, and the member found dead.
    imposter = cluster.add("imposter", [], address=nodes[1].address, run="other")
    cluster.run(30.0)
    assert imposter.heard(Rejected)
    assert nodes[0].live_names() == ["n00"]


@pytest.mark.parametrize("seed", SEEDS)
def test_churn_ends_in_agreement(seed: int) -> None:
    cluster, nodes = settled(seed, 8)
    cluster.loss = 0.1
    cluster.crash(nodes[1])
    cluster.pause(nodes[2])
    cluster.run(7.0)
    late = cluster.add("late", ["n00", "n03"])
    cluster.partition([*nodes[:4], late], nodes[4:])
    cluster.run(20.0)
    again = cluster.add("n01", ["n03"], boot=2)
    cluster.resume(nodes[2])
    cluster.heal()
    cluster.loss = 0.0
    everyone = [nodes[0], again, *nodes[2:], late]
    cluster.run_until(lambda: cluster.agreed(*everyone), 180.0)
