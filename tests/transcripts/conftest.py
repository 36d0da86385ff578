"""Record transcripts anew: `pytest tests/transcripts --record-transcripts`; review the difference like code."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-transcripts", action="store_true", help="write what the machines do now into the transcripts"
    )
