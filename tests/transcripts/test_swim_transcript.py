from __future__ import annotations

from pathlib import Path

import pytest

from support.swim_transcript import play

TRANSCRIPTS = sorted((Path(__file__).parent / "swim").glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert TRANSCRIPTS


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_machine_does_what_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    played = play(written)
    if request.config.getoption("--record-transcripts", default=False):
        path.write_text(played, encoding="utf-8")
        return
    assert played == written
