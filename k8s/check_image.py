"""Look into the image and run it as a cluster would: `make check-image`, with docker or podman (CONTAINERS=podman).

It must hold nothing that builds, run without rights on a read-only root, become ready, be found healthy, train, and end
in good order on SIGTERM. Progress goes to stderr; the last line of stdout is one JSON object with sizes and times.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CONTAINERS = shlex.split(os.environ.get("CONTAINERS", "docker"))
NAME = "adpsgd-check-image"
USER = "10001"
LIMIT_S = 120.0
LIMITS = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:size=64m,mode=1777")
UP = ("up", "--run=check", "--output=/tmp/check", "--listen=127.0.0.1:7400", "--epochs=100000", "--drain-timeout=20")
INSIDE = """
import importlib.util as u, json, os, shutil, sys
def size(top, skip=()):
    total = 0
    for folder, folders, files in os.walk(top):
        folders[:] = [each for each in folders if os.path.join(folder, each) not in skip]
        total += sum(os.lstat(os.path.join(folder, each)).st_size for each in files)
    return total
torch = os.path.dirname(u.find_spec("torch").origin)
environment = sys.prefix
setuid = [os.path.join(folder, each) for folder, _, files in os.walk("/usr") for each in files
          if os.lstat(os.path.join(folder, each)).st_mode & 0o6000]
print(json.dumps({
    "uid": os.getuid(),
    "builders": [each for each in ("gcc", "cc", "make", "git", "protoc", "hadolint") if shutil.which(each)]
        + [each for each in ("grpc_tools", "pip", "pytest", "mypy") if u.find_spec(each)],
    "torch_bytes": size(torch), "environment_without_torch_bytes": size(environment, {torch}), "setuid": setuid,
}))
"""
PROCESSES = """
import json, os
def told(pid):
    lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return {"pid": int(pid), "name": lines["Name"].strip(), "uid": lines["Uid"].split()[1]}
print(json.dumps([told(pid) for pid in sorted(filter(str.isdigit, os.listdir("/proc")), key=int)]))
"""
READY = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8400/readyz', timeout=2).status)"


class Failure(Exception):
    """What should hold does not."""


def containers(*words: str, limit_s: float = LIMIT_S) -> str:
    done = subprocess.run([*CONTAINERS, *words], capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise Failure(f"{CONTAINERS[0]} {' '.join(words[:3])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def check(what: str, holds: bool) -> None:
    if not holds:
        raise Failure(f"does not hold: {what}")
    print(what, file=sys.stderr, flush=True)


def wait(what: str, holds: Callable[[], bool]) -> float:
    """Look again and again until it holds; returns the seconds that took."""
    began_s, last = time.monotonic(), ""
    while time.monotonic() - began_s < LIMIT_S:
        try:
            if holds():
                took_s = time.monotonic() - began_s
                print(f"{what} after {took_s:.1f} s", file=sys.stderr, flush=True)
                return took_s
        except Failure as error:
            last = f": {error}"
        time.sleep(0.2)  # between two looks
    raise Failure(f"not within {LIMIT_S:g} s: {what}{last}")


@contextmanager
def node(image: str) -> Iterator[None]:
    """Run a node alone; a container of this name is removed before and after."""
    subprocess.run([*CONTAINERS, "rm", "--force", NAME], capture_output=True, check=False)
    try:
        containers("run", "--detach", f"--name={NAME}", *LIMITS, image, *UP)
        yield
    finally:
        subprocess.run([*CONTAINERS, "rm", "--force", NAME], capture_output=True, check=False)


def inside(code: str) -> Any:
    return json.loads(containers("exec", NAME, "python", "-c", code))


def look(image: str) -> dict[str, Any]:
    """What lies in the image, and how it says that it is to be run."""
    (about,) = json.loads(containers("image", "inspect", image))
    config = about["Config"]
    check(f"user is {config['User']}", config["User"].split(":")[0] == USER)
    check("it says of which revision it is", bool(config["Labels"].get("org.opencontainers.image.revision")))
    found = json.loads(containers("run", "--rm", *LIMITS, "--entrypoint=python", image, "-c", INSIDE))
    check(f"it runs as {found['uid']}", str(found["uid"]) == USER)
    check(f"nothing in it builds or tests {found['builders'] or ''}", not found["builders"])
    result = {"image_bytes": about["Size"], **{key: found[key] for key in found if key.endswith("bytes")}}
    check(f"no program in it changes who runs it {found['setuid'] or ''}", not found["setuid"])
    return result


def run(image: str) -> dict[str, Any]:
    """What it does as a container."""
    with node(image):
        ready_s = wait("it is ready", lambda: containers("exec", NAME, "python", "-c", READY).strip() == "200")
        status = json.loads(containers("exec", NAME, "adpsgd-node", "status", "--json"))
        check(f"it is {status['phase']}", status["phase"] == "training")
        processes = inside(PROCESSES)
        first = processes[0]
        check(f"processes are {[each['name'] for each in processes]}", (first["pid"], first["name"]) == (1, "tini"))
        check("all of one user", {each["uid"] for each in processes} == {USER})
        (about,) = json.loads(containers("image", "inspect", image))
        # Docker tells it in Config, podman beside it.
        health = (about["Config"].get("Healthcheck") or about.get("Healthcheck") or {}).get("Test", [""])
        check("its health check is a command", health[0] == "CMD")
        containers("exec", NAME, *health[1:])
        check("it is found healthy", True)
        began_s = time.monotonic()
        containers("stop", "--time=60", NAME)
        drain_s = time.monotonic() - began_s
        (about,) = json.loads(containers("container", "inspect", NAME))
        check(
            f"SIGTERM ended it after {drain_s:.1f} s with {about['State']['ExitCode']}", about["State"]["ExitCode"] == 0
        )
    return {"ready_s": round(ready_s, 1), "drain_s": round(drain_s, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", nargs="?", default="adpsgd-node:0.1.0")
    options = parser.parse_args()
    try:
        result = {"image": options.image, **look(options.image), **run(options.image)}
    except (Failure, subprocess.TimeoutExpired) as error:
        print(f"check_image: {error}", file=sys.stderr)
        return 1
    except FileNotFoundError:
        print(f"check_image: there is no {CONTAINERS[0]}: set CONTAINERS to what runs containers here", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
