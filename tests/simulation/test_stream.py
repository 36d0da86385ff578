"""Streams and calls of the simulator: in order, late, torn, stopped, and answered by whoever is there."""

from __future__ import annotations

import random

import pytest

from adpsgd_node.core.exchange.frame import Close, Settle, Settled, SettleOutcome
from adpsgd_node.core.exchange.initiator import StreamBroke, StreamEnded
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.sim import Life, Link, MembershipSimulation
from adpsgd_node.sim.process import Process
from adpsgd_node.sim.stream import GIVE_UP_S, StreamEnd, StreamEvent, StreamFaults
from adpsgd_node.sim.transport import Transport

FRAMES = [Close(number) for number in range(20)]


class Pair:
    """Two processes, and what each has read."""

    def __init__(self, seed: int = 0, loss: float = 0.0) -> None:
        self.simulation = MembershipSimulation(seed, link=Link(loss=loss))
        self.clock = self.simulation.clock
        self.lives: list[Life] = [self.simulation.start(name) for name in ("a", "b")]
        self.one, self.other = (Process(life, self.clock) for life in self.lives)
        processes = {process.life.address: process for process in (self.one, self.other)}
        self.transport = Transport(self.clock, self.simulation.network, random.Random(seed), processes.get)
        self.caller: list[StreamEvent] = []
        self.server: list[StreamEvent] = []
        self.served: list[StreamEnd] = []
        self.other.accept = self._accept

    def open(self, target: str = "b:7000") -> StreamEnd:
        end = self.transport.open(self.one, Address(target))
        end.take = self.caller.append
        return end

    def _accept(self, end: StreamEnd) -> None:
        self.served.append(end)
        end.take = self.server.append


@pytest.mark.parametrize("seed", range(5))
def test_what_is_sent_arrives_in_order_though_the_network_loses_a_third(seed: int) -> None:
    pair = Pair(seed, loss=0.3)
    end = pair.open()

    for frame in FRAMES:
        end.send(frame)
        pair.clock.run(0.01)
    pair.clock.run(10.0)

    assert pair.server == FRAMES


def test_an_end_in_good_order_comes_after_all_that_was_sent() -> None:
    pair = Pair(1, loss=0.3)
    end = pair.open()
    end.send(FRAMES[0])
    pair.clock.run(5.0)

    for frame in FRAMES[1:]:
        pair.served[0].send(frame)
    pair.served[0].close()
    pair.clock.run(20.0)

    assert pair.caller == [*FRAMES[1:], StreamEnded()]


def test_a_cut_that_ends_soon_only_delays_and_a_long_one_breaks_the_sender() -> None:
    pair = Pair()
    end = pair.open()
    end.send(FRAMES[0])
    pair.clock.run(1.0)

    pair.simulation.partition([pair.lives[0]], [pair.lives[1]])
    end.send(FRAMES[1])
    pair.clock.run(3.0)
    assert pair.server == FRAMES[:1]
    pair.simulation.network.heal()
    pair.clock.run(1.0)
    assert pair.server == FRAMES[:2]

    pair.simulation.partition([pair.lives[0]], [pair.lives[1]])
    end.send(FRAMES[2])
    pair.clock.run(GIVE_UP_S + 1.0)
    assert pair.caller == [StreamBroke("nothing gets through")]
    assert pair.server == FRAMES[:2]


def test_a_cancelled_stream_breaks_at_the_other_end_too() -> None:
    pair = Pair()
    end = pair.open()
    end.send(FRAMES[0])
    pair.clock.run(1.0)

    end.cancel()
    end.send(FRAMES[1])
    pair.clock.run(1.0)

    assert pair.server == [FRAMES[0], StreamBroke("reset by the peer")]
    assert pair.caller == []


@pytest.mark.parametrize("vanish", [False, True])
def test_a_crash_is_noticed_unless_the_machine_went_too(vanish: bool) -> None:
    pair = Pair()
    end = pair.open()
    end.send(FRAMES[0])
    pair.clock.run(1.0)

    pair.simulation.crash(pair.lives[1])
    pair.transport.crash(pair.other, vanish=vanish)
    end.send(FRAMES[1])
    pair.clock.run(5.0)
    later = pair.open()
    later.send(FRAMES[0])
    pair.clock.run(5.0)

    assert pair.server == FRAMES[:1]
    assert pair.caller == ([] if vanish else [StreamBroke("reset by the peer")] * 2)


def test_a_stopped_process_reads_in_order_once_it_goes_on() -> None:
    pair = Pair()
    end = pair.open()
    end.send(FRAMES[0])
    pair.clock.run(1.0)

    pair.simulation.pause(pair.lives[1])
    rung: list[float] = []
    pair.other.after(1.0, lambda: rung.append(pair.clock.now))
    for frame in FRAMES[1:4]:
        end.send(frame)
    pair.clock.run(5.0)
    assert (pair.server, rung) == (FRAMES[:1], [])
    pair.simulation.resume(pair.lives[1])
    pair.other.ring_late()

    assert pair.server == FRAMES[:4]
    assert rung == [6.0]


def test_torn_streams_break_at_either_end_or_at_none_and_nothing_is_sent_any_more() -> None:
    noticed: set[tuple[bool, bool]] = set()
    for seed in range(60):
        pair = Pair(seed)
        end = pair.open()
        end.send(FRAMES[0])
        pair.clock.run(1.0)
        pair.transport.tear(pair.one)
        end.send(FRAMES[1])
        pair.clock.run(5.0)
        assert FRAMES[1] not in pair.server
        noticed.add((StreamBroke("connection reset") in pair.caller, StreamBroke("connection reset") in pair.server))

    assert noticed == {(True, True), (True, False), (False, True), (False, False)}


def test_a_torn_stream_may_be_said_a_second_time_to_nobodys_knowledge() -> None:
    pair = Pair()
    pair.transport.faults = StreamFaults(replay=1.0)
    end = pair.open()
    for frame in FRAMES[:3]:
        end.send(frame)
    pair.clock.run(1.0)

    pair.transport.tear(pair.one)
    pair.clock.run(10.0)
    pair.served[1].send(FRAMES[9])
    pair.clock.run(1.0)

    assert [event for event in pair.server if event in FRAMES] == FRAMES[:3] * 2
    assert FRAMES[9] not in pair.caller


def test_a_call_is_answered_or_ends_when_its_time_is_up() -> None:
    pair = Pair()
    settle = Settle(
        run_id=RunId("r"), initiator=NodeId("a", 1), responder=NodeId("b", 1), exchange_id=1, applied_through=0
    )
    answer = Settled(SettleOutcome.SETTLED, 2)
    pair.other.settle = lambda _settle: answer
    answers: list[tuple[float, Settled | None]] = []

    def call() -> None:
        pair.transport.call(
            pair.one, Address("b:7000"), settle, 3.0, lambda it: answers.append((round(pair.clock.now), it))
        )

    call()
    pair.clock.run_until(10.0)
    pair.simulation.partition([pair.lives[0]], [pair.lives[1]])
    call()
    pair.clock.run_until(20.0)

    assert answers == [(0, answer), (13, None)]
