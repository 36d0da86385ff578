"""Answer HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for an orchestrator, `/` and `/status` for all."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from adpsgd_node.errors import BindError
from adpsgd_node.ids import Address
from adpsgd_node.telemetry.metrics import CONTENT_TYPE

__all__ = ["HttpServer", "HttpSources"]

MAX_REQUEST_BYTES = 4096
"""No page takes a body."""

KEEPALIVE_S = 75.0
CLOSE_GRACE_S = 1.0
"""How long `close` waits for answers that are under way."""

_NEVER_OLD = {"Cache-Control": "no-store"}
"""A probe or a browser must never be shown an old answer."""

_WHY = {
    errno.EADDRINUSE: "another process listens there",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "ports below 1024 need a privilege this process lacks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSources:
    """Where the pages come from; each is called in the event loop and must return at once."""

    metrics: Callable[[], bytes]
    """The whole of `/metrics`, in the text format of `Metrics.render`."""
    unready: Callable[[], str | None]
    """None when joined and serving, else the reason why not yet, or no more."""
    status: Callable[[], str]
    """The plain text of `/`."""
    status_json: Callable[[], dict[str, object]]
    """The object of `/status`."""


class HttpServer:
    """One HTTP server of one daemon."""

    def __init__(self, host: str, port: int, sources: HttpSources) -> None:
        self._host = host
        self._port = port
        self._sources = sources
        self._runner: web.AppRunner | None = None

    async def start(self) -> Address:
        """Bind and serve; returns the bound address (port 0 asks for a free port). Raises `BindError`."""
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        application.router.add_get("/", self._status)
        application.router.add_get("/status", self._status_json)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=CLOSE_GRACE_S,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise _bind_error(self._host, self._port, error) from error
        self._runner = runner
        return _address(self._host, runner.addresses[0][1])

    async def close(self) -> None:
        """Stop serving; may be repeated."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._sources.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, _: web.Request) -> web.Response:
        # Reaching this line is the proof: the event loop turns.
        return _text("ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._sources.unready()
        return _text("ready\n") if reason is None else _text(f"not ready: {reason}\n", status=503)

    async def _status(self, _: web.Request) -> web.Response:
        return _text(self._sources.status())

    async def _status_json(self, _: web.Request) -> web.Response:
        return web.json_response(self._sources.status_json(), headers=_NEVER_OLD)


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers=_NEVER_OLD)


def _address(host: str, port: int) -> Address:
    return Address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _bind_error(host: str, port: int, error: OSError) -> BindError:
    if isinstance(error, socket.gaierror):
        why = "the host name does not resolve"
    else:
        why = _WHY.get(error.errno or 0, error.strerror or str(error))
    return BindError(
        f"cannot serve HTTP on {_address(host, port)}: {why}; "
        "choose another address with --http HOST:PORT (port 0: any free one)"
    )
