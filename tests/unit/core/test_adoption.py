from __future__ import annotations

import random

from adpsgd_node.core.adoption import Adopt, Found, Offer, Wait, decide
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.ids import NodeId

OWN = NodeId("m", 1)


def _offer(name: str, phase: Phase, has_model: bool = False) -> Offer:
    return Offer(NodeId(name, 1), phase, has_model)


def test_node_alone_founds_the_run() -> None:
    assert decide(OWN, [], [], random.Random(0)) == Found()


def test_node_adopts_from_whoever_has_the_model() -> None:
    offers = [_offer("a", Phase.INITIALIZING), _offer("z", Phase.TRAINING, True)]
    assert decide(OWN, offers, [], random.Random(0)) == Adopt(NodeId("z", 1))


def test_smallest_name_of_those_initializing_founds_and_the_others_wait() -> None:
    assert decide(OWN, [_offer("z", Phase.INITIALIZING)], [], random.Random(0)) == Found()
    assert decide(OWN, [_offer("a", Phase.INITIALIZING)], [], random.Random(0)) == Wait(
        NodeId("a", 1), "it begins the run with its own"
    )


def test_nodes_without_a_trainer_are_not_waited_for() -> None:
    assert decide(OWN, [_offer("a", Phase.IDLE), _offer("b", Phase.JOINING)], [], random.Random(0)) == Found()


def test_poisoned_node_is_no_donor() -> None:
    assert decide(OWN, [_offer("a", Phase.POISONED, True)], [], random.Random(0)) == Found()


def test_of_two_that_ask_each_other_exactly_one_founds() -> None:
    one, two = NodeId("a", 1), NodeId("b", 1)
    first = decide(one, [Offer(two, Phase.INITIALIZING, False)], [], random.Random(0))
    second = decide(two, [Offer(one, Phase.INITIALIZING, False)], [], random.Random(0))
    assert [first, second] == [Found(), Wait(one, "it begins the run with its own")]


def test_live_peer_that_does_not_answer_is_waited_for_because_it_may_hold_the_model() -> None:
    silent = NodeId("z", 1)
    assert decide(OWN, [], [silent], random.Random(0)) == Wait(silent, "it does not answer, and may hold the model")
    assert decide(OWN, [_offer("a", Phase.TRAINING, True)], [silent], random.Random(0)) == Adopt(NodeId("a", 1))
