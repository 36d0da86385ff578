"""Run the dev overlay on a real cluster and hurt it: `make e2e-kube`, on the cluster that kubectl points to.

The image adpsgd-node:0.1.0 must be there, and nothing of an earlier run in the namespace. Progress goes to stderr; the
last line of stdout is one JSON object. Everything is removed at the end, unless `--keep`.

KUBECTL names another kubectl; RENDER_FILTER a command that the manifests pass through, for a cluster that is older than
they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

OVERLAY = Path(__file__).parent / "overlays" / "dev"
KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))
RENDER_FILTER = shlex.split(os.environ.get("RENDER_FILTER", "cat"))
LABEL = "app.kubernetes.io/name=adpsgd-node"
SET = "statefulset/adpsgd"

START_LIMIT_S = 240.0
BACK_LIMIT_S = 30.0
"""From the start of a pod's container to a training node."""
GRACE_S = 60.0
LEAST_ACCURACY = 0.96
LEAST_RATE = 0.5
"""Of the step rate before, that the others keep while a pod is away: on one machine they share its processors."""
LONG_RUN = ("ADPSGD_RUN=e2e", "ADPSGD_EPOCHS=100000", "ADPSGD_CHECKPOINT_INTERVAL_S=10")

Status = dict[str, Any]


class Failure(Exception):
    """What should hold does not."""


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN_S:6.1f} s] {text}", file=sys.stderr, flush=True)


def kubectl(*words: str, stdin: str | None = None, timeout_s: float = 120.0) -> str:
    done = subprocess.run(
        [*KUBECTL, *words], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise Failure(f"kubectl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait(what: str, holds: Callable[[], Any], limit_s: float = START_LIMIT_S) -> Any:
    """Look again and again until `holds()` is true, and return it; what cannot be asked yet does not hold yet."""
    deadline, last = time.monotonic() + limit_s, ""
    while time.monotonic() < deadline:
        try:
            if found := holds():
                say(what)
                return found
        except (Failure, subprocess.TimeoutExpired) as error:
            last = f": {error}"
        time.sleep(0.5)  # between two looks
    raise Failure(f"not within {limit_s:g} s: {what}{last}")


def check(what: str, holds: bool) -> None:
    if not holds:
        raise Failure(f"does not hold: {what}")
    say(what)


def apply() -> None:
    rendered = subprocess.run(["kubectl", "kustomize", str(OVERLAY)], capture_output=True, text=True, check=True).stdout
    filtered = subprocess.run(RENDER_FILTER, input=rendered, capture_output=True, text=True, check=True).stdout
    kubectl("apply", "--validate=false", "-f", "-", stdin=filtered)


def in_pod(pod: str, *command: str) -> str:
    return kubectl("exec", pod, "--", *command, timeout_s=30.0)


def status(pod: str) -> Status:
    answer: Status = json.loads(in_pod(pod, "adpsgd-node", "status", "--json"))
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


def together(count: int) -> list[Status] | None:
    """Return what the first `count` pods say, once all train and each holds exactly these alive."""
    said = [training(pod) for pod in names(count)]
    if not all(said):
        return None
    for each in said:
        assert each is not None
        alive = sorted(member["name"] for member in each["members"] if member["state"] == "alive")
        if alive != names(count):
            return None
    return [each for each in said if each is not None]


def scale(count: int) -> None:
    kubectl("scale", SET, f"--replicas={count}")


def gone(*which: str) -> bool:
    return not set(which).intersection(pods())


def first_run(result: Status) -> None:
    """The run of the overlay itself: it starts, ends, and leaves one good model."""
    apply()
    wait("all pods are ready", lambda: kubectl("rollout", "status", SET, "--timeout=1s"))
    result["ready_s"] = round(time.monotonic() - BEGAN_S, 1)
    wait("all nodes have finished", lambda: all(status(pod)["phase"] == "finished" for pod in names(3)))
    accuracies = [json.loads(in_pod(pod, "cat", "/runs/result.json"))["test_accuracy"] for pod in names(3)]
    result["test_accuracy"] = min(accuracies)
    check(f"test accuracy {min(accuracies)} of every pod's model", min(accuracies) >= LEAST_ACCURACY)
    size = int(in_pod("adpsgd-0", "stat", "-c", "%s", "/runs/model.safetensors"))
    check(f"the model has {size} bytes", size > 100_000)


def who_it_runs_as() -> None:
    told = in_pod("adpsgd-0", "python", "-c", WHO)
    say(told.strip())
    facts = json.loads(told)
    check("no root, no capability, a read-only root, nothing in /dev/shm", facts == {
        "uid": 10001, "capabilities": 0, "root_writable": False, "shared_memory": [],
    })  # fmt: skip


WHO = """
import json, os
caps = next(line for line in open("/proc/1/status") if line.startswith("CapEff"))
def writable():
    try:
        open("/probe", "w")
    except OSError:
        return False
    return True
print(json.dumps({"uid": os.getuid(), "capabilities": int(caps.split()[1], 16), "root_writable": writable(),
                  "shared_memory": os.listdir("/dev/shm")}))
"""


def a_pod_is_deleted(result: Status, pod: str) -> None:
    """It leaves in good order, comes back at another address, and the others go on."""
    others = [name for name in names(3) if name != pod]
    before = {name: status(name) for name in others}
    old = object_of(pod)
    with subprocess.Popen([*KUBECTL, "logs", "-f", "--tail=0", pod], stdout=subprocess.PIPE, text=True) as log:
        asked_s = time.monotonic()
        kubectl("delete", "pod", pod, "--wait=false")
        wait(f"the old {pod} has ended", lambda: object_of(pod)["metadata"]["uid"] != old["metadata"]["uid"])
        drain_s = time.monotonic() - asked_s
        log.kill()
        told, _ = log.communicate()
    check(f"it drained in {drain_s:.1f} s", "is ready to leave" in told and drain_s < GRACE_S)
    during = {name: status(name) for name in others}
    wait(f"{pod} trains again", lambda: training(pod))
    new = object_of(pod)
    started = new["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    back_s = time.time() - datetime.fromisoformat(started).timestamp()
    check(f"{pod} trained {back_s:.1f} s after its start", back_s <= BACK_LIMIT_S)
    check("its address is another", new["status"]["podIP"] != old["status"]["podIP"])
    check("it took its peers' model", "adopted the parameters of a peer" in kubectl("logs", pod))
    for name in others:
        check(f"{name} went on", during[name]["step"] > before[name]["step"])
        rates = before[name]["samples_per_s"], during[name]["samples_per_s"]
        check(f"{name}: {rates[0]:.0f} samples/s before, {rates[1]:.0f} after", rates[1] > LEAST_RATE * rates[0])
    result["drain_s"] = max(result.get("drain_s", 0.0), round(drain_s, 1))
    result["back_s"] = max(result.get("back_s", 0.0), round(back_s, 1))


def all_pods_are_deleted(result: Status) -> None:
    before = max(status(pod)["samples_total"] for pod in names(3))
    uids = {object_of(pod)["metadata"]["uid"] for pod in names(3)}
    kubectl("delete", "pod", *names(3), "--wait=false")
    wait("all old pods have ended", lambda: not uids & {object_of(pod)["metadata"]["uid"] for pod in names(3)})
    after = min(each["samples_total"] for each in wait("all train again", lambda: together(3)))
    check(f"the run went on: {before} samples before, {after} after", after >= before)
    result["all_deleted"] = {"samples_before": before, "samples_after": after}


def scaled_up_and_down(result: Status) -> None:
    scale(5)
    wait("five train together", lambda: together(5))
    for pod in ("adpsgd-3", "adpsgd-4"):
        check(f"{pod} took its peers' model", "adopted the parameters of a peer" in kubectl("logs", pod))
    scale(2)
    wait("three have gone", lambda: gone(*names(5)[2:]))
    wait("two train together", lambda: together(2))
    for pod in names(2):
        states = {member["name"]: member["state"] for member in status(pod)["members"]}
        went = {name: states.get(name) for name in names(5)[2:]}
        check(f"{pod} holds those that went: {went}", set(went.values()) == {"left"})
    scale(3)
    wait("three train together", lambda: together(3))
    result["scaled"] = [3, 5, 2, 3]


def rolled(result: Status) -> None:
    """A rolling restart: no pod, whatever its life, ever tells less of the run than it has told."""
    told = {pod: status(pod)["samples_total"] for pod in names(3)}
    backwards: list[str] = []
    kubectl("rollout", "restart", SET)

    def over() -> bool:
        for pod in names(3):
            try:
                known = status(pod)
            except Failure:
                continue  # it is the one that restarts
            if known["phase"] == "training":
                if known["samples_total"] < told[pod]:
                    backwards.append(f"{pod}: {told[pod]} -> {known['samples_total']}")
                told[pod] = known["samples_total"]
        return bool(kubectl("rollout", "status", SET, "--timeout=1s"))

    wait("all pods have been replaced, one after the other", over, 3 * START_LIMIT_S)
    check(f"the run's progress never went back {backwards or ''}", not backwards)
    after = min(each["samples_total"] for each in wait("all train", lambda: together(3)))
    result["samples_after_rolling"] = after


def names_come_late() -> None:
    """Without the Service no pod finds another: all wait, none fails."""
    service = kubectl("get", "service", "adpsgd", "-o", "json")
    kept = json.loads(service)
    kept["metadata"] = {key: kept["metadata"][key] for key in ("name", "labels")}
    scale(0)
    wait("all have gone", lambda: gone(*names(3)))
    kubectl("delete", "service", "adpsgd")
    scale(3)
    wait("all pods run", lambda: all(object_of(pod)["status"]["phase"] == "Running" for pod in names(3)))
    wait("no name is known yet", lambda: all("joining" in status(pod)["phase"] for pod in names(3)))
    kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(kept))
    wait("all train together", lambda: together(3))
    restarts = [object_of(pod)["status"]["containerStatuses"][0]["restartCount"] for pod in names(3)]
    check("no container was restarted meanwhile", restarts == [0, 0, 0])


def tear_down() -> None:
    for kind in ("statefulset", "service", "serviceaccount", "configmap", "pvc"):
        kubectl("delete", kind, "-l", LABEL, "--ignore-not-found", "--wait=false")


def run() -> Status:
    result: Status = {}
    if pods():
        raise Failure(f"pods of an earlier run are there: kubectl delete -k {OVERLAY}")
    first_run(result)
    who_it_runs_as()
    scale(0)
    wait("all have gone", lambda: gone(*names(3)))
    kubectl("set", "env", SET, *LONG_RUN)
    scale(3)
    wait("a long run: all train together", lambda: together(3))
    a_pod_is_deleted(result, "adpsgd-1")
    wait("all train together", lambda: together(3))
    a_pod_is_deleted(result, "adpsgd-0")  # the seed that all others resolve first
    wait("all train together", lambda: together(3))
    all_pods_are_deleted(result)
    scaled_up_and_down(result)
    rolled(result)
    names_come_late()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--keep", action="store_true", help="leave everything as it is at the end, also after a failure"
    )
    options = parser.parse_args()
    try:
        result = run()
    except Failure as error:
        print(f"e2e: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            tear_down()
    print(json.dumps({**result, "wall_s": round(time.monotonic() - BEGAN_S, 1)}))
    return 0


BEGAN_S = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
