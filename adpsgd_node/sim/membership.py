"""Run many membership machines on one virtual clock, over a network that delays, loses and parts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from adpsgd_node.core.membership import Identity, JoinRequest, JoinResponse, MembershipConfig, Packet, Swim
from adpsgd_node.core.membership.effect import AskToJoin, Effect, MemberChanged, SendPacket
from adpsgd_node.core.membership.event import Event, JoinAnswered, JoinFailed, PacketReceived
from adpsgd_node.core.progress import Progress
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.network import Link, Network
from adpsgd_node.sim.observer import Observer

__all__ = ["MAX_UNREAD", "Life", "MembershipSimulation", "address_of"]

MAX_UNREAD = 10_000
"""Most messages kept for a stopped process, as the buffers of a real one would; later ones are lost."""

_RUN = RunId("simulation")


def address_of(name: str) -> Address:
    """Return the address at which a member starts unless told otherwise."""
    return Address(f"{name}:7000")


@dataclass(slots=True, eq=False)
class Life:
    """One life of one member: its machine, and whether it runs."""

    swim: Swim
    id: NodeId
    address: Address
    running: bool = True
    paused: bool = False
    outbound_only: bool = False
    wake_at: float | None = None
    """When the clock will call `expire`; an earlier deadline sets a new wake and leaves this one to be ignored."""
    unread: list[Callable[[], None]] = field(default_factory=list)


class MembershipSimulation:
    """A deterministic cluster: the same seed and the same calls always give the same history."""

    def __init__(self, seed: int = 0, config: MembershipConfig | None = None, link: Link | None = None) -> None:
        self.seed = seed
        self.clock = Clock()
        self.network = Network(random.Random(f"{seed} network"), link)
        self.network.healed = self._mend
        self.observer = Observer()
        self.blocked = 0
        """Messages sent to an outbound-only member other than with the answer to a call of its own."""
        self._config = config or MembershipConfig()
        self._at: dict[Address, Life] = {}
        self._latest: dict[str, Life] = {}
        self._doubtful: Life | None = None

    def start(
        self,
        name: str,
        seeds: Iterable[str | Address] = (),
        *,
        boot: int = 1,
        address: Address | None = None,
        outbound_only: bool = False,
    ) -> Life:
        """Start a member now; `seeds` are names or addresses. Whoever ran under the name or address is gone."""
        address = address or address_of(name)
        identity = Identity(id=NodeId(name, boot), address=address, run_id=_RUN, outbound_only=outbound_only)
        rng = random.Random(f"{self.seed} {name} {boot} {address}")
        known = [Address(seed) if ":" in seed else address_of(seed) for seed in seeds]
        # A counter of one entry: training progress is not simulated, and must not cost anything.
        swim = Swim(identity, self._config, rng, seeds=known, progress=Progress(1, owner=identity.id))
        for earlier in (self._at.get(address), self._latest.get(name)):
            if earlier is not None and earlier.running:
                self.crash(earlier)
        life = self._at[address] = self._latest[name] = Life(swim, identity.id, address, outbound_only=outbound_only)
        self.observer.started(life.id)
        if self.network.parted:
            self.observer.excuse([life.id])
        self._carry_out(life, swim.start(self.clock.now))
        return life

    def restart(self, life: Life, seeds: Iterable[str | Address] = (), *, address: Address | None = None) -> Life:
        """Start the next life of a member, at its address or a new one."""
        return self.start(
            life.id.name,
            seeds,
            boot=life.id.boot + 1,
            address=address or life.address,
            outbound_only=life.outbound_only,
        )

    def crash(self, life: Life) -> None:
        """End a process without a word."""
        life.running = False
        life.unread.clear()
        aware = [other.id for other in self.running() if not self._holds_live(other, life)]
        self.observer.stopped(life.id, self.clock.now, aware)

    def pause(self, life: Life) -> None:
        """Stop a process as SIGSTOP does: it neither acts nor reads, but what is sent to it is kept."""
        life.paused = True
        self.observer.excuse([life.id])

    def resume(self, life: Life) -> None:
        """Let a stopped process go on: it reads what has come meanwhile, then looks at its timers."""
        life.paused = False
        unread, life.unread = life.unread, []
        for read in unread:
            read()
        self._arm(life)
        self._mend()

    def partition(self, *sides: Sequence[Life]) -> None:
        """Cut the members apart; one on no side is alone. The dead of either side are no false deaths."""
        self.network.partition(*([life.address for life in side] for side in sides))
        self.observer.excuse(life.id for life in self.running())

    def running(self) -> list[Life]:
        """Return the lives that have not ended, in the order in which their names were first started."""
        return [life for life in self._latest.values() if life.running]

    def tell(self, life: Life, event: Event) -> None:
        """Hand a member one event now."""
        self._carry_out(life, life.swim.handle(event, self.clock.now))

    def heard(self, life: Life, effect: Effect) -> None:
        """Be told of each effect after it was carried out: a place for what is built on membership."""

    def life_at(self, address: Address) -> Life | None:
        """Return the latest life that was started at an address, running or not."""
        return self._at.get(address)

    def converged(self) -> bool:
        """Tell whether every running member holds exactly the running ones live, SUSPECT included."""
        expected = sorted(life.id for life in self.running())
        # Whoever was wrong last time is asked first: waiting for the last one then costs little.
        doubtful = [] if self._doubtful is None or not self._doubtful.running else [self._doubtful]
        for life in (*doubtful, *self.running()):
            if [member.id for member in life.swim.live()] != expected:
                self._doubtful = life
                return False
        return True

    def run_until_converged(self, limit_s: float, step_s: float = 0.5) -> float | None:
        """Let time pass until all views are right, looked at every `step_s`; return the seconds, None if never."""
        began = self.clock.now
        while not self.converged():
            if self.clock.now - began >= limit_s:
                return None
            self.clock.run(step_s)
        return self.clock.now - began

    def describe(self) -> str:
        """List whose view is wrong, and what they are wrong about, for a failed run."""
        expected = {life.id for life in self.running()}
        lines = [f"seed {self.seed}, {self.clock.now:.3f} s:"]
        for life in self.running():
            held = {member.id for member in life.swim.live()}
            if held != expected:
                missing, ghosts = (", ".join(map(str, sorted(ids))) for ids in (expected - held, held - expected))
                lines.append(f"{life.id} misses [{missing}] and holds live [{ghosts}]")
        return "\n".join([*lines, *map(str, self.observer.false_deaths)])

    def _mend(self) -> None:
        if not self.network.parted:
            reached = (life.id for life in self.running() if not life.paused)
            self.observer.mended(reached, self.clock.now)

    @staticmethod
    def _holds_live(observer: Life, life: Life) -> bool:
        return any(member.id == life.id for member in observer.swim.live())

    def _carry_out(self, life: Life, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendPacket):
                self._send(life, effect.address, self._receive, effect.packet)
            elif isinstance(effect, MemberChanged):
                self.observer.changed(life.id, effect.member, effect.before, self.clock.now)
            elif isinstance(effect, AskToJoin):
                self._ask(life, effect.seed)
            self.heard(life, effect)
        self._arm(life)

    def _arm(self, life: Life) -> None:
        due = life.swim.deadline()
        if due is not None and not life.paused and (life.wake_at is None or due < life.wake_at):
            life.wake_at = max(due, self.clock.now)
            self.clock.at(life.wake_at, self._wake, life, life.wake_at)

    def _wake(self, life: Life, set_for: float) -> None:
        if life.wake_at != set_for:
            return
        life.wake_at = None
        if life.running and not life.paused:
            self._carry_out(life, life.swim.expire(self.clock.now))

    def _send(self, sender: Life, to: Address, receive: Callable[..., None], *message: object) -> None:
        transit_s = self.network.transit_s(sender.address, to)
        if transit_s is not None:
            self.clock.after(transit_s, self._arrive, to, receive, message)

    def _answer_call(self, sender: Life, to: Life, receive: Callable[..., None], *message: object) -> None:
        transit_s = self.network.transit_s(sender.address, to.address)
        if transit_s is not None:
            self.clock.after(transit_s, self._return, to, receive, message)

    def _arrive(self, to: Address, receive: Callable[..., None], message: tuple[object, ...]) -> None:
        life = self._at.get(to)
        if life is None or not life.running:
            return
        if life.outbound_only:
            self.blocked += 1
            return
        self._read(life, receive, message)

    def _return(self, life: Life, receive: Callable[..., None], message: tuple[object, ...]) -> None:
        """Bring an answer back over the call that it answers: that way in is open to everyone."""
        if life.running:
            self._read(life, receive, message)

    def _read(self, life: Life, receive: Callable[..., None], message: tuple[object, ...]) -> None:
        if not life.paused:
            receive(life, *message)
        elif len(life.unread) < MAX_UNREAD:
            life.unread.append(lambda: receive(life, *message))

    def _receive(self, life: Life, packet: Packet) -> None:
        self._carry_out(life, life.swim.handle(PacketReceived(packet), self.clock.now))
        caller = self._latest.get(packet.source.name)
        if packet.source.outbound_only and caller is not None and caller.id == packet.source.id:
            for waiting in life.swim.collect(caller.id):
                self._answer_call(life, caller, self._receive, waiting)

    def _ask(self, asker: Life, seed: Address) -> None:
        target = self._at.get(seed)
        if target is None or not target.running:  # a closed port answers at once; a lost question not at all
            self._answer_call(asker, asker, self._fail, asker, seed)
        else:
            self._send(asker, seed, self._answer, asker, asker.swim.join_request(), seed)

    def _fail(self, life: Life, asker: Life, seed: Address) -> None:
        if life is asker:
            self.tell(life, JoinFailed(seed, "refused"))

    def _answer(self, life: Life, asker: Life, request: JoinRequest, seed: Address) -> None:
        response, effects = life.swim.answer_join(request, self.clock.now)
        self._answer_call(life, asker, self._hear, asker, seed, response)
        self._carry_out(life, effects)

    def _hear(self, life: Life, asker: Life, seed: Address, response: JoinResponse) -> None:
        if life is asker:
            self.tell(life, JoinAnswered(seed, response))
