from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.adoption import Adopt, Asker, Found, Offer, Standing, Wait, decide
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.ids import NodeId

OWN = NodeId("m", 1)
RNG = random.Random(0)
OLD, NEW = Standing(samples=100, steps=10), Standing(samples=200, steps=20)


def asker(checkpoint: Standing | None = None, missing: tuple[str, ...] = (), patient: bool = True) -> Asker:
    return Asker(node=OWN, checkpoint=checkpoint, missing=missing, patient=patient)


def offer(
    name: str, phase: Phase = Phase.INITIALIZING, has_model: bool = False, checkpoint: Standing | None = None
) -> Offer:
    return Offer(NodeId(name, 1), phase, has_model, checkpoint)


def waits_for(decision: Adopt | Found | Wait) -> str:
    assert isinstance(decision, Wait), decision
    return decision.whom


def test_node_alone_founds_the_run() -> None:
    assert decide(asker(), [], [], RNG) == Found()


def test_node_adopts_from_whoever_has_the_model() -> None:
    offers = [offer("a"), offer("z", Phase.TRAINING, True)]
    assert decide(asker(), offers, [], RNG) == Adopt((NodeId("z", 1),))


def test_all_that_have_the_model_are_donors_in_random_order() -> None:
    offers = [offer(name, Phase.TRAINING, True) for name in "abc"]
    seen = {decide(asker(), offers, [], random.Random(seed)) for seed in range(60)}
    assert len(seen) == 6
    assert all(isinstance(one, Adopt) and {node.name for node in one.donors} == set("abc") for one in seen)


def test_smallest_name_of_those_initializing_founds_and_the_others_wait() -> None:
    assert decide(asker(), [offer("z")], [], RNG) == Found()
    assert decide(asker(), [offer("a")], [], RNG) == Wait("a#1", "it begins the run with its own")


def test_a_run_that_others_were_training_is_not_begun_anew_before_there_was_time_to_find_them() -> None:
    known = Asker(node=OWN, samples_elsewhere=640)
    decision = decide(known, [], [], RNG)
    assert isinstance(decision, Wait)
    assert "640 samples" in decision.why
    assert decide(known, [offer("z", Phase.TRAINING, True)], [], RNG) == Adopt((NodeId("z", 1),))
    assert decide(Asker(node=OWN, samples_elsewhere=640, patient=False), [], [], RNG) == Found()
    held = Asker(node=OWN, samples_elsewhere=640, checkpoint=OLD)
    assert decide(held, [], [], RNG) == Found(from_checkpoint=True)


def test_outbound_only_node_begins_no_run_while_another_lives_but_adopts_and_begins_one_alone() -> None:
    hidden = Asker(node=OWN, outbound_only=True)
    assert waits_for(decide(hidden, [offer("z", Phase.IDLE)], (), random.Random(1))) == "z#1"
    with_checkpoint = Asker(node=OWN, outbound_only=True, checkpoint=Standing(9, 9))
    assert waits_for(decide(with_checkpoint, [offer("z", Phase.INITIALIZING)], (), random.Random(1))) == "z#1"
    assert isinstance(decide(hidden, [offer("z", Phase.TRAINING, has_model=True)], (), random.Random(1)), Adopt)
    assert decide(hidden, [], (), random.Random(1)) == Found()


def test_run_is_not_begun_anew_while_one_that_nobody_can_call_holds_its_model() -> None:
    held = Asker(node=OWN, out_of_reach=(NodeId("hidden", 1),))
    assert waits_for(decide(held, [], (), random.Random(1))) == "hidden#1"
    assert isinstance(decide(held, [offer("z", Phase.TRAINING, has_model=True)], (), random.Random(1)), Adopt)
    with_checkpoint = Asker(node=OWN, out_of_reach=(NodeId("hidden", 1),), checkpoint=Standing(9, 9))
    assert decide(with_checkpoint, [], (), random.Random(1)) == Found(from_checkpoint=True)


def test_nodes_without_a_trainer_are_not_waited_for() -> None:
    assert decide(asker(), [offer("a", Phase.IDLE)], [], RNG) == Found()


def test_a_seed_that_looks_for_the_run_itself_is_waited_for_while_there_is_time() -> None:
    offers = [offer("a", Phase.IDLE), offer("b", Phase.JOINING)]
    assert waits_for(decide(asker(), offers, [], RNG)) == "b#1"
    assert decide(asker(patient=False), offers, [], RNG) == Found()
    assert isinstance(decide(asker(), [*offers, offer("z", Phase.TRAINING, True)], [], RNG), Adopt)


def test_poisoned_node_is_no_donor() -> None:
    assert decide(asker(), [offer("a", Phase.POISONED, True)], [], RNG) == Found()


def test_a_node_that_leaves_is_no_donor_and_waited_for_while_it_holds_the_model() -> None:
    leaving = offer("z", Phase.DRAINING, True)
    assert waits_for(decide(asker(OLD), [leaving], [], RNG)) == "z#1"
    assert decide(asker(OLD), [leaving, offer("a", Phase.TRAINING, True)], [], RNG) == Adopt((NodeId("a", 1),))


def test_live_peer_that_does_not_answer_is_waited_for_because_it_may_hold_the_model() -> None:
    silent = NodeId("z", 1)
    assert decide(asker(NEW), [], [silent], RNG) == Wait("z#1", "it does not answer, and may hold the model")
    assert decide(asker(), [offer("a", Phase.TRAINING, True)], [silent], RNG) == Adopt((NodeId("a", 1),))


def test_a_live_model_is_adopted_though_there_is_a_newer_checkpoint() -> None:
    offers = [offer("a", Phase.TRAINING, True), offer("b", checkpoint=NEW)]
    assert decide(asker(Standing(10**9, 10**9)), offers, [], RNG) == Adopt((NodeId("a", 1),))


def test_the_newest_checkpoint_begins_whatever_the_names() -> None:
    assert decide(asker(NEW), [offer("a", checkpoint=OLD), offer("b")], [], RNG) == Found(from_checkpoint=True)
    assert waits_for(decide(asker(OLD), [offer("z", checkpoint=NEW)], [], RNG)) == "z#1"
    assert waits_for(decide(asker(), [offer("z", checkpoint=OLD)], [], RNG)) == "z#1"


def test_of_equal_samples_steps_decide_and_then_the_name() -> None:
    further = Standing(samples=100, steps=11)
    assert waits_for(decide(asker(OLD), [offer("z", checkpoint=further)], [], RNG)) == "z#1"
    assert waits_for(decide(asker(OLD), [offer("a", checkpoint=OLD)], [], RNG)) == "a#1"
    assert decide(asker(OLD), [offer("z", checkpoint=OLD)], [], RNG) == Found(from_checkpoint=True)


def test_members_that_the_checkpoint_names_are_waited_for_while_there_is_time() -> None:
    assert waits_for(decide(asker(NEW, missing=("z", "k")), [], [], RNG)) == "k"
    assert decide(asker(NEW, missing=("k",), patient=False), [], [], RNG) == Found(from_checkpoint=True)


def test_a_newer_checkpoint_whose_script_is_not_there_yet_is_waited_for_while_there_is_time() -> None:
    idle = offer("z", Phase.IDLE, checkpoint=NEW)
    assert waits_for(decide(asker(OLD), [idle], [], RNG)) == "z#1"
    assert decide(asker(OLD, patient=False), [idle], [], RNG) == Found(from_checkpoint=True)
    assert waits_for(decide(asker(OLD, patient=False), [offer("z", checkpoint=NEW)], [], RNG)) == "z#1"
    joining = offer("z", Phase.JOINING, checkpoint=NEW)  # its seeds may be gone for good: it will find this node
    assert waits_for(decide(asker(OLD, patient=False), [joining], [], RNG)) == "z#1"


def test_the_checkpoint_of_a_poisoned_node_counts_for_nothing_until_it_starts_anew() -> None:
    poisoned = offer("z", Phase.POISONED, has_model=True, checkpoint=NEW)
    assert decide(asker(OLD), [poisoned], [], RNG) == Found(from_checkpoint=True)


standings = st.none() | st.builds(Standing, st.integers(0, 3), st.integers(0, 3))
nodes = st.dictionaries(st.sampled_from("abcdefgh"), standings, min_size=1)


@given(nodes, st.booleans())
def test_of_nodes_that_all_see_each_other_exactly_one_founds_and_it_has_the_newest(
    checkpoints: dict[str, Standing | None], patient: bool
) -> None:
    decisions = {}
    for name, checkpoint in checkpoints.items():
        others = [offer(other, checkpoint=standing) for other, standing in checkpoints.items() if other != name]
        own = Asker(node=NodeId(name, 1), checkpoint=checkpoint, patient=patient)
        decisions[name] = decide(own, others, [], RNG)
    (founder,) = [name for name, decision in decisions.items() if isinstance(decision, Found)]
    held = [standing for standing in checkpoints.values() if standing is not None]
    assert decisions[founder] == Found(from_checkpoint=bool(held))
    assert checkpoints[founder] == (max(held) if held else None)
    waited_for = {decision.whom for decision in decisions.values() if isinstance(decision, Wait)}
    assert waited_for <= {f"{founder}#1"}
