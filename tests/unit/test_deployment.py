"""What deploys a node names the version that is built here, and settings that it knows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from adpsgd_node.config import compose
from adpsgd_node.daemon.settings import NodeConfig

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


ENVIRONMENT = {
    "ADPSGD_NAME": "adpsgd-0",
    "ADPSGD_RUN": "digits",
    "ADPSGD_OUTPUT": "/runs/digits",
    "ADPSGD_ADVERTISE": "adpsgd-0.adpsgd:7400",
}
"""What the pod, or the host's own file, adds."""
LEAST_MARGIN_S = 10.0
"""From the end of a node's own limit to the moment at which it is killed."""


def file_config(place: str) -> NodeConfig:
    return compose(NodeConfig, ROOT / place, {}, ENVIRONMENT)


def kill_after_s(place: str, pattern: str) -> float:
    found = re.search(pattern, (ROOT / place).read_text())
    assert found is not None, f"{place} says not when a node is killed: is the pattern of this test out of date?"
    return float(found[1])


def test_the_gpu_overlay_gives_a_node_the_time_that_it_tells_it_to_take() -> None:
    place = "k8s/components/gpu/gpu.yaml"
    told = re.search(r'ADPSGD_DRAIN_TIMEOUT_S\n +value: "(\d+)"', (ROOT / place).read_text())
    assert told is not None
    config = compose(NodeConfig, None, {}, {"ADPSGD_DRAIN_TIMEOUT_S": told[1]})
    assert config.drain_timeout_s == float(told[1])
    assert kill_after_s(place, r"terminationGracePeriodSeconds: (\d+)") >= config.drain_timeout_s + LEAST_MARGIN_S


@pytest.mark.parametrize(
    ("settings", "killer", "pattern"),
    [
        ("k8s/base/node.toml", "k8s/base/statefulset.yaml", r"terminationGracePeriodSeconds: (\d+)"),
        ("deploy/node.toml", "deploy/adpsgd-node@.service", r"TimeoutStopSec=(\d+)"),
    ],
)
def test_its_settings_are_known_and_leave_a_node_time_to_leave(settings: str, killer: str, pattern: str) -> None:
    config = file_config(settings)
    assert config.network.insecure, "there is no TLS yet, and the file says so"
    assert kill_after_s(killer, pattern) >= config.drain_timeout_s + LEAST_MARGIN_S


def test_compose_leaves_a_node_time_to_leave() -> None:
    given = dict(re.findall(r"^  (ADPSGD_\w+): \"?([^\"\n]+?)\"?$", (ROOT / "compose.yaml").read_text(), re.MULTILINE))
    given |= {"ADPSGD_NAME": "node-0", "ADPSGD_ADVERTISE": "node-0:7400", "ADPSGD_EPOCHS": "200"}
    config = compose(NodeConfig, None, {}, given)
    assert len(given) >= 10
    assert kill_after_s("compose.yaml", r"stop_grace_period: (\d+)s") >= config.drain_timeout_s + LEAST_MARGIN_S
