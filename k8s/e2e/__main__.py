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
import tempfile
import time
from datetime import UTC, datetime

import ledger
from kube import (
    BEGAN_S,
    KUBECTL,
    LABEL,
    SET,
    START_LIMIT_S,
    Failure,
    Status,
    alive,
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
LEAST_RATE = 0.8
"""Of the step rate before, that the others keep from a pod's SIGTERM until it trains again."""
RATE_S = 15.0
STALL_LIMIT_S = 10.0
"""In a rolling restart, the longest without progress of the run, as seen from outside."""
ADOPTED = "adopted the parameters of a peer"
ALARM = re.compile(r"member is now (suspect|dead) member=([^ ]+)")
DRAINED = re.compile(r"is ready to leave took_s=([\d.]+)")
JOINED = re.compile(r"joined the run .*through=([\d.]+):7400")
MODEL, RESULT = "/runs/digits/model.safetensors", "/runs/digits/result.json"
OWN = "adpsgd-e2e-script"
LONG_RUN = ("ADPSGD_RUN=e2e", "ADPSGD_EPOCHS=100000", "ADPSGD_CHECKPOINT_INTERVAL_S=10")


def first_run(result: Status) -> None:
    """The run of the overlay itself: it starts, ends, and leaves one good model."""
    apply("dev")
    wait("all pods are ready", lambda: kubectl("rollout", "status", SET, "--timeout=1s"))
    result["ready_s"] = round(time.monotonic() - BEGAN_S, 1)
    wait("all nodes have finished", lambda: all(status(pod)["phase"] == "finished" for pod in names(3)))
    ended = [json.loads(in_pod(pod, "adpsgd-node", "status", "--json")) for pod in names(3)]
    check("they are one membership", all(alive(each) == names(3) for each in ended))
    steps = [each["step"] for each in ended]
    check(f"each has trained: {steps} steps", min(steps) > 0)
    accuracies = wait("all results are written", lambda: [json.loads(in_pod(pod, "cat", RESULT)) for pod in names(3)])
    result["test_accuracy"] = min(each["test_accuracy"] for each in accuracies)
    check(f"test accuracy {result['test_accuracy']} of every pod's model", result["test_accuracy"] >= LEAST_ACCURACY)
    file = raw_from_pod("adpsgd-0", "cat", MODEL)
    told = in_pod("adpsgd-0", "sha256sum", MODEL).split()[0]
    check(f"the model came out whole, {len(file)} bytes", hashlib.sha256(file).hexdigest() == told)
    model = digits.build_model(0)
    model.load_state_dict(load(file))
    _, _, images, labels = digits.load_data()
    result["retrieved_accuracy"] = round(digits.evaluate(model, images, labels)[0], 4)
    check(f"here it has {result['retrieved_accuracy']}", result["retrieved_accuracy"] >= LEAST_ACCURACY)


WHO = """
import json, os, sys
def facts(pid):
    told = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    caps = {name: int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return {"name": told["Name"].strip(), "uids": told["Uid"].split(), "capabilities": caps,
            "no_new_privileges": told["NoNewPrivs"].strip(), "seccomp": told["Seccomp"].strip()}
print(json.dumps({"processes": [facts(pid) for pid in os.listdir("/proc") if pid.isdigit()],
                  "root_read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
                  "shared_memory": os.listdir("/dev/shm")}))
"""
FILTERED = "2"
"""What the kernel calls a process whose system calls are filtered by seccomp."""


def who_runs_there(result: Status) -> None:
    """While it trains: nothing is root or could become it, and nothing is kept where only a container's memory is."""
    facts = json.loads(in_pod("adpsgd-0", "python", "-c", WHO))
    processes = facts["processes"]
    say(f"processes: {sorted(each['name'] for each in processes)}")
    check("daemon and script are among them", len(processes) >= len(("tini", "daemon", "script", "this look")))
    check("all run as 10001", all(set(each["uids"]) == {"10001"} for each in processes))
    check("none can have a capability", not any(any(each["capabilities"].values()) for each in processes))
    check("none can gain a privilege", all(each["no_new_privileges"] == "1" for each in processes))
    check("the root file system is read-only", facts["root_read_only"])
    check(f"nothing is in /dev/shm {facts['shared_memory'] or ''}", not facts["shared_memory"])
    result["seccomp"] = all(each["seccomp"] == FILTERED for each in processes)
    say(f"their system calls are filtered: {result['seccomp']}")


def most_joined_through() -> str:
    """Return the pod through which most others came into the run."""
    pod_at = {object_of(pod)["status"]["podIP"]: pod for pod in names(3)}
    through = [pod_at[address] for pod in names(3) for address in JOINED.findall(kubectl("logs", pod))]
    if not through:
        raise Failure("no pod says through which seed it joined")
    say(f"they joined through {through}")
    return max(set(through), key=through.count)


def steps_of(which: list[str]) -> dict[str, tuple[float, int]]:
    """Return when each was asked, and its steps until then."""
    return {pod: (time.monotonic(), status(pod)["step"]) for pod in which}


def rates(before: dict[str, tuple[float, int]], after: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Return each one's steps a second between two looks."""
    return {pod: (after[pod][1] - steps) / (after[pod][0] - at_s) for pod, (at_s, steps) in before.items()}


def a_pod_is_deleted(result: Status, pod: str) -> None:
    """It leaves in good order, comes back at another address, and the others go on."""
    others = [name for name in names(3) if name != pod]
    old, restarts = object_of(pod), {name: restarts_of(name) for name in others}
    life, asked, begun = life_of(pod), datetime.now(UTC).isoformat(), steps_of(others)
    time.sleep(RATE_S)  # that is what is measured
    deleted = steps_of(others)
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen([*KUBECTL, "logs", "-f", pod], stdout=said) as log:
            asked_s = time.monotonic()
            kubectl("delete", "pod", pod, "--wait=false")
            wait(f"the old {pod} has ended", lambda log=log: log.poll() is not None, GRACE_S)  # its log ends with it
            end_s = time.monotonic() - asked_s
        said.seek(0)
        told = said.read()
    drained = DRAINED.search(told)
    if not drained:
        raise Failure(f"{pod} did not say that it was ready to leave: {told[-500:]}")
    drain_s = float(drained[1])
    check(f"it was ready to leave after {drain_s:.2f} s, and ended after {end_s:.1f} s", end_s < GRACE_S)
    wait(f"{pod} is another", lambda: object_of(pod)["metadata"]["uid"] != old["metadata"]["uid"])
    wait(f"{pod} took its peers' model", lambda: ADOPTED in kubectl("logs", pod))
    wait(f"{pod} trains again", lambda: training(pod))
    returned = steps_of(others)
    new = object_of(pod)
    started = new["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    back_s = time.time() - datetime.fromisoformat(started).timestamp()
    check(f"{pod} trained {back_s:.1f} s after its start", back_s <= BACK_LIMIT_S)
    check("its address is another", new["status"]["podIP"] != old["status"]["podIP"])
    before, while_away = rates(begun, deleted), rates(deleted, returned)
    for name in others:
        part = while_away[name] / before[name]
        check(f"{name}: {before[name]:.1f} steps/s before, {while_away[name]:.1f} meanwhile", part >= LEAST_RATE)
        check(f"{name} was not restarted", restarts_of(name) == restarts[name])
        was_not_alarmed(name, asked, [life])
        result["rate_kept"] = min(result.get("rate_kept", 1.0), round(part, 2))
    result["drain_s"] = max(result.get("drain_s", 0.0), round(drain_s, 2))
    result["back_s"] = max(result.get("back_s", 0.0), round(back_s, 1))


def restarts_of(pod: str) -> int:
    count: int = object_of(pod)["status"]["containerStatuses"][0]["restartCount"]
    return count


def was_not_alarmed(pod: str, since: str, left: list[str]) -> None:
    """It held nobody dead, and none of those lives that left so much as suspect: where processors are short, a live one
    may be, until it answers.
    """
    alarms = ALARM.findall(kubectl("logs", pod, f"--since-time={since}"))
    wrong = [f"{state}: {member}" for state, member in alarms if state == "dead" or member in left]
    check(f"{pod} was not alarmed {wrong or ''}", not wrong)
    say(f"{pod} suspected others for a moment {len(alarms)} times")


def life_of(pod: str) -> str:
    """Return how logs name the node that runs in a pod now."""
    return f"{pod}#{status(pod)['boot']}"


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
        check(f"{pod} took its peers' model", ADOPTED in kubectl("logs", pod))
    leavers, asked = names(5)[2:], datetime.now(UTC).isoformat()
    lives = [life_of(pod) for pod in leavers]
    scale(2)
    wait("three have gone", lambda: gone(*leavers))
    wait("two train together", lambda: together(2))
    for pod in names(2):
        states = {member["name"]: member["state"] for member in status(pod)["members"]}
        went = {name: states.get(name) for name in leavers}
        check(f"{pod} holds those that went: {went}", set(went.values()) == {"left"})
        was_not_alarmed(pod, asked, lives)
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
    check("it took its peers' model", ADOPTED in kubectl("logs", pod))
    wait("all train together", lambda: together(3))


def rolled(result: Status) -> None:
    """A rolling restart: the run goes on all the time, and no pod ever tells less of it than that name has told."""
    told = {pod: status(pod)["samples_total"] for pod in names(3)}
    backwards: list[str] = []
    moved_s, longest_s, fewest = time.monotonic(), 0.0, 3
    kubectl("rollout", "restart", SET)

    def over() -> bool:
        nonlocal moved_s, longest_s, fewest
        most, trained = max(told.values()), 0
        for pod in names(3):
            try:
                known = status(pod)
            except Failure:
                continue  # it is the one that restarts
            if known["phase"] == "training":
                trained += 1
                if known["samples_total"] < told[pod]:
                    backwards.append(f"{pod}: {told[pod]} -> {known['samples_total']}")
                told[pod] = known["samples_total"]
        if max(told.values()) > most:
            longest_s, moved_s = max(longest_s, time.monotonic() - moved_s), time.monotonic()
        fewest = min(fewest, trained)
        return bool(kubectl("rollout", "status", SET, "--timeout=1s"))

    wait("all pods have been replaced, one after the other", over, 3 * START_LIMIT_S)
    check(f"the run's progress never went back {backwards or ''}", not backwards)
    check(f"at each look {fewest} pods or more trained", fewest >= len(told) - 1)
    longest_s = max(longest_s, time.monotonic() - moved_s)
    check(f"it stood still for {longest_s:.1f} s at most", longest_s < STALL_LIMIT_S)
    after = min(each["samples_total"] for each in wait("all train", lambda: together(3)))
    result["rolled"] = {"samples_after": after, "fewest_training": fewest, "longest_standstill_s": round(longest_s, 1)}


def names_come_late() -> None:
    """Without the Service no pod finds another: all wait, none fails. Then SRV records lead them to each other."""
    service = kubectl("get", "service", "adpsgd", "-o", "json")
    kept = json.loads(service)
    kept["metadata"] = {key: kept["metadata"][key] for key in ("name", "labels")}
    scale(0)
    wait("all have gone", lambda: gone(*names(3)))
    kubectl("delete", "service", "adpsgd")
    kubectl("set", "env", SET, "ADPSGD_SEEDS=dns+srv://_grpc._tcp.adpsgd")
    scale(3)
    wait("all pods run", lambda: all(object_of(pod)["status"]["phase"] == "Running" for pod in names(3)))
    wait("no name is known yet", lambda: all("joining" in status(pod)["phase"] for pod in names(3)))
    kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(kept))
    wait("all train together", lambda: together(3))
    check("no container was restarted meanwhile", not any(restarts_of(pod) for pod in names(3)))
    check("they joined through names", any("through=adpsgd-" in kubectl("logs", pod) for pod in names(3)))


def own_script() -> None:
    """A script from a ConfigMap, in a namespace of its own."""
    scale(0)
    wait("all have gone", lambda: gone(*names(3)))
    kubectl("create", "namespace", OWN)
    apply("user-script", "--namespace", OWN)
    wait("the user's script has trained", lambda: all(status(pod, OWN)["phase"] == "finished" for pod in names(3)))
    ended = [status(pod, OWN) for pod in names(3)]
    check("by three members of another run", all(alive(each) == names(3) and each["step"] for each in ended))
    kubectl("delete", "namespace", OWN, "--wait=false")


def tear_down() -> None:
    kubectl("delete", "namespace", OWN, "--ignore-not-found", "--wait=false")
    for kind in ("statefulset", "service", "serviceaccount", "configmap", "pvc"):
        kubectl("delete", kind, "-l", LABEL, "--ignore-not-found", "--wait=false")


def run() -> Status:
    result: Status = {}
    if pods():
        raise Failure("pods of an earlier run are there: kubectl delete -k k8s/overlays/dev")
    first_run(result)
    scale(0)
    wait("all have gone", lambda: gone(*names(3)))
    kubectl("set", "env", SET, *LONG_RUN)
    scale(3)
    wait("a long run: all train together", lambda: together(3))
    who_runs_there(result)
    seed = most_joined_through()
    for pod in (seed, next(name for name in names(3) if name != seed)):
        a_pod_is_deleted(result, pod)
        wait("all train together", lambda: together(3))
    all_pods_are_deleted(result)
    scaled_up_and_down(result)
    a_volume_is_lost("adpsgd-1")
    rolled(result)
    names_come_late()
    own_script()
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
