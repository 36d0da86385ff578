"""One tree of errors; each says who is at fault, what changed, and how to mend it.

    AdpsgdError
    +-- ConfigError            the user's options; nothing was started
    +-- JoinError              no seed could be reached in time, or the run refused this node
    |   +-- NameInUseError     another live node has this name
    |   +-- RunMismatchError   the seed belongs to another run, or speaks another protocol version
    |   +-- SchemaMismatchError  the run trains another model
    +-- BindError              an address could not be bound
    +-- TrainerError           the user's script: not found, never joined, raised, restarted too often
    +-- PoisonedError          this node's own parameters or loss are not finite
    +-- DaemonLostError        (in the trainer) its daemon is gone
    +-- ModelError             (in the trainer) this model cannot be exchanged: dtype, device, aliasing
    +-- PeerLostError          a node without which this algorithm cannot go on is gone; the parameters are kept
    +-- PlaneError             a plane or layout that does not fit
    +-- CheckpointError        a checkpoint could not be written, or one that is there cannot be used
    +-- WireError              bytes that are no valid message; the sender is at fault. State is unchanged.
    |   +-- OversizeError      more, longer or larger than a named limit allows
    +-- TransportError         a call that did not go through
        +-- UnreachableError   no connection
        +-- DeadlineError      no answer in time
        +-- StreamBrokenError  a stream ended before its protocol did
        +-- RemoteError        the peer answered with an error of its own

`exit_code` is what `adpsgd-node up` exits with when the error ends it (see docs/operations.md).
"""

from __future__ import annotations

__all__ = [
    "AdpsgdError",
    "BindError",
    "CheckpointError",
    "ConfigError",
    "DaemonLostError",
    "DeadlineError",
    "JoinError",
    "ModelError",
    "NameInUseError",
    "OversizeError",
    "PeerLostError",
    "PlaneError",
    "PoisonedError",
    "RemoteError",
    "RunMismatchError",
    "SchemaMismatchError",
    "StreamBrokenError",
    "TrainerError",
    "TransportError",
    "UnreachableError",
    "WireError",
]


class AdpsgdError(Exception):
    """Anything this project raises on purpose."""

    exit_code = 1


class ConfigError(AdpsgdError):
    exit_code = 2


class BindError(AdpsgdError):
    exit_code = 3


class JoinError(AdpsgdError):
    exit_code = 4


class NameInUseError(JoinError):
    exit_code = 5


class RunMismatchError(JoinError):
    exit_code = 6


class SchemaMismatchError(JoinError):
    exit_code = 7


class PoisonedError(AdpsgdError):
    exit_code = 8


class TrainerError(AdpsgdError):
    exit_code = 9


class DaemonLostError(AdpsgdError):
    exit_code = 10


class ModelError(AdpsgdError):
    exit_code = 11


class PlaneError(AdpsgdError):
    exit_code = 12


class CheckpointError(AdpsgdError):
    """The training goes on, and the checkpoints before it are as they were."""

    exit_code = 13


class PeerLostError(AdpsgdError):
    """A node is lost that its algorithm cannot go on without: the run goes on when all its nodes are started again."""

    exit_code = 14


class WireError(AdpsgdError):
    """Bytes from outside that are no valid message of the published schema, or exceed a named limit."""


class OversizeError(WireError):
    """Something in a message exceeds a named limit."""


class TransportError(AdpsgdError):
    """A call to a peer that did not go through."""


class UnreachableError(TransportError):
    pass


class DeadlineError(TransportError):
    pass


class StreamBrokenError(TransportError):
    pass


class RemoteError(TransportError):
    pass
