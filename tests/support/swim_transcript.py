"""Play a transcript of the SWIM machine: commands in, effects out, both as text.

    > node a#1 at a:1 [seeds b:1,c:1] [preset lan]     the machine under test; the first command
    > at TIME COMMAND                                  everything else happens at a time
      start | leave | show
      expire-until TIME | expire                       every timer at its time; all that are due now, however late
      receive BODY from MEMBER [with MEMBER, MEMBER]   BODY: gossip, ack N, ping N for ID, ping-request N for ID@ADDR
      answered SEED by MEMBER [with MEMBER, MEMBER]    a seed lets us in
      refused SEED by MEMBER for REASON [with MEMBER]  a seed does not
      failed SEED REASON
      asked by MEMBER [with MEMBER, MEMBER] [run RUN] [protocol N]     someone asks to be let in, or to compare
      phase PHASE | advanced STEPS SAMPLES | lagged SECONDS

A member is written `b#1@b:1 alive/0 idle`, a suspect `b#1@b:1 suspect/0 idle by c`. Lines that start with `#` are
comments; indented lines are what came out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from adpsgd_node.core.membership import (
    Identity,
    JoinRequest,
    JoinResponse,
    Member,
    MemberState,
    Packet,
    Phase,
    Refusal,
    RefusalReason,
    Swim,
    membership_preset,
)
from adpsgd_node.core.membership.effect import Effect
from adpsgd_node.core.membership.event import (
    Advanced,
    JoinAnswered,
    JoinFailed,
    Leave,
    LoopLagged,
    PacketReceived,
    PhaseChanged,
)
from adpsgd_node.core.membership.packet import Ack, Body, Ping, PingRequest
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId

__all__ = ["play"]


def play(transcript: str) -> str:
    """Return the transcript with the output that the machine gives now under each command."""
    player: _Player | None = None
    lines = []
    for line in transcript.splitlines():
        if line.startswith("> node "):
            player = _Player(line.removeprefix("> node "))
            lines.append(line)
        elif line.startswith("> at "):
            assert player is not None, "a transcript begins with `> node`"
            time, command = line.removeprefix("> at ").split(" ", 1)
            lines += [line, *(f"  {output}" for output in player.carry_out(float(time), command))]
        elif not line.startswith("  "):
            assert not line.startswith(">"), f"no such command: {line}"
            lines.append(line)
    return "\n".join(lines) + "\n"


class _Player:
    def __init__(self, words: str) -> None:
        match = _match(r"(\S+) at (\S+)(?: seeds (\S+))?(?: preset (\S+))?", words)
        own, address, seeds, preset = match.groups()
        identity = Identity(id=_node_id(own), address=Address(address), run_id=RunId("run"))
        config = membership_preset(preset or "lan")
        self.swim = Swim(
            identity, config, random.Random(1), seeds=[Address(seed) for seed in (seeds or "").split(",") if seed]
        )

    def carry_out(self, now: float, command: str) -> list[str]:
        verb, _, words = command.partition(" ")
        swim = self.swim
        match verb:
            case "start":
                return _shown(now, swim.start(now))
            case "expire-until":
                return self._expire_until(float(words))
            case "expire":
                return _shown(now, swim.expire(now))
            case "show":
                return [f"{member}" for member in swim.members()]
            case "asked":
                response, effects = swim.answer_join(_join_request(words), now)
                return [f"[{now:.3f}] answer: {response}", *_shown(now, effects)]
            case "receive":
                return _shown(now, swim.handle(PacketReceived(_packet(words)), now))
            case "answered" | "refused":
                return _shown(now, swim.handle(_join_answer(words), now))
            case "failed":
                seed, reason = words.split(" ", 1)
                return _shown(now, swim.handle(JoinFailed(Address(seed), reason), now))
            case "phase":
                return _shown(now, swim.handle(PhaseChanged(Phase[words.upper()]), now))
            case "advanced":
                steps, samples = words.split()
                return _shown(now, swim.handle(Advanced(int(steps), int(samples)), now))
            case "lagged":
                return _shown(now, swim.handle(LoopLagged(float(words)), now))
            case "leave":
                return _shown(now, swim.handle(Leave(), now))
        raise AssertionError(f"no such command: {command}")

    def _expire_until(self, end: float) -> list[str]:
        lines = []
        while (due := self.swim.deadline()) is not None and due <= end:
            lines += _shown(due, self.swim.expire(due))
        return lines


def _shown(now: float, effects: Iterable[Effect]) -> list[str]:
    return [f"[{now:.3f}] {effect}" for effect in effects]


def _match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text)
    assert match is not None, f"cannot read {text!r}"
    return match


def _node_id(text: str) -> NodeId:
    name, boot = text.split("#")
    return NodeId(name, int(boot))


def _member(text: str) -> Member:
    match = _match(r"(\S+)@(\S+) (\w+)/(\d+) (\w+)(?: by (\S+))?", text)
    own, address, state, incarnation, phase, accuser = match.groups()
    return Member(
        _node_id(own),
        Address(address),
        int(incarnation),
        MemberState[state.upper()],
        Phase[phase.upper()],
        suspected_by=accuser or "",
    )


def _members(text: str | None) -> tuple[Member, ...]:
    return tuple(_member(part) for part in text.split(", ")) if text else ()


def _body(text: str) -> Body | None:
    if text == "gossip":
        return None
    if match := re.fullmatch(r"ack (\d+)", text):
        return Ack(int(match[1]))
    if match := re.fullmatch(r"ping (\d+) for (\S+)", text):
        return Ping(int(match[1]), _node_id(match[2]))
    match = _match(r"ping-request (\d+) for (\S+)@(\S+)", text)
    return PingRequest(int(match[1]), _node_id(match[2]), Address(match[3]))


def _packet(text: str) -> Packet:
    match = _match(r"(.+?) from (.+?)(?: with (.+?))?(?: run (\S+))?", text)
    body, source, updates, run = match.groups()
    return Packet(
        protocol=PROTOCOL_VERSION,
        run_id=RunId(run or "run"),
        source=_member(source),
        updates=_members(updates),
        body=_body(body),
    )


def _join_request(text: str) -> JoinRequest:
    match = _match(r"by (.+?)(?: with (.+?))?(?: run (\S+))?(?: protocol (\d+))?", text)
    source, members, run, protocol = match.groups()
    return JoinRequest(
        protocol=int(protocol or PROTOCOL_VERSION),
        run_id=RunId(run or "run"),
        source=_member(source),
        members=_members(members),
    )


def _join_answer(text: str) -> JoinAnswered:
    match = _match(r"(\S+) by (.+?)(?: for (\S+))?(?: with (.+))?", text)
    seed, source, reason, members = match.groups()
    refusal = Refusal(RefusalReason[reason.upper()], "as the seed says") if reason else None
    response = JoinResponse(refusal=refusal, source=_member(source), members=_members(members))
    return JoinAnswered(Address(seed), response)
