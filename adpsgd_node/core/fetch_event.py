"""Define what happens to the plan of a fetch, and what it asks its owner to do."""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.ids import NodeId

__all__ = [
    "AskChunks",
    "CancelRequest",
    "ChunkArrived",
    "DonorDropped",
    "FetchDone",
    "FetchEffect",
    "FetchEvent",
    "FetchFailed",
    "FetchStarted",
    "RangeEnded",
    "RequestBroke",
    "RequestRefused",
    "RequestSpoilt",
]

# Events. `request` is the number given by `AskChunks`; what comes of a request that is over is ignored.


@dataclass(frozen=True, slots=True)
class FetchStarted:
    pass


@dataclass(frozen=True, slots=True)
class ChunkArrived:
    """The next chunk of the request came, and its digest is right."""

    request: int


@dataclass(frozen=True, slots=True)
class RangeEnded:
    """The donor has sent all it was asked for, and the digest over the range is right."""

    request: int


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The donor is busy now, and says when to ask again."""

    request: int
    why: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class RequestBroke:
    """The stream broke, or could not be opened; another may go through."""

    request: int
    why: str


@dataclass(frozen=True, slots=True)
class RequestSpoilt:
    """What the donor said is wrong (digest, values, protocol, model): nothing of it is wanted any more."""

    request: int
    why: str


FetchEvent = FetchStarted | ChunkArrived | RangeEnded | RequestRefused | RequestBroke | RequestSpoilt


# Effects


@dataclass(frozen=True, slots=True)
class AskChunks:
    """Ask `donor` for chunks [first, stop)."""

    request: int
    donor: NodeId
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Break the request's stream."""

    request: int


@dataclass(frozen=True, slots=True)
class DonorDropped:
    """This donor is not asked any more in this fetch."""

    donor: NodeId
    why: str


@dataclass(frozen=True, slots=True)
class FetchDone:
    """Every chunk is there; `donor` gave most of them."""

    donor: NodeId


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """No donor is left; why, for each of them."""

    reasons: tuple[tuple[NodeId, str], ...]


FetchEffect = AskChunks | CancelRequest | DonorDropped | FetchDone | FetchFailed
