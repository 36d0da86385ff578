"""Keep the mass ledger of every life of every pod, and check it: what one took from another, the other gave.

The node is started through the chaos suite's recorder, which comes in a ConfigMap: the image stays what it is. The sums
lie in the pod's volume, and are read once the lives that wrote them are over.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from kube import LABEL, SET, Failure, kubectl, raw_from_pod

from adpsgd_node.ids import NodeId
from chaos.launch import REPORT_FILE
from chaos.ledger import pair_drift, read_ledgers

__all__ = ["judge", "record", "stop_recording"]

MAX_DRIFT = 1e-5
TESTS = Path(__file__).parents[2] / "tests"
FILES = ("chaos/launch.py", "chaos/recorder.py", "chaos/ledger.py", "chaos/census.py", "support/exact_view.py")
CONFIG = "adpsgd-recorder"
# Each life has a folder of its own. Kubernetes makes $( of $$(, and the shell runs it.
START = "exec python /recorder/chaos/launch.py /runs/lives/$$(date +%s%N) 0 up"


def record() -> None:
    """Have pods that start from now on keep the ledger."""
    keys = {path.replace("/", "."): path for path in FILES}
    kubectl("create", "configmap", CONFIG, *(f"--from-file={key}={TESTS / path}" for key, path in keys.items()))
    kubectl("label", "configmap", CONFIG, LABEL)
    items = [{"key": key, "path": path} for key, path in keys.items()]
    _patch(
        {"name": "recorder", "configMap": {"name": CONFIG, "items": items}},
        {"mountPath": "/recorder", "name": "recorder", "readOnly": True},
        ["tini", "--", "sh", "-c", START],
    )


def stop_recording() -> None:
    _patch({"name": "recorder", "$patch": "delete"}, {"mountPath": "/recorder", "$patch": "delete"}, None)


def _patch(volume: dict[str, Any], mount: dict[str, Any], command: list[str] | None) -> None:
    container = {"name": "node", "command": command, "volumeMounts": [mount]}
    template = {"spec": {"volumes": [volume], "containers": [container]}}
    kubectl("patch", SET, "--type=strategic", "-p", json.dumps({"spec": {"template": template}}))


def judge(pods: list[str], left_together: set[str]) -> dict[str, Any]:
    """Fetch the ledgers of all recorded lives of these pods, which must be over, and check them.

    left_together: those that went at the same moment, between which something may have stayed open. With all others
    everything must be settled.
    """
    with tempfile.TemporaryDirectory() as name:
        for pod in pods:
            with tarfile.open(
                fileobj=io.BytesIO(raw_from_pod(pod, "tar", "-C", "/runs", "-cSzf", "-", "lives"))
            ) as tar:
                tar.extractall(Path(name) / pod, filter="data")
        folders = sorted(Path(name).glob("*/lives/*"))
        ledgers = read_ledgers(folders)
        reports = [json.loads((folder / REPORT_FILE).read_text()) for folder in folders]
    if len(ledgers) != len(pods) or not all(report["final"] for report in reports):
        raise Failure(f"{len(pods)} lives should have ended and left a ledger: {sorted(map(str, ledgers))}")
    for report in reports:
        if report["defects"] or report["unattributed"] > 1e-9 * report["norm"]:
            raise Failure(f"{report['name']} changed its model outside of exchanges: {report}")
    open_pairs = {
        frozenset((NodeId(report["name"], report["boot"]), NodeId(*peer)))
        for report in reports
        for peer in report["unsettled"]
    }
    if wrong := [pair for pair in open_pairs if not {one.name for one in pair} <= left_together]:
        raise Failure(f"exchanges were left unsettled: {wrong}")
    pairs = {frozenset((one, other)) for one, ledger in ledgers.items() for other in ledger.taken} - open_pairs
    if alone := [str(one) for one in ledgers if not any(one in pair for pair in pairs)]:
        raise Failure(f"exchanged with nobody, so the ledger proves nothing: {alone}")
    drift, where = pair_drift(ledgers, max(report["norm"] for report in reports), open_pairs)
    if drift > MAX_DRIFT:
        raise Failure(f"mass was lost: {drift:.1e} of the model between {where}")
    return {"mass_drift_relative": drift, "ledger_pairs": len(pairs), "open_pairs": len(open_pairs)}
