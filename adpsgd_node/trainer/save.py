"""Write the model that a run agreed on, every tensor of its `state_dict` included."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import torch
from torch import nn

from adpsgd_node.checkpoint.model_file import StoredTensor, write_model
from adpsgd_node.trainer.inventory import dtype_name
from adpsgd_node.wire.trainer import Agreed, Attached

__all__ = ["MODEL_FILE", "save_model", "stored_tensors"]

MODEL_FILE = "model.safetensors"


def save_model(folder: Path, model: nn.Module, attached: Attached, agreed: Agreed) -> Path:
    """Write `model.safetensors` to `folder` with the run's identity and progress; return its path."""
    tensors, aliases = stored_tensors(model)
    metadata = {
        "format": "pt",  # other tools ask for it before they load the file with torch
        "run": attached.run_id,
        "schema": attached.schema.hex(),
        "node": attached.node,
        "steps": str(agreed.steps_total),
        "samples": str(agreed.samples_total),
        "consensus_distance": f"{agreed.consensus_distance:.6g}",
        "version": importlib.metadata.version("adpsgd-node"),
        "aliases": json.dumps(aliases),
    }
    path = folder / MODEL_FILE
    write_model(path, tensors, metadata)
    return path


def stored_tensors(model: nn.Module) -> tuple[list[StoredTensor], dict[str, str]]:
    """Give all tensors of `state_dict` as bytes; a tied one once, its other names in the second result."""
    tensors: list[StoredTensor] = []
    aliases: dict[str, str] = {}
    first_names: dict[object, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            continue  # what get_extra_state() returns is no tensor; the file holds tensors only
        identity = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if value.numel() and identity in first_names:
            aliases[name] = first_names[identity]
            continue
        first_names[identity] = name
        tensors.append(_stored(name, value))
    return tensors, aliases


def _stored(name: str, value: torch.Tensor) -> StoredTensor:
    flat = value.detach().to("cpu").contiguous().reshape(-1)
    return StoredTensor(name, dtype_name(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy())
