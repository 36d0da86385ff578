"""Run the dev overlay on a real cluster and hurt it: `make e2e-kube`, on the cluster that kubectl points to.

The image adpsgd-node:0.1.0 must be there, and nothing of an earlier run in the namespace. Progress goes to stderr; the
last line of stdout is one JSON object. Everything is removed at the end, unless `--keep`.

KUBECTL names another kubectl; RENDER_FILTER a command that the manifests pass through, for a cluster that is older than
they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime

import ledger
from kube import (
    BEGAN_S,
    KUBECTL,
    LABEL,
    OVERLAY,
    SET,
    START_LIMIT_S,
    Failure,
    Status,
    apply,
    check,
    gone,
    in_pod,
    kubectl,
    names,
    object_of,
    pods,
    raw_from_pod,
    say,
    scale,
    status,
    together,
    training,
    wait,
)
from safetensors.torch import load

from adpsgd_node.tasks import digits

BACK_LIMIT_S = 30.0
"""From the start of a pod's container to a training node."""
GRACE_S = 60.0
LEAST_ACCURACY = 0.96
LEAST_RATE = 0.5
"""Of the step rate before, that the others keep while a pod is away: on one machine they share its processors."""
ALARM = re.compile(r"member is now (suspect|dead)")
LONG_RUN = ("ADPSGD_RUN=e2e", "ADPSGD_EPOCHS=100000", "ADPSGD_CHECKPOINT_INTERVAL_S=10")


def first_run(result: Status) -> None:
    """The run of the overlay itself: it starts, ends, and leaves one good model."""
    apply()
    wait("all pods are ready", lambda: kubectl("rollout", "status", SET, "--timeout=1s"))
    result["ready_s"] = round(time.monotonic() - BEGAN_S, 1)
    wait("all nodes have finished", lambda: all(status(pod)["phase"] == "finished" for pod in names(3)))
    accuracies = [json.loads(in_pod(pod, "cat", "/runs/result.json"))["test_accuracy"] for pod in names(3)]
    result["test_accuracy"] = min(accuracies)
    check(f"test accuracy {min(accuracies)} of every pod's model", min(accuracies) >= LEAST_ACCURACY)
    file = raw_from_pod("adpsgd-0", "cat", "/runs/model.safetensors")
    told = in_pod("adpsgd-0", "sha256sum", "/runs/model.safetensors").split()[0]
    check(f"the model came out whole, {len(file)} bytes", hashlib.sha256(file).hexdigest() == told)
    model = digits.build_model(0)
    model.load_state_dict(load(file))
    _, _, images, labels = digits.load_data()
    result["retrieved_accuracy"] = round(digits.evaluate(model, images, labels)[0], 4)
    check(f"here it has {result['retrieved_accuracy']}", result["retrieved_accuracy"] >= LEAST_ACCURACY)


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
    """3 -> 5 -> 2 with the mass ledger kept, then none, one after the other, and 5 that hold its files."""
    scale(0)
    wait("all have gone", lambda: gone(*names(3)))
    ledger.record()
    scale(3)
    wait("three train together, recorded", lambda: together(3))
    scale(5)
    wait("five train together", lambda: together(5))
    for pod in ("adpsgd-3", "adpsgd-4"):
        check(f"{pod} took its peers' model", "adopted the parameters of a peer" in kubectl("logs", pod))
    leavers, asked = names(5)[2:], datetime.now(UTC).isoformat()
    scale(2)
    wait("three have gone", lambda: gone(*leavers))
    wait("two train together", lambda: together(2))
    for pod in names(2):
        states = {member["name"]: member["state"] for member in status(pod)["members"]}
        went = {name: states.get(name) for name in leavers}
        check(f"{pod} holds those that went: {went}", set(went.values()) == {"left"})
        alarms = [line for line in kubectl("logs", pod, f"--since-time={asked}").splitlines() if ALARM.search(line)]
        check(f"{pod} took nobody for dead {alarms or ''}", not alarms)
    for left in (1, 0):  # one after the other, so that each can settle
        scale(left)
        wait(f"{left} are left", lambda: gone(*names(2)[left:]))  # noqa: B023 - called at once
    ledger.stop_recording()
    scale(5)
    wait("five train together", lambda: together(5))
    judged = ledger.judge(names(5), set(leavers))
    say(f"the mass ledger holds: {judged}")
    scale(3)
    wait("three train together", lambda: together(3))
    result.update({"scaled": [3, 5, 2], **judged})


def a_volume_is_lost(pod: str) -> None:
    """Its claim is deleted, as k8s/README.md says: the pod gets an empty volume, and its peers' model."""
    old = json.loads(kubectl("get", "pvc", f"runs-{pod}", "-o", "json"))["metadata"]["uid"]
    kubectl("delete", "pvc", f"runs-{pod}", "--wait=false")
    kubectl("delete", "pod", pod)
    wait(
        f"{pod} has a new volume",
        lambda: json.loads(kubectl("get", "pvc", f"runs-{pod}", "-o", "json"))["metadata"]["uid"] != old,
    )
    wait(f"{pod} trains again", lambda: training(pod))
    check("it took its peers' model", "adopted the parameters of a peer" in kubectl("logs", pod))
    wait("all train together", lambda: together(3))


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
    a_volume_is_lost("adpsgd-1")
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


if __name__ == "__main__":
    sys.exit(main())
