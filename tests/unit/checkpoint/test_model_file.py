from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from adpsgd_node.checkpoint import model_file
from adpsgd_node.checkpoint.model_file import StoredTensor, read_metadata, read_tensors, write_model
from adpsgd_node.errors import TrainerError


def stored(name: str, array: np.ndarray) -> StoredTensor:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return StoredTensor(name, array.dtype.name, array.shape, flat)


WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
TENSORS = [
    stored("layer.weight", WEIGHTS),
    stored("half", WEIGHTS.astype(np.float16)),
    stored("brain", WEIGHTS.astype(ml_dtypes.bfloat16)),
    stored("double", WEIGHTS.astype(np.float64)),
    stored("count", np.array(7, np.int64)),
    stored("mask", np.array([True, False])),
    stored("empty", np.empty((0, 4), np.float32)),
]
METADATA = {"run": "r", "node": "käse", "steps": "12"}


def test_the_safetensors_library_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, TENSORS, METADATA)
    with safe_open(path, framework="np") as file:
        assert file.metadata() == METADATA
        assert set(file.keys()) == {tensor.name for tensor in TENSORS}
        assert np.array_equal(file.get_tensor("layer.weight"), WEIGHTS)
        assert np.array_equal(file.get_tensor("double"), WEIGHTS.astype(np.float64))
        assert file.get_tensor("count") == 7
        assert file.get_tensor("mask").tolist() == [True, False]
        assert file.get_tensor("empty").shape == (0, 4)
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("brain").float().numpy().tolist() == WEIGHTS.astype(ml_dtypes.bfloat16).tolist()


def test_floating_tensors_are_read_back_as_fp32_and_integers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.safetensors"
    write_model(path, TENSORS, METADATA)
    tensors = read_tensors(path)
    assert set(tensors) == {"layer.weight", "half", "brain", "double", "empty"}
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    assert np.array_equal(tensors["layer.weight"], WEIGHTS)
    assert np.array_equal(tensors["half"], WEIGHTS.astype(np.float16).astype(np.float32))
    assert np.array_equal(tensors["brain"], WEIGHTS.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert read_metadata(path) == METADATA


def test_a_write_that_fails_leaves_the_earlier_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, TENSORS, METADATA)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainerError, match=r"model\.safetensors: No space left.*--output"):
        write_model(path, TENSORS[:1], {"run": "other"})
    assert read_metadata(path) == METADATA
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, (5).to_bytes(8, "little") + b"hello"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(TrainerError, match="no safetensors file"):
        read_metadata(path)


def test_a_model_that_is_cut_short_is_refused_and_the_tensor_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, TENSORS[:2], METADATA)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainerError, match="'half' is not whole"):
        read_tensors(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"absent\.safetensors: No such file"):
        read_metadata(tmp_path / "absent.safetensors")


def test_the_tensors_start_aligned(tmp_path: Path) -> None:
    for length in range(9):
        path = tmp_path / "model.safetensors"
        write_model(path, TENSORS[:1], {"run": "r" * length})
        assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 8 == 0


def test_dtypes_that_the_format_lacks_are_not_storable() -> None:
    assert model_file.storable("bfloat16")
    assert not model_file.storable("complex128")
