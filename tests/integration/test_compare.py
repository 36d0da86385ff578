"""`adpsgd-node compare` runs real nodes under each algorithm, and its last line is the result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 400.0


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_two_nodes_under_each_algorithm_end_with_a_row_each(tmp_path: Path) -> None:
    options = ["--nodes=2", "--straggler=4", "--samples=6000", "--emulate-step-ms=20", f"--output={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "adpsgd_cli", "compare", *options, "--json"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["algorithm"] for row in rows] == ["ad-psgd", "d-psgd", "a-psgd", "allreduce"]
    for row in rows:
        assert row["complete"]
        assert row["straggler"] == "4x"
        assert row["samples_total"] >= 6000
        assert row["samples_per_s"] > 0
        assert row["test_accuracy"] > 0.9
        assert row["consensus_distance"] <= 1e-3
    assert rows[-1]["consensus_distance"] == 0.0, "allreduce keeps the models equal"
