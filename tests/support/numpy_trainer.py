"""A training script without torch: it starts in a moment, speaks the real trainer link and fails on demand.

It fits a line: `y = x @ truth + noise`, the same truth for every node and other samples for each. With `--lr 0` and
`--drift` it moves its parameters by known amounts instead, so that a test can keep the ledger from outside.

Run it under `adpsgd-node up`. `--log` gets one JSON object a line: one per step, and one per event of its life.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import select
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from adpsgd_node.checkpoint.model_file import StoredTensor, write_model
from adpsgd_node.config import trainer_fd
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.plane import Command, Fold, Layout, Plane, TrainerState
from adpsgd_node.plane.header import STEP_SECONDS_ENTRIES
from adpsgd_node.wire.trainer import Agreed, Attach, Attached, Go, Ready, Saved, Settle

ANSWER_LIMIT_S = 60.0
LOOK_S = 0.2
BATCH = 8
DATASET = 800
NOISE = 0.1
"""Standard deviation of the targets: no model gets a mean loss below its half square."""

Vector = npt.NDArray[np.float32]


def tensors(dim: int) -> tuple[TensorSpec, ...]:
    """Say what the model looks like: a weight vector and a bias."""
    return (
        TensorSpec("weight", (dim,), "float32", Segment.PARAMETERS),
        TensorSpec("bias", (1,), "float32", Segment.PARAMETERS),
    )


def initial(dim: int) -> Vector:
    """Give the initial parameters, the same on every node: zero weights are as far from the truth as it gets."""
    return np.zeros(Layout.build(tensors(dim), 1 << 20).elements, np.float32)


def drift(node: str, step: int, elements: int, size: float) -> Vector:
    """Give the known move of one node in one step, the first being step 1."""
    seed = zlib.crc32(f"{node}/{step}".encode())
    return np.float32(size) * np.random.default_rng(seed).standard_normal(elements).astype(np.float32)


class Script:
    """One life of the script."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._attach()

    def _attach(self) -> None:
        fd = trainer_fd()
        if fd is None:
            sys.exit("run this script under adpsgd-node up")
        self._link = _trainer_module("link").Link.adopt(fd)
        specs = tensors(self._options.dim)
        self._link.send(Attach(pid=os.getpid(), tensors=specs, dataset_size=self._options.dataset_size))
        self._attached: Attached = self._link.receive(Attached, ANSWER_LIMIT_S)
        self._link.watch(self._attached.daemon_pid)
        plane_fd, self._step_event, self._gate_event = self._link.take_descriptors()
        self._plane = Plane.attach(plane_fd, Layout.build(specs, self._attached.chunk_bytes))
        self._header = self._plane.header
        self._handicap = _trainer_module("handicap").Handicap.of(self._attached, self._header, self._link, lambda: None)
        self._fold = Fold(self._plane)
        self._fold.recover()
        weight, bias = self._plane.layout.placements
        self._weight = self._plane.live[weight.start : weight.stop]
        self._bias = self._plane.live[bias.start : bias.stop]
        rng = np.random.default_rng(1)
        self._truth = rng.standard_normal(self._options.dim).astype(np.float32)
        self._rng = np.random.default_rng([self._header.step, zlib.crc32(self._attached.node.encode())])

    def enter(self) -> None:
        """Agree with the daemon on the parameters to start from."""
        if not self._attached.resumed:
            self._plane.live[:] = initial(self._options.dim)
        self._link.send(Ready())
        go: Go = self._link.receive(Go, None)
        if not self._attached.resumed and self._options.drift:
            np.save(f"{self._options.log}.start.npy", self._plane.live)  # what the ledger of this node begins with
        self._header.trainer_pid = os.getpid()
        self._header.non_finite = 0
        self._header.trainer_state = TrainerState.STEPPING
        self._header.momentum = self._options.momentum
        restored = json.loads(Path(go.restore).read_text()) if go.restore else None
        self.note("joined", resumed=self._attached.resumed, adopted=go.adopted, donor=go.donor, restored=restored)

    def train(self) -> None:
        """Step until told to stop."""
        due = time.monotonic()
        while not self._should_stop():
            self._misbehave(self._header.step)
            self._step()
            if self._options.steps_per_s:
                due = max(due + 1.0 / self._options.steps_per_s, time.monotonic() - 1.0)
                time.sleep(max(0.0, due - time.monotonic()))  # computing, emulated

    def finish(self) -> None:
        """Settle with the others, then write the model."""
        self._header.trainer_state = TrainerState.SETTLING
        self._link.send(Settle())
        self.note("settling")
        if self._options.crash_settling and self._first_time("settling"):
            os.kill(os.getpid(), signal.SIGKILL)
        agreed: Agreed = self._link.receive(Agreed, None)
        self._fold.fold(force=True)
        path = Path(self._attached.output) / "model.safetensors"
        write_model(path, self._stored(), {"node": self._attached.node, "schema": self._attached.schema.hex()})
        self._header.trainer_state = TrainerState.FINISHED
        self._link.send(Saved(str(path)))
        self.note("finished", path=str(path), distance=agreed.consensus_distance, members=agreed.members)

    def note(self, event: str, **values: object) -> None:
        """Write one line to the log."""
        line = {"event": event, "time": time.time(), "pid": os.getpid(), **values}
        with open(self._options.log, "a") as file:
            file.write(json.dumps(line) + "\n")

    def _step(self) -> None:
        self._wait_for_the_servers()  # for what an earlier life has pushed
        header, first, step = self._header, time.perf_counter(), self._header.step + 1
        loss, gradient, bias_gradient = self._gradient(step)
        if not math.isfinite(loss) and self._options.raise_at_nan:
            header.loss, header.non_finite, header.step = loss, 1, step
            os.eventfd_write(self._step_event, 1)
            raise FloatingPointError(f"the loss of step {step} is not finite")
        if not math.isfinite(loss) and self._options.skip_nan:
            gradient, bias_gradient = np.zeros_like(gradient), np.zeros_like(bias_gradient)
        self._handicap.stretch()
        self._wait_for_the_round()
        self._handicap.go_on()
        self._fold.fold()  # average first, then the gradient that was taken before it
        self._weight -= np.float32(self._options.lr) * gradient
        self._bias -= np.float32(self._options.lr) * bias_gradient
        if self._options.drift:
            self._plane.live += drift(self._attached.node, step, self._plane.layout.elements, self._options.drift)
        if step == self._options.keep_at:
            np.save(f"{self._options.log}.kept.npy", self._plane.live)
        if step == self._options.swell_at:
            self._plane.live *= np.float32(self._options.swell_by)
            self.note("swell", step=step)
        if step == self._options.ruin_at:
            self._weight[0] = np.nan
        header.loss, header.non_finite = loss, 0 if math.isfinite(loss) else 1
        header.step_seconds[step % STEP_SECONDS_ENTRIES] = time.perf_counter() - first
        header.samples += BATCH
        header.step = step
        os.eventfd_write(self._step_event, 1)
        self.note("step", step=step, loss=loss)
        self._save_state()
        self._link.check()
        self._wait_for_the_servers()

    def _wait_for_the_round(self) -> None:
        """Do as `trainer.rounds` does: under D-PSGD a step waits for the mixing of what the last one left."""
        header = self._header
        while (
            self._attached.algorithm == "d-psgd" and header.mixed < header.step and header.command is not Command.STOP
        ):
            if select.select([self._gate_event], [], [], LOOK_S)[0]:
                os.eventfd_read(self._gate_event)
            self._link.check()

    def _wait_for_the_servers(self) -> None:
        """Do as `trainer.push_pull` does: under A-PSGD the next step begins with what the servers have."""
        header = self._header
        while self._attached.algorithm == "a-psgd" and header.mixed < header.step:
            if select.select([self._gate_event], [], [], LOOK_S)[0]:
                os.eventfd_read(self._gate_event)
            self._link.check()
        if self._attached.algorithm == "a-psgd":
            self._fold.fold()

    def _save_state(self) -> None:
        """Write this script's part of a checkpoint when it is asked for: no more than where it was."""
        header, number = self._header, self._header.save_state
        if number > header.state_saved:
            state = {"step": header.step, "samples": header.samples}
            (Path(self._attached.state_folder) / f"state-{number}.pt").write_text(json.dumps(state))
            header.state_saved = number
            os.eventfd_write(self._step_event, 1)

    def _gradient(self, step: int) -> tuple[float, Vector, Vector]:
        x = self._rng.standard_normal((BATCH, self._options.dim)).astype(np.float32)
        if step == self._options.nan_at and self._first_time("nan"):
            x[0] = np.nan
        target = x @ self._truth + NOISE * self._rng.standard_normal(BATCH).astype(np.float32)
        with np.errstate(all="ignore"):
            error = x @ self._weight + self._bias - target
            return float(np.mean(error * error) / 2), x.T @ error / BATCH, error.mean(keepdims=True)

    def _misbehave(self, done: int) -> None:
        for crash in self._options.crash_at:
            if done == crash and self._first_time(f"crash{crash}"):
                self.note("crash", step=done)
                os.kill(os.getpid(), signal.SIGKILL)
        if done == self._options.let_go_at:
            self._header.trainer_state = TrainerState.NONE
            os.eventfd_write(self._step_event, 1)
            self.note("let go")
            _await_file(Path(f"{self._options.log}.rejoin"))
        if done == self._options.raise_at:
            raise RuntimeError(f"told to raise at step {done}")

    def _first_time(self, fault: str) -> bool:
        """Tell whether no earlier life of this script had this fault: it shall not repeat for ever."""
        mark = Path(f"{self._options.log}.{fault}")
        if mark.exists():
            return False
        mark.touch()
        return True

    def _should_stop(self) -> bool:
        header, limit = self._header, self._options.max_steps
        target = header.target_samples
        reached = bool(target) and header.global_samples >= target
        return header.command is Command.STOP or reached or bool(limit and header.step >= limit)

    def _stored(self) -> list[StoredTensor]:
        live = self._plane.live
        return [
            StoredTensor(p.spec.name, p.spec.dtype, p.spec.shape, live[p.start : p.stop].copy().view(np.uint8))
            for p in self._plane.layout.placements
        ]


def _trainer_module(name: str) -> ModuleType:
    """Load a module of the trainer's own without the package around it, which imports torch."""
    package = importlib.util.find_spec("adpsgd_node")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "trainer" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bare_trainer_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="numpy_trainer", description="Fit a line, and fail on demand.")
    parser.add_argument("--log", default=os.devnull, help="file for one JSON object per step and event")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--dataset-size", type=int, default=DATASET, help="as announced to the daemon; 0: not told")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.0, help="for parameter servers to apply")
    parser.add_argument("--drift", type=float, default=0.0, help="size of a known move added in each step")
    parser.add_argument("--steps-per-s", type=float, default=100.0, help="0: as fast as it goes")
    parser.add_argument("--max-steps", type=int, default=0, help="stop after so many steps, whatever the target")
    parser.add_argument("--crash-at", type=int, action="append", default=[], help="SIGKILL itself after this step")
    parser.add_argument("--crash-settling", action="store_true", help="SIGKILL itself once it waits for the others")
    parser.add_argument("--nan-at", type=int, default=-1, help="feed a NaN in this step, once")
    parser.add_argument("--raise-at-nan", action="store_true", help="raise once the loss is not finite")
    parser.add_argument("--skip-nan", action="store_true", help="skip the update of a loss that is not finite")
    parser.add_argument("--ruin-at", type=int, default=-1, help="leave a NaN in the parameters after this step")
    parser.add_argument("--keep-at", type=int, default=-1, help="save the parameters after this step to LOG.kept.npy")
    parser.add_argument("--swell-at", type=int, default=-1, help="multiply the parameters after this step")
    parser.add_argument("--swell-by", type=float, default=100.0, help="by so much")
    parser.add_argument("--raise-at", type=int, default=-1, help="raise after this step, in every life")
    parser.add_argument("--let-go-at", type=int, default=-1, help="after this step detach, and live on")
    parser.add_argument("--never-join", action="store_true", help="end well without having joined")
    parser.add_argument("--start-when", type=Path, help="take no step before this file is there")
    parser.add_argument("--wait-to-rejoin", action="store_true", help="in a later life, wait for the file LOG.rejoin")
    parser.add_argument("--finish", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)


def main(options: argparse.Namespace) -> None:
    if options.never_join:
        return
    if options.wait_to_rejoin and Path(options.log).exists():
        _await_file(Path(f"{options.log}.rejoin"))
    script = Script(options)
    try:
        script.enter()
        if options.start_when:
            _await_file(options.start_when)
        script.train()
        if options.finish:
            script.finish()
    except Exception as error:
        script.note("error", kind=type(error).__name__, text=str(error))
        raise


def _await_file(path: Path) -> None:
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not come within {ANSWER_LIMIT_S:g} s")
        time.sleep(0.02)  # between two looks: a file tells nobody that it is there


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read what a script has logged so far; a line that is being written is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


if __name__ == "__main__":
    main(parse())
