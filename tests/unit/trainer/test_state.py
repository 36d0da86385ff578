"""The trainer's part of a checkpoint: written at a step boundary, read without trust, refused when it does not fit."""

from __future__ import annotations

import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adpsgd_node
from adpsgd_node.checkpoint.state_file import STATE_ERROR_FILE, STATE_FILE
from adpsgd_node.plane import Plane
from adpsgd_node.plane.header import HEADER_BYTES, Header
from adpsgd_node.trainer.state import StateSaver, capture, restore
from support.fake_daemon import FakeDaemon

PATIENCE_S = 20.0


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[FakeDaemon], FakeDaemon]]:
    daemons: list[FakeDaemon] = []

    def start_one(daemon: FakeDaemon) -> FakeDaemon:
        monkeypatch.setenv("ADPSGD_TRAINER_FD", str(daemon.start()))
        daemons.append(daemon)
        return daemon

    yield start_one
    for daemon in daemons:
        daemon.join()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 1))


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Train on samples out of every generator there is."""
    for _ in range(steps):
        samples = torch.randn(6, 4) + float(np.random.standard_normal()) + random.gauss(0, 1)
        optimizer.zero_grad()
        network(samples).square().mean().backward()
        optimizer.step()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        os.sched_yield()


def header_of() -> Header:
    return Header(np.zeros(HEADER_BYTES, np.uint8))


def reseed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("staged", [False, True], ids=["shared", "staged"])
@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam], ids=lambda kind: kind.__name__
)
def test_a_script_that_goes_on_from_its_state_is_bitwise_as_if_it_had_not_stopped(
    start, staged: bool, kind: Callable[..., torch.optim.Optimizer], tmp_path: Path
) -> None:
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    reseed(1)
    plain = model()
    plain_optimizer = kind(plain.parameters(), lr=0.01, **options)
    train(plain, plain_optimizer, 9)

    reseed(1)
    first = start(FakeDaemon(state_folder=str(tmp_path)))
    network = model()
    optimizer = kind(network.parameters(), lr=0.01, **options)
    node = adpsgd_node.join(network, optimizer, staged=staged)
    train(network, optimizer, 4)
    first.plane.header.save_state = 1
    train(network, optimizer, 1)
    until(lambda: first.plane.header.state_saved == 1)
    saved = tmp_path / STATE_FILE.format(1)
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]
    node.detach()
    first.join()

    reseed(99)
    start(FakeDaemon(plane=first.plane, restore=str(saved)))
    again = model()
    optimizer = kind(again.parameters(), lr=0.01, **options)
    with adpsgd_node.join(again, optimizer, staged=staged):
        train(again, optimizer, 4)
    ours, theirs = again.state_dict(), plain.state_dict()
    differing = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    assert differing == ["1.num_batches_tracked"], "of integer buffers the plane holds none"


def test_the_state_is_that_of_the_step_at_which_it_was_asked_for(tmp_path: Path) -> None:
    network = model()
    optimizer = torch.optim.Adam(network.parameters())
    train(network, optimizer, 3)
    captured = capture([optimizer])
    before = {key: value.clone() for key, value in optimizer.state_dict()["state"][0].items()}
    train(network, optimizer, 3)
    for key, value in captured["optimizers"][0]["state"]["state"][0].items():
        assert torch.equal(value, before[key]), key


def test_training_goes_on_while_the_state_is_written_and_one_is_written_at_a_time(tmp_path: Path) -> None:
    network = model()
    optimizer = torch.optim.Adam(network.parameters())
    header, event = header_of(), os.eventfd(0, os.EFD_NONBLOCK)
    saver = StateSaver(str(tmp_path), header, [optimizer], event)
    saver.after_step()
    assert list(tmp_path.iterdir()) == [], "nobody asked"
    for number in (1, 2, 3):
        header.save_state = number
        saver.after_step()
        until(lambda: (saver.after_step(), header.state_saved == header.save_state)[1])  # steps go by
        assert os.eventfd_read(event) == 1, "the daemon is woken"
        assert (tmp_path / STATE_FILE.format(number)).exists()
    saver.close()
    os.close(event)


def test_a_request_that_was_carried_out_is_not_carried_out_again(tmp_path: Path) -> None:
    network = model()
    header = header_of()
    header.state_saved = 4
    header.save_state = 4
    StateSaver(str(tmp_path), header, [torch.optim.Adam(network.parameters())], -1).after_step()
    assert list(tmp_path.iterdir()) == []


def test_the_state_is_written_while_the_script_waits_for_the_others_at_the_end(start, tmp_path: Path) -> None:
    def ask(plane: Plane) -> None:
        plane.header.save_state = 1
        until(lambda: plane.header.state_saved == 1)

    start(FakeDaemon(state_folder=str(tmp_path), before_agreed=ask))
    network = model()
    optimizer = torch.optim.Adam(network.parameters())
    with adpsgd_node.join(network, optimizer):
        train(network, optimizer, 2)
    assert torch.load(tmp_path / STATE_FILE.format(1), weights_only=True)["version"] == 1


def test_a_folder_that_cannot_be_written_is_answered_all_the_same(tmp_path: Path) -> None:
    network = model()
    header = header_of()
    saver = StateSaver(str(tmp_path / "gone"), header, [torch.optim.Adam(network.parameters())], -1)
    header.save_state = 1
    saver.after_step()
    until(lambda: header.state_saved == 1)


def test_why_a_state_could_not_be_written_is_left_behind(tmp_path: Path) -> None:
    network = model()
    header = header_of()
    (tmp_path / f".{STATE_FILE.format(1)}.tmp").mkdir()  # so that the file cannot be made
    saver = StateSaver(str(tmp_path), header, [torch.optim.Adam(network.parameters())], -1)
    header.save_state = 1
    saver.after_step()
    until(lambda: header.state_saved == 1)
    assert "could not be written" in (tmp_path / STATE_ERROR_FILE.format(1)).read_text()
    assert not (tmp_path / STATE_FILE.format(1)).exists()


def test_a_state_that_would_need_code_is_not_written_and_named(tmp_path: Path) -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    optimizer.param_groups[0]["schedule"] = lambda step: step
    header = header_of()
    saver = StateSaver(str(tmp_path), header, [optimizer], -1)
    header.save_state = 1
    saver.after_step()
    until(lambda: header.state_saved == 1)
    why = (tmp_path / STATE_ERROR_FILE.format(1)).read_text()
    assert "SGD['param_groups']['schedule'] is a function" in why


def test_several_optimizers_are_restored(tmp_path: Path) -> None:
    network, path = model(), tmp_path / "trainer.pt"
    both = [torch.optim.Adam(network[0].parameters()), torch.optim.SGD(network[3].parameters(), lr=0.1, momentum=0.9)]
    for optimizer in both:
        train(network, optimizer, 2)
    torch.save(capture(both), path)
    fresh = [torch.optim.Adam(network[0].parameters()), torch.optim.SGD(network[3].parameters(), lr=0.1, momentum=0.9)]
    assert restore(str(path), fresh)
    for one, other in zip(both, fresh, strict=True):
        assert one.state_dict()["state"].keys() == other.state_dict()["state"].keys()
        for number, entries in one.state_dict()["state"].items():
            for key, value in entries.items():
                assert torch.equal(value, other.state_dict()["state"][number][key])


def _of_adam(network: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(network.parameters())
    train(network, optimizer, 1)
    return capture([optimizer])


def assert_refused(path: Path, network: nn.Module, optimizers: list[torch.optim.Optimizer], why: str) -> None:
    before = torch.get_rng_state()
    with pytest.warns(RuntimeWarning, match=f"goes on without the optimizer state.*trainer.pt: .*{why}"):
        assert not restore(str(path), optimizers)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(optimizer.state for optimizer in optimizers)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda network: [torch.optim.SGD(network.parameters(), lr=0.1)], "of Adam, the script's optimizer is SGD"),
        (lambda network: [torch.optim.Adam(network[0].parameters())], "other parameters"),
        (
            lambda network: [torch.optim.Adam([{"params": [parameter]} for parameter in network.parameters()])],
            "groups them otherwise",
        ),
        (lambda network: [torch.optim.Adam(network.parameters()) for _ in range(2)], "1 optimizers, the script has 2"),
    ],
    ids=["kind", "parameters", "groups", "number"],
)
def test_a_state_of_other_optimizers_changes_nothing_and_says_so(
    given: Callable[[nn.Module], list[torch.optim.Optimizer]], why: str, tmp_path: Path
) -> None:
    network, path = model(), tmp_path / "trainer.pt"
    torch.save(_of_adam(network), path)
    assert_refused(path, network, given(network), why)


def test_a_state_of_a_later_version_is_refused(tmp_path: Path) -> None:
    network, path = model(), tmp_path / "trainer.pt"
    torch.save({**_of_adam(network), "version": 2}, path)
    assert_refused(path, network, [torch.optim.Adam(network.parameters())], "no state of version 1")


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "text"])
def test_a_damaged_state_is_refused(damage: str, tmp_path: Path) -> None:
    network, path = model(), tmp_path / "trainer.pt"
    torch.save(_of_adam(network), path)
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(path.read_bytes()[:500])
        case "text":
            path.write_text("no state")
    assert_refused(path, network, [torch.optim.Adam(network.parameters())], "")


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_state_is_not_run(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_FOLDER", str(tmp_path / "evil"))
    network, path = model(), tmp_path / "trainer.pt"
    state = {**_of_adam(network), "extra": Evil()}
    if writer == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    assert_refused(path, network, [torch.optim.Adam(network.parameters())], "")
    assert not (tmp_path / "evil").exists()
