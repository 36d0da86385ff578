"""Put one node together, run it, and take it down in order: the composition root of `adpsgd-node up`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adpsgd_node.config import child_environment, runtime_dir
from adpsgd_node.core.membership.event import LoopLagged
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.daemon.admin import Admin, AdminHost
from adpsgd_node.daemon.allocator import keep_freed_memory
from adpsgd_node.daemon.boot import BootFile
from adpsgd_node.daemon.drain import Drain
from adpsgd_node.daemon.finish import poisoned
from adpsgd_node.daemon.folder import check_writable
from adpsgd_node.daemon.http import HttpServer, HttpSources
from adpsgd_node.daemon.intake import Intake
from adpsgd_node.daemon.lag import measure_lag
from adpsgd_node.daemon.node import Node
from adpsgd_node.daemon.report import Report
from adpsgd_node.daemon.script import Script
from adpsgd_node.daemon.script_output import PrefixedSink
from adpsgd_node.daemon.settings import NodeConfig, split_address
from adpsgd_node.daemon.status_json import to_json
from adpsgd_node.daemon.stop import Stop
from adpsgd_node.daemon.supervise import Exited, GaveUp, Started, Supervisor, SupervisorConfig, SupervisorEvent
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.trainer_link import TrainerLink
from adpsgd_node.errors import AdpsgdError, JoinError, TrainerError
from adpsgd_node.net.credentials import Credentials
from adpsgd_node.net.grpc_transport import GrpcTransport
from adpsgd_node.net.slow_transport import slowed
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from adpsgd_node.plane.header import Command, TrainerState
from adpsgd_node.telemetry.log import EventLog, set_up_logging
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.telemetry.output import LineWriter
from adpsgd_node.wire.trainer import Failed, pack

__all__ = ["App", "run"]

SCRIPT_GRACE_S = 10.0
"""Between SIGTERM and SIGKILL for the script, when the run is over."""
SETTLE_TIMEOUT_S = 10.0
"""How long to wait for running exchanges and open settlings, when the run is over."""
TERM_SHARE = 0.7
"""Part of the trainer's time to leave in that it has between SIGTERM and SIGKILL."""
LINK_END_S = 2.0
"""How long to wait, after the script's end, until its link has noticed too."""
SERVER_GRACE_S = 1.0
LEAST_GRACE_S = 0.2
CHECKPOINT_TIMEOUT_S = 60.0
"""How long a checkpoint that was asked for may take, unless the asker says."""
DEFECT_EXIT_CODE = 70
"""When a fault of our own ended the node (EX_SOFTWARE of sysexits.h); its traceback is in the log."""


def run(config: NodeConfig, script: tuple[str, ...] | None, trainer_fd: int | None) -> int:
    """Run one node until its script has ended, it is told to stop, or it cannot go on; returns the exit code.

    `script`: arguments for python, run under the node; or `trainer_fd`: a socket to a trainer that started us.
    """
    keep_freed_memory()  # first of all: threads that start later must find it
    writer = LineWriter(sys.stdout.buffer, sys.stderr.buffer)
    set_up_logging(config.name, write=writer.error)
    app = App(config, script, trainer_fd, writer)
    try:
        return asyncio.run(app.main())
    finally:
        writer.close(timeout_s=2.0)


class App:
    """The process of one node."""

    def __init__(
        self, config: NodeConfig, script: tuple[str, ...] | None, trainer_fd: int | None, writer: LineWriter
    ) -> None:
        self._config = config
        self._script = script
        self._starter = None if trainer_fd is None else socket.socket(fileno=trainer_fd)
        """Leads to the trainer that started this daemon; None: this daemon starts its script."""
        self._writer = writer
        self._log = EventLog("app")
        self._tasks = Tasks(self._fault)
        self._transport = slowed(
            GrpcTransport(config.network.listen, credentials=Credentials(insecure=config.network.insecure)),
            factor=config.handicap.link_factor(config.name),
            bytes_per_s=config.handicap.link_bytes_per_s,
        )
        self._metrics = Metrics(version=version("adpsgd-node"))
        self._intake = Intake(self._metrics)
        self._node: Node
        self._report: Report
        self._supervisor: Supervisor | None = None
        self._link_task: asyncio.Task[None] | None = None
        self._ended: Exited | None = None
        self._script_over = False
        self._stop = Stop(config.drain_timeout_s, notify=self._notify, kill=self._kill_script)
        self._drain: Drain | None = None
        self._defect: BaseException | None = None

    async def main(self) -> int:
        """Start everything, wait for the end, stop everything; returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        self._stop.watch_signals()
        admin: Admin | None = None
        http: HttpServer | None = None
        try:
            check_writable(self._config.folder)
            await self._build()
            admin = Admin(runtime_dir(), self._config.run, self._config.name, self._admin_host())
            await admin.start()
            http = await self._serve_http()
            self._start()
            await self._node.watch.until(self._over)
            code = await self._conclude()
        except AdpsgdError as error:
            self._log.error(str(error))
            await self._tell_starter(error)
            code = error.exit_code
        finally:
            await self._shut_down(admin, http)
        if self._defect is not None:
            return DEFECT_EXIT_CODE
        if self._drain is not None and self._drain.cut_off:
            self._writer.close(timeout_s=LEAST_GRACE_S)
            os._exit(code)  # what was cut off may still have a thread, and asyncio would wait for it
        return code

    async def _build(self) -> None:
        config = self._config
        # The node needs the bound address, the server the node's handlers; nothing is served before both stand.
        address = await self._transport.serve(
            {method: partial(self._answer, method) for method in Method},
            {method: partial(self._converse, method) for method in StreamMethod},
        )
        advertised = config.network.advertise or address
        boots = BootFile(config.folder)
        self._node = Node(config, boots, advertised, self._transport, self._metrics, self._tasks)
        self._node.checkpointing.open(asyncio.get_running_loop().time())  # at once: peers ask what this node has
        exposed = Credentials(insecure=config.network.insecure).exposed(config.network.listen)
        self._metrics.serving(insecure=exposed)
        if exposed:
            self._log.warning(
                "INSECURE: anyone who reaches this port can read and change the model", listen=config.network.listen
            )
        self._report = Report(
            self._node,
            self._metrics,
            version=version("adpsgd-node"),
            insecure=exposed,
            started=asyncio.get_running_loop().time(),
        )
        self._log.info(
            "node is up",
            node=self._node.identity,
            run=config.run,
            listen=address,
            advertise=advertised,
            output=config.folder,
        )

    async def _answer(self, method: Method, request: bytes) -> bytes:
        with self._intake.checked(method):
            return await self._node.unary()[method](request)

    async def _converse(self, method: StreamMethod, stream: Stream) -> None:
        with self._intake.checked(method):
            await self._node.streams()[method](stream)

    def _admin_host(self) -> AdminHost:
        loop = asyncio.get_running_loop()
        return AdminHost(
            status=lambda: self._report.status(loop.time()),
            drain=lambda timeout_s: self._stop.ask(timeout_s, "adpsgd-node drain"),
            checkpoint=self._checkpoint,
        )

    async def _checkpoint(self, timeout_s: float) -> Path:
        return await self._node.checkpointing.save("request", timeout_s or CHECKPOINT_TIMEOUT_S)

    async def _serve_http(self) -> HttpServer:
        loop = asyncio.get_running_loop()
        host, port = split_address("http", self._config.network.http_address)
        sources = HttpSources(
            metrics=self._report.metrics,
            unready=self._report.unready,
            status=lambda: self._report.text(loop.time()),
            status_json=lambda: to_json(self._report.status(loop.time())),
        )
        server = HttpServer(host, port, sources)
        self._report.http_address = await server.start()
        self._log.info("metrics are served", http=self._report.http_address)
        return server

    def _start(self) -> None:
        node, network = self._node, self._config.network
        node.membership.start()
        if network.join_timeout_s:
            self._tasks.start("join timeout", self._watch_join(network.join_timeout_s))
        self._tasks.start("loop lag", measure_lag(self._lagged))
        self._tasks.start("checkpoints", node.checkpointing.run())
        if self._starter is not None:
            self._tasks.start("trainer link", self._serve_trainer(self._starter))
        elif self._script is not None:
            self._supervise(self._script)

    def _supervise(self, command: tuple[str, ...]) -> None:
        script = Script.of(command)
        self._supervisor = Supervisor(
            script,
            PrefixedSink(self._config.name, self._writer),
            self._on_script,
            environment=child_environment(),
            config=SupervisorConfig(max_restarts=self._config.max_restarts),
        )
        self._tasks.start("supervise", self._run_script(self._supervisor))

    async def _run_script(self, supervisor: Supervisor) -> None:
        try:
            self._ended = await supervisor.run()
        except AdpsgdError as error:
            self._node.fail(error)
        if self._link_task is not None:  # how the run ended stands in what the script said last
            await asyncio.wait({self._link_task}, timeout=LINK_END_S)
        self._script_over = True
        self._node.watch.notify()

    def _on_script(self, event: SupervisorEvent) -> None:
        match event:
            case Started(pid, link, attempt):
                self._log.info("script started", pid=pid, attempt=attempt)
                self._report.restarts = attempt - 1
                self._metrics.trainer_started(restarted=attempt > 1)
                self._link_task = self._tasks.start(f"trainer link {attempt}", self._serve_trainer(link))
            case Exited() if event.succeeded or self._over():
                self._log.info(f"script {event}", ran_s=event.ran_s)
            case Exited():
                pass  # a restart, or giving up, is told next
            case GaveUp(last, restarts):
                self._log.error(f"script {last}; no restart is left (--max-restarts)", restarts=restarts)

    async def _serve_trainer(self, link_socket: socket.socket) -> None:
        node = self._node
        link = TrainerLink(link_socket, node.link_host(), self._on_attach)
        node.link = link
        try:
            await link.serve()
        finally:
            if self._starter is not None:
                self._script_over = True
            node.watch.notify()

    def _on_attach(self) -> None:
        if self._supervisor is not None:
            self._supervisor.mark_attached()

    def _over(self) -> bool:
        return self._script_over or self._stop.asked or self._node.fatal is not None or self._defect is not None

    async def _conclude(self) -> int:
        """Let the run end in good order; returns the exit code."""
        node, ended = self._node, self._ended
        if self._defect is not None:
            return DEFECT_EXIT_CODE
        if self._stop.asked:
            self._drain = Drain(node, self._stop, self._end_trainer)
            await self._drain.run()
            return self._stop.exit_code
        if node.fatal is not None:
            raise node.fatal
        if ended is not None and not ended.attached:
            if ended.succeeded:
                raise TrainerError(
                    f"script {ended}: it must call adpsgd_node.join(model, optimizer), which ties it to this node"
                )
            return ended.exit_code
        if node.given_up:
            raise poisoned(node.given_up)
        if node.phase is Phase.FINISHED:
            await self._linger()
        elif ended is not None and ended.succeeded:
            self._log.warning("the script ended without node.finish(): no agreed model was written")
        if self._config.target.stay and (ended is None or ended.succeeded):
            await self._stay()
            if node.phase is not Phase.FINISHED:  # the script ended, the run did not: what it learnt is handed over
                self._drain = Drain(node, self._stop, self._end_trainer)
                await self._drain.run()
                return self._stop.exit_code
        return ended.exit_code if ended is not None else 0

    async def _stay(self) -> None:
        """Serve status, metrics and the model until told to stop. Raises what ends the node before."""
        node = self._node
        self._log.info("the run is over here; stays until told to stop (--stay)")
        await node.watch.until(lambda: self._stop.asked or node.fatal is not None or self._defect is not None)
        if node.fatal is not None:
            raise node.fatal

    async def _tell_starter(self, error: AdpsgdError) -> None:
        """Have the script that started this daemon raise what ended it; a script of our own is simply stopped."""
        if self._starter is None or self._starter.fileno() < 0:
            return
        if hasattr(self, "_node") and self._node.link is not None:
            await self._node.link.failed(error)
        else:
            with contextlib.suppress(OSError):  # it is gone itself
                self._starter.sendall(pack(Failed(type(error).__name__, str(error))))

    async def _linger(self) -> None:
        """Stay until the others have finished too: they may still need this node to agree with."""
        node, timeout_s = self._node, self._config.target.finish_timeout_s
        done = await node.watch.until(lambda: node.finish.all_finished() or self._stop.asked, timeout_s)
        if not done:
            self._log.warning("some members have not finished; leaving without them", waited_s=timeout_s)

    async def _end_trainer(self, within_s: float) -> bool:
        """Have the trainer stop stepping; tells whether it has. One that started this daemon is only told."""
        node = self._node
        node.training.command(Command.STOP)  # a script that handles SIGTERM sees it in node.should_stop
        if self._supervisor is not None:
            await self._supervisor.stop(within_s * TERM_SHARE)
            return await node.watch.until(lambda: self._script_over, within_s)
        done = (TrainerState.NONE, TrainerState.FINISHED)
        return await node.watch.until(lambda: self._script_over or node.trainer_state in done, within_s)

    async def _shut_down(self, admin: Admin | None, http: HttpServer | None) -> None:
        """Script, exchanges, membership, servers: each before what it needs."""
        drained = self._drain is not None
        if hasattr(self, "_node"):
            self._node.training.command(Command.STOP)
        if self._supervisor is not None:
            await self._supervisor.stop(0.0 if drained else SCRIPT_GRACE_S)
        grace_s = min(SERVER_GRACE_S, max(LEAST_GRACE_S, self._stop.left_s())) if drained else SERVER_GRACE_S
        if hasattr(self, "_node"):
            self._node.gossip.close()
            if not await self._node.engine.drain(0.0 if drained else SETTLE_TIMEOUT_S):
                self._log.warning("left exchanges unsettled", unsettled=self._node.engine.unsettled)
            await self._node.leave(grace_s, self._stop.left_s() if drained else math.inf)
            self._node.membership.close()
        await self._tasks.cancel()
        if hasattr(self, "_node"):
            self._node.checkpointing.close()
        await self._transport.close(grace_s=grace_s)
        if http is not None:
            await http.close()
        if admin is not None:
            await admin.close()

    async def _watch_join(self, timeout_s: float) -> None:
        node = self._node
        if not await node.watch.until(lambda: node.phase is not Phase.JOINING, timeout_s):
            seeds = ", ".join(self._config.network.seeds)
            node.fail(
                JoinError(
                    f"no seed let this node in within {timeout_s:g} s ({seeds}): check that one of them runs and can "
                    "be reached, or raise --join-timeout"
                )
            )

    def _lagged(self, seconds: float) -> None:
        self._metrics.loop_lagged(seconds)
        self._node.membership.post(LoopLagged(seconds))

    def _notify(self) -> None:
        if hasattr(self, "_node"):
            self._node.watch.notify()

    def _kill_script(self) -> None:
        if self._supervisor is not None:
            self._supervisor.kill()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take up what failed in a timer or reader; a complaint without an error is only logged."""
        error = context.get("exception")
        if isinstance(error, BaseException) and "handle" in context:
            self._fault(str(context["handle"]), error)
        else:
            loop.default_exception_handler(context)

    def _fault(self, name: str, error: BaseException) -> None:
        """A background task that fails is a defect of ours: say so, and end rather than limp."""
        self._log.exception("a background task failed", error, task=name)
        if self._defect is None:
            self._defect = error
        self._notify()
