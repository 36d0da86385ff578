"""Count what peers send that is no message of the protocol, and say once that something else talks to this port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from adpsgd_node.errors import OversizeError, WireError
from adpsgd_node.net.transport import Method, StreamMethod
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.telemetry.metrics import Metrics, PacketFault

__all__ = ["Intake"]

LOG_AGAIN_S = 300.0


class Intake:
    """Stands around every handler of an inbound call."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = EventLog("intake")
        self._once = OncePer(LOG_AGAIN_S)

    @contextmanager
    def checked(self, method: Method | StreamMethod) -> Iterator[None]:
        """Count a `WireError` that comes out of a handler, and pass it on."""
        try:
            yield
        except WireError as error:
            fault = PacketFault.OVERSIZE if isinstance(error, OversizeError) else PacketFault.MALFORMED
            self._metrics.packet_rejected(fault)
            if self._once.due((method, fault), asyncio.get_running_loop().time()):
                self._log.warning(
                    "refused a message that is none of this protocol; is something else talking to this port?",
                    method=method.value,
                    cause=error,
                )
            raise
