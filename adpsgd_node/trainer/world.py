"""Connect this trainer with those of all nodes of its world through torch.distributed, and wait for them in small bits.

NCCL carries the sums when every trainer has a GPU of its own, else gloo. Nothing here waits in a way that could not
notice that the daemon is gone, or has found that one of the others is.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import socket
import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from adpsgd_node.address import split_address
from adpsgd_node.errors import AdpsgdError, PeerLostError, WireError
from adpsgd_node.plane.header import Header
from adpsgd_node.trainer.link import Link
from adpsgd_node.wire.limits import MAX_TOTAL
from adpsgd_node.wire.trainer import Go

__all__ = ["World", "listen"]

LOOK_S = 0.2
"""How often a wait looks what the daemon says."""
MEET_LIMIT_S = 60.0
"""How long the trainers, all of which are there, may take to connect with each other."""
STALL_LIMIT_S = 1800.0
"""How long the others may take to one step, as in torch: one of them may evaluate or write a file meanwhile."""
NEWS_LIMIT_S = 60.0
"""How long to wait for the daemon to say who is gone, when a connection has broken."""
POLL_S = 5e-5
"""Pause between two looks at what a GPU does: NCCL has no wait that ends by itself."""
MAX_TOLD_BYTES = 128

_CPU = "cpu"


def listen(host: str) -> socket.socket:
    """Open a port for the other trainers, in case this one's rank is 0; on all interfaces if `host` is not ours."""
    with contextlib.suppress(OSError):  # `host` is not ours, or no name that is known here
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, 0), family=family, backlog=socket.SOMAXCONN)
    return socket.create_server(("", 0), backlog=socket.SOMAXCONN)


class World:
    """The trainers of all nodes, and this one among them."""

    def __init__(self, go: Go, host: str, device: torch.device, batch_size: int, header: Header, link: Link) -> None:
        """`host`: where this one listens. `device`: where its gradients are. `batch_size`: samples in its step."""
        self.size = go.world_size
        self.device = torch.device("cpu")
        """Where sums are taken."""
        self.samples_per_step = 0
        """Of all nodes together."""
        self.begun_at = (0, 0)
        """Steps and samples that the run had taken when they met, the same on all."""
        self.waited_s = 0.0
        """Spent in waits so far."""
        self._go = go
        self._host = host
        self._header = header
        self._link = link
        self._model_device = device
        self._batch_size = batch_size
        self._group: Any = None
        self._under_way: list[Any] = []

    def meet(self, listener: socket.socket) -> None:
        """Connect with all others. `listener` is taken over. Raises `PeerLostError`, or what the daemon says."""
        outcome: list[BaseException | None] = []

        def connect() -> None:
            try:
                self._group = self._connect(listener)
                outcome.append(None)
            except Exception as error:  # carried to the thread that waits for it
                outcome.append(error)

        # In C++ nothing can interrupt this; in a thread of its own nobody has to wait for it, not even at exit.
        thread = threading.Thread(target=connect, name="allreduce rendezvous", daemon=True)
        self._header.waiting = 1
        try:
            thread.start()
            while not outcome:
                thread.join(LOOK_S)
                self._link.check()
        finally:
            self._header.waiting = 0
        error = outcome[0]
        if isinstance(error, AdpsgdError):
            raise error
        if error is not None:
            raise self._broken(error)

    def start_sum(self, flat: torch.Tensor) -> Any:
        """Begin to replace `flat` by the sum of it over all nodes; returns what `finish` takes."""
        try:
            work = self._group.allreduce([flat])
        except RuntimeError as error:
            raise self._broken(error) from error
        self._under_way.append(work)
        return work

    def finish(self, work: Any) -> None:
        """Wait until a sum is there. Raises `PeerLostError`, `DaemonLostError`, or what the daemon says."""
        began = time.perf_counter()
        look_at = began + LOOK_S
        try:
            while not work.is_completed():
                self._wait_a_little(work)
                if time.perf_counter() >= look_at:
                    look_at = time.perf_counter() + LOOK_S
                    self._header.waiting = 1
                    self._link.check()
            work.wait()  # raises if it has failed
        except RuntimeError as error:
            raise self._broken(error) from error
        finally:
            self._header.waiting = 0
            self.waited_s += time.perf_counter() - began
        self._under_way.remove(work)

    def close(self) -> None:
        """Part from the others; may be called again. Sums under way are left behind, and their memory with them."""
        group, self._group = self._group, None
        if group is None:
            return
        pending = not all(work.is_completed() for work in self._under_way)
        self._under_way.clear()
        if self.device.type != "cpu" and hasattr(group, "abort"):
            group.abort()
        elif pending:
            # Its destructor would wait for them, for as long as the others do not move: it must never run.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))

    def _wait_a_little(self, work: Any) -> None:
        if self.device.type != "cpu":
            time.sleep(POLL_S)  # poll: NCCL has no wait that ends by itself
            return
        with contextlib.suppress(RuntimeError):  # its time is up, or it has failed: `is_completed` tells which
            work.wait(datetime.timedelta(seconds=LOOK_S))

    def _connect(self, listener: socket.socket) -> Any:
        store = self._store(listener)
        devices = self._compare(store)
        if _CPU in devices or len(set(devices)) < self.size or not dist.is_nccl_available():
            group = self._gloo(store)
        else:
            self.device = self._model_device
            group = self._nccl(store)
        group.allreduce([torch.zeros(1, device=self.device)]).wait()  # now: NCCL connects with its first sum
        return group

    def _compare(self, store: Any) -> list[str]:
        """Tell the others what they must know of this trainer, and take in the same of them; returns all devices."""
        if self._go.rank == 0:
            store.set("run", f"{self._header.global_steps} {self._header.global_samples}")
        store.set(f"rank {self._go.rank}", f"{self._batch_size} {self._name_device()}")
        told = [store.get(f"rank {rank}")[:MAX_TOLD_BYTES].decode(errors="replace") for rank in range(self.size)]
        steps, _, samples = store.get("run")[:MAX_TOLD_BYTES].decode(errors="replace").partition(" ")
        self.begun_at = _count(steps), _count(samples)
        self.samples_per_step = sum(_count(text.partition(" ")[0]) for text in told)
        return [text.partition(" ")[2] for text in told]

    def _store(self, listener: socket.socket) -> Any:
        """Return the key-value store through which they tell each other their addresses; rank 0 serves it."""
        host, port = split_address(self._go.rendezvous)
        first = self._go.rank == 0
        if not first:
            listener.close()
        return torch.distributed.TCPStore(  # type: ignore[attr-defined] # documented, but not in its types
            host,
            port,
            self.size,
            is_master=first,
            timeout=datetime.timedelta(seconds=MEET_LIMIT_S),
            wait_for_workers=False,
            master_listen_fd=listener.detach() if first else None,
        )

    def _name_device(self) -> str:
        if self._model_device.type != "cuda":
            return _CPU
        return str(torch.cuda.get_device_properties(self._model_device).uuid)

    def _gloo(self, store: Any) -> Any:
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout = datetime.timedelta(seconds=STALL_LIMIT_S)
        try:
            device = dist.ProcessGroupGloo.create_device(hostname=self._host)
        except RuntimeError:  # an address that others translate, so none of this machine's own
            device = dist.ProcessGroupGloo.create_default_device()
        options._devices = [device]
        return dist.ProcessGroupGloo(store, self._go.rank, self.size, options)

    def _nccl(self, store: Any) -> Any:
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = datetime.timedelta(seconds=STALL_LIMIT_S)
        return dist.ProcessGroupNCCL(store, self._go.rank, self.size, options)

    def _broken(self, error: BaseException) -> AdpsgdError:
        """Return what to raise when a connection has broken: what the daemon says, if it finds out who is gone."""
        self._header.waiting = 1
        until = time.monotonic() + NEWS_LIMIT_S
        try:
            while time.monotonic() < until:
                self._link.check()
                time.sleep(LOOK_S / 2)  # between two looks: the daemon may not know yet who is gone
        except AdpsgdError as known:
            return known
        finally:
            self._header.waiting = 0
        return PeerLostError(f"allreduce broke off, though no node is known to be lost: {error}; start all nodes again")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_TOTAL):
        raise WireError(f"a trainer of another node tells a number that is none: {text!r}")
    return int(text)
