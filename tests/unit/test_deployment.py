"""What deploys a node names the version that is built here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

PLACES = {
    "Dockerfile": r'image\.version="([^"]+)"',
    "compose.yaml": r"image: adpsgd-node:(\S+)",
    "k8s/base/kustomization.yaml": r'newTag: "([^"]+)"',
    "k8s/components/gpu/kustomization.yaml": r'newTag: "([^"]+)-cuda"',
    "k8s/README.md": r"docker build -t adpsgd-node:(\S+) \.\n",
}


@pytest.mark.parametrize("place", PLACES)
def test_it_names_this_version(place: str) -> None:
    found = re.search(PLACES[place], (ROOT / place).read_text())
    assert found is not None, f"{place} names no version: is the pattern of this test out of date?"
    assert found[1] == VERSION
