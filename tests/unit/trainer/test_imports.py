"""What the trainer's process must not load, and what importing the package must not."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_trainer_never_loads_grpc() -> None:
    loaded = loaded_by("import adpsgd_node; adpsgd_node.join; import adpsgd_node.trainer.cuda_copy")
    assert "torch" in loaded  # so the check sees what it should
    assert not loaded & {"grpc", "aiohttp", "prometheus_client"}


def test_importing_the_package_does_not_load_torch() -> None:
    assert "torch" not in loaded_by("import adpsgd_node; dir(adpsgd_node)")


def test_an_unknown_name_is_an_attribute_error() -> None:
    import adpsgd_node

    with pytest.raises(AttributeError, match="no attribute 'joyn'"):
        adpsgd_node.joyn  # noqa: B018
