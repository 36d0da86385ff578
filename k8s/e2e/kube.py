"""Ask a real cluster through kubectl, and wait for what it is to become."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OVERLAYS = Path(__file__).parents[1] / "overlays"
KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))
RENDER_FILTER = shlex.split(os.environ.get("RENDER_FILTER", "cat"))
LABEL = "app.kubernetes.io/name=adpsgd-node"
SET = "statefulset/adpsgd"
START_LIMIT_S = 240.0
STATUS_LIMIT_S = 3.0
"""A pod that has just gone does not answer at all."""
BEGAN_S = time.monotonic()

Status = dict[str, Any]


class Failure(Exception):
    """What should hold does not."""


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN_S:6.1f} s] {text}", file=sys.stderr, flush=True)


def kubectl(*words: str, stdin: str | None = None, timeout_s: float = 120.0) -> str:
    try:
        done = subprocess.run(
            [*KUBECTL, *words], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"kubectl {' '.join(words)}: no answer within {timeout_s:g} s") from None
    if done.returncode:
        raise Failure(f"kubectl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def raw_from_pod(pod: str, *command: str) -> bytes:
    """Return what a command in a pod prints, as it is: a file, say."""
    done = subprocess.run([*KUBECTL, "exec", pod, "--", *command], capture_output=True, timeout=120.0, check=False)
    if done.returncode:
        raise Failure(f"{pod}: {command[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def wait(what: str, holds: Callable[[], Any], limit_s: float = START_LIMIT_S) -> Any:
    """Look again and again until `holds()` is true, and return it; what cannot be asked yet does not hold yet."""
    deadline, last = time.monotonic() + limit_s, ""
    while time.monotonic() < deadline:
        try:
            if found := holds():
                say(what)
                return found
        except Failure as error:
            last = f": {error}"
        time.sleep(0.5)  # between two looks
    raise Failure(f"not within {limit_s:g} s: {what}{last}")


def check(what: str, holds: bool) -> None:
    if not holds:
        raise Failure(f"does not hold: {what}")
    say(what)


def apply(overlay: str, *options: str) -> None:
    kustomize = ["kubectl", "kustomize", str(OVERLAYS / overlay)]
    rendered = subprocess.run(kustomize, capture_output=True, text=True, check=True).stdout
    filtered = subprocess.run(RENDER_FILTER, input=rendered, capture_output=True, text=True, check=True).stdout
    kubectl(*options, "apply", "--validate=false", "-f", "-", stdin=filtered)


def in_pod(pod: str, *command: str) -> str:
    return kubectl("exec", pod, "--", *command, timeout_s=30.0)


@functools.cache
def own_namespace() -> str:
    """Return the namespace that kubectl is set to, however it is."""
    return kubectl("get", SET, "--output=jsonpath={.metadata.namespace}")


def status(pod: str, namespace: str = "") -> Status:
    """Read a pod's status through the API server: a command in the pod would take processor time of the pod's own."""
    page = f"/api/v1/namespaces/{namespace or own_namespace()}/pods/{pod}:8400/proxy/status"
    answer: Status = json.loads(kubectl("get", "--raw", page, timeout_s=STATUS_LIMIT_S))
    return answer


def object_of(pod: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(kubectl("get", "pod", pod, "-o", "json"))
    return answer


def pods() -> list[str]:
    return kubectl("get", "pods", "-l", LABEL, "-o", "name").replace("pod/", "").split()


def names(count: int) -> list[str]:
    return [f"adpsgd-{number}" for number in range(count)]


def training(pod: str) -> Status | None:
    found = status(pod)
    return found if found["phase"] == "training" and found["samples_per_s"] else None


def alive(known: Status) -> list[str]:
    """Return whom a node holds alive."""
    return sorted(member["name"] for member in known["members"] if member["state"] == "alive")


def together(count: int) -> list[Status] | None:
    """Return what the first `count` pods say, once all train and each holds exactly these alive."""
    said = [known for pod in names(count) if (known := training(pod)) and alive(known) == names(count)]
    return said if len(said) == count else None


def scale(count: int) -> None:
    kubectl("scale", SET, f"--replicas={count}")


def gone(*which: str) -> bool:
    return not set(which).intersection(pods())
