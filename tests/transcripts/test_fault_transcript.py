"""Simulated clusters under faults do, to the letter, what was recorded of them.

`adpsgd-node simulate faults --seeds 1000 --trace FOLDER` writes those of seeds that fail; once mended, record them anew
(`conftest.py`) in `faults/`, named after what failed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim import scenario_of, transcribed

TRANSCRIPTS = sorted((Path(__file__).parent / "faults").glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert TRANSCRIPTS


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_cluster_does_what_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    run, played = transcribed(scenario_of(written))
    assert run.wrong == (), "recorded or not, every invariant must hold"
    if request.config.getoption("--record-transcripts", default=False):
        path.write_text(played, encoding="utf-8")
        return
    assert played == written, "if the machines were meant to change, record anew and review the difference"


@pytest.mark.parametrize("head", ["", "nodes=4 seed=1", "> faults moon=1", "> node a#1 at a:1"])
def test_a_transcript_without_a_head_is_refused(head: str) -> None:
    with pytest.raises(ConfigError, match="head of a transcript"):
        scenario_of(head + "\n0.000 n00#1 starts at n00:7000\n")
