"""Check the custom resources of rendered manifests, which Kubernetes' own schemas leave out: the operator's PodMonitor.

python check_custom.py MANIFESTS...
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor


def main() -> None:
    for path in sys.argv[1:]:
        for found in yaml.safe_load_all(Path(path).read_text()):
            if found["apiVersion"].startswith("monitoring.coreos.com/"):
                known = PodMonitor.model_validate(found).model_dump(mode="json", by_alias=True, exclude_unset=True)
                if known != found:  # the model ignores what it does not know
                    sys.exit(f"{path}: PodMonitor has keys that its schema does not know: {found} is not {known}")
                print(f"{path}: PodMonitor {found['metadata']['name']} is valid")


if __name__ == "__main__":
    main()
