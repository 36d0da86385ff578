"""Find a node's first parameters: a live model of the peers, the newest checkpoint, the own ones, or wait for another.

Who begins is decided in `core.adoption`; this asks the peers, and does what was decided.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from adpsgd_node.checkpoint.store import Checkpoint
from adpsgd_node.core.adoption import Adopt, Asker, Found, Offer, Wait, decide
from adpsgd_node.core.membership.member import HOLDING, Member, Phase
from adpsgd_node.core.progress import Progress
from adpsgd_node.daemon.enquiry import Enquiry
from adpsgd_node.daemon.fetch import Fetcher
from adpsgd_node.daemon.restore import Restorer
from adpsgd_node.errors import TransportError, WireError
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog, OncePer

__all__ = ["Adopter", "Origin", "begin"]

FIRST_PAUSE_S = 0.1
LARGEST_PAUSE_S = 5.0
"""Pauses before the peers are asked again: while one founds the run, and longer each time the donors fail."""
LOG_AGAIN_S = 30.0
GREET_AGAIN_S = 3.0
MOST_DOUBTS = 5
"""How often in a row the peers are asked again because one has begun to ask meanwhile."""
MAX_GREETED = 16
"""Members named in the own checkpoint that are called at one time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node's first parameters came from: a peer, a checkpoint of its own, or (neither) its script."""

    donor: NodeId | None = None
    checkpoint: Checkpoint | None = None


def begin(origin: Origin, progress: Progress, newest: Checkpoint | None) -> None:
    """Count on from where the parameters come from, and say so.

    newest: this node's newest checkpoint, whether or not it begins with it.
    """
    log = EventLog("adopt")
    if origin.checkpoint is not None:
        manifest = origin.checkpoint.manifest
        progress.hear(manifest.progress)
        counted = {"samples": manifest.run_samples, "steps": manifest.run_steps}
        log.info("no live node has a model; goes on from a checkpoint", path=origin.checkpoint.path, **counted)
        return
    if origin.donor is not None:
        log.info("adopted the parameters of a peer", donor=origin.donor)
    else:
        log.info("starts with its own initial parameters")
    here = progress.totals().samples
    if newest is not None and newest.manifest.run_samples > here:
        there = newest.manifest.run_samples
        log.warning("the run was begun anew without this node's checkpoint", path=newest.path, there=there, here=here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopter:
    """What a node needs to find its first parameters."""

    identity: NodeId
    outbound_only: bool
    peers: Callable[[], Sequence[Member]]
    """The live members but this node."""
    samples_elsewhere: Callable[[], int]
    """What other nodes have taken of the run, as far as is known here."""
    greet: Callable[[Address], Awaitable[None]]
    """Begin at once to let whoever is at an address know of this node, and to hear what it knows."""
    enquiry: Enquiry
    fetcher: Fetcher
    restorer: Restorer
    cold_start_timeout_s: float
    rng: random.Random

    async def adopt_or_found(self, plane: Plane) -> Origin:
        """Bring the parameters to begin with into `plane.live`; with an empty origin they are what stood there.

        Waits as long as another node is founding the run, or a live peer that may hold the model is silent: membership
        finds out whether it is dead. Raises `SchemaMismatchError` or `RunMismatchError` when the run trains another
        model. Until this returns nobody else writes `live`.
        """
        return await _Search(self, plane).run()


class _Search:
    """One node's search for its first parameters."""

    def __init__(self, adopter: Adopter, plane: Plane) -> None:
        self._with = adopter
        self._plane = plane
        self._own_values = plane.live.copy()
        self._loop = asyncio.get_running_loop()
        self._patient_until = self._loop.time() + adopter.cold_start_timeout_s
        self._pause_s = FIRST_PAUSE_S
        self._loaded: Checkpoint | None = None
        """What stands in `live` now."""
        self._log = EventLog("adopt")
        self._doubts = 0
        self._once = OncePer(LOG_AGAIN_S)
        self._greeted = OncePer(GREET_AGAIN_S)

    async def run(self) -> Origin:
        while (origin := await self._round()) is None:
            pass
        return origin

    async def _round(self) -> Origin | None:
        """Ask everyone, and act on the answers; None: ask again."""
        members = self._with.peers()
        able = [member for member in members if not member.outbound_only]
        self._with.enquiry.askers()  # of those that asked before now the answers will tell
        offers, silent = await self._with.enquiry.ask(able, self._plane.layout)
        checkpoint = self._with.restorer.newest(self._plane.layout.schema)
        own = self._asker(checkpoint, members)
        decision = decide(own, offers, silent, self._with.rng)
        if isinstance(decision, Found) and self._overtaken(offers, able):
            return None
        match decision:
            case Found(from_checkpoint=False):
                self._plane.live[:] = self._own_values  # what broke off or was refused may have left some of its own
                return Origin()
            case Found():
                assert checkpoint is not None, "only who has a checkpoint founds from it"
                if self._loaded is checkpoint:
                    return Origin(checkpoint=checkpoint)
                # Ask once more after reading it: that took its time, and another may have begun meanwhile.
                self._loaded = checkpoint if await self._with.restorer.load(checkpoint, self._plane) else None
                return None
            case Wait(whom, why):
                if self._once.due(whom, self._loop.time()):
                    self._log.info("waiting for the parameters to begin with", whom=whom, why=why)
                if checkpoint is not None and own.missing and own.patient:
                    self._greet(checkpoint, own.missing)
            case Adopt(donors):
                donor = await self._fetch([member for node in donors for member in members if member.id == node])
                if donor is not None:
                    return Origin(donor=donor)
        await asyncio.sleep(self._pause_s * self._with.rng.uniform(0.5, 1.0))  # drawn: not all ask in step
        return None

    def _overtaken(self, offers: Sequence[Offer], able: Sequence[Member]) -> bool:
        """Tell whether one that had no script yet when it answered has asked since: it may found as well, having seen
        that this node has not. It is asked again."""
        asking = {offer.node for offer in offers if offer.phase is Phase.INITIALIZING}
        overlooked = self._with.enquiry.askers() & {member.id for member in able} - asking
        overtaken = bool(overlooked) and self._doubts < MOST_DOUBTS
        self._doubts = self._doubts + 1 if overtaken else 0
        return overtaken

    def _asker(self, checkpoint: Checkpoint | None, members: Sequence[Member]) -> Asker:
        here = {self._with.identity.name, *(member.name for member in members)}
        hints = () if checkpoint is None else checkpoint.manifest.members
        return Asker(
            node=self._with.identity,
            checkpoint=None if checkpoint is None else checkpoint.manifest.standing,
            missing=tuple(hint.name for hint in hints if hint.name not in here),
            patient=self._loop.time() < self._patient_until,
            outbound_only=self._with.outbound_only,
            out_of_reach=tuple(m.id for m in members if m.outbound_only and m.phase in HOLDING),
            samples_elsewhere=self._with.samples_elsewhere(),
        )

    def _greet(self, checkpoint: Checkpoint, missing: Sequence[str]) -> None:
        """Call some of the missing where they were: they may live, and none of the seeds lead from one to the other."""
        if not self._greeted.due("missing", self._loop.time()):
            return
        hints = [hint for hint in checkpoint.manifest.members if hint.name in missing]
        for hint in self._with.rng.sample(hints, min(MAX_GREETED, len(hints))):
            self._with.greet(hint.address)

    async def _fetch(self, donors: Sequence[Member]) -> NodeId | None:
        self._loaded = None
        try:
            donor = await self._with.fetcher.fetch(donors, self._plane)
        except (TransportError, WireError, TimeoutError) as error:
            if self._once.due("fetch", self._loop.time()):
                self._log.warning("could not adopt the peers' model; asking again", cause=error)
            self._pause_s = min(LARGEST_PAUSE_S, 2 * self._pause_s)
            return None
        # Its count of the run's steps belongs to its model; gossip would bring it only by and by.
        await self._with.greet(next(member.address for member in donors if member.id == donor))
        return donor
