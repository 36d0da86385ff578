"""The ledger finds what was not taken in exact opposites, and its files outlive the process that writes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adpsgd_node.ids import NodeId
from chaos.ledger import FileLedger, Ledger, pair_drift, read_ledgers, total_drift

A, B, GONE = NodeId("a", 1), NodeId("b", 1), NodeId("c", 1)
DELTA = np.array([1.0, -2.0, 0.5], np.float32)


def ledgers() -> dict[NodeId, Ledger]:
    both = {A: Ledger(), B: Ledger()}
    for ledger in both.values():
        ledger.begin(4)
    return both


def test_exact_opposites_cancel() -> None:
    both = ledgers()
    both[A].add(B, 1, DELTA)
    both[B].add(A, 1, -DELTA)
    assert pair_drift(both, 1.0) == (0.0, "")
    assert total_drift(both, 1.0) == 0.0


def test_a_delta_that_only_one_side_applied_is_found() -> None:
    both = ledgers()
    both[A].add(B, 1, DELTA)
    drift, where = pair_drift(both, 2.0)
    assert drift == pytest.approx(float(np.linalg.norm(DELTA)) / 2)
    assert where == "a#1 and b#1"
    assert total_drift(both, 1.0) > 0


def test_a_delta_that_was_taken_back_counts_for_nothing() -> None:
    both = ledgers()
    both[A].add(B, 1, DELTA)
    both[A].add(B, 1, -DELTA)
    assert pair_drift(both, 1.0)[0] == 0.0


def test_what_came_from_a_life_that_is_gone_is_no_drift() -> None:
    both = ledgers()
    both[A].add(GONE, 0, DELTA)
    assert pair_drift(both, 1.0)[0] == 0.0
    assert total_drift(both, 1.0) == 0.0
    assert both[A].unattributed() == 0.0


def test_the_files_hold_what_a_killed_process_wrote(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal, numpy as np\n"
        "from pathlib import Path\n"
        "from adpsgd_node.ids import NodeId\n"
        "from chaos.ledger import FileLedger\n"
        "ledger = FileLedger(Path(sys.argv[1])); ledger.name(NodeId('a', 1)); ledger.begin(4)\n"
        "ledger.add(NodeId('b', 1), 1, np.array([1.0, -2.0, 0.5], np.float32))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    read = read_ledgers([tmp_path])
    assert read[A].taken[B].tolist() == [0.0, 1.0, -2.0, 0.5]
    assert read[A].received is not None
    assert read[A].unattributed() == 0.0


def test_a_new_plane_begins_an_empty_ledger(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    ledger.name(A)
    ledger.begin(4)
    ledger.add(B, 0, DELTA)
    ledger.begin(4)
    assert read_ledgers([tmp_path])[A].taken == {}
