"""Sort a model's tensors: which are exchanged, which stay local, which cannot be taken.

Exchanged are parameters that require a gradient and persistent floating-point buffers (BatchNorm statistics). Frozen
parameters, integer buffers and buffers outside `state_dict` stay each node's own. Tied parameters count once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from adpsgd_node.checkpoint.model_file import storable
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import ModelError

__all__ = ["ExchangedTensor", "Inventory", "dtype_name", "take_inventory"]

_EXCHANGED_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExchangedTensor:
    """One tensor of the model that takes part in exchanges, and where the model keeps it."""

    spec: TensorSpec
    tensor: torch.Tensor
    owner: nn.Module
    slot: str
    """Attribute of `owner`; a buffer may be replaced there by a new tensor during training."""
    is_variance: bool
    """A running variance, which must not be below 0."""

    def current(self) -> torch.Tensor:
        """Give the tensor that stands in the slot now."""
        place = self.owner._buffers if self.spec.segment is Segment.BUFFERS else self.owner._parameters
        found = place.get(self.slot)
        if found is None:
            raise ModelError(
                f"{self.spec.name} was removed from the model after join(): change the model before joining"
            )
        return found

    def put_back(self) -> None:
        """Stand our tensor in the slot again, with the value of the buffer that had replaced it."""
        with torch.no_grad():
            self.tensor.copy_(self.current())
        self.owner._buffers[self.slot] = self.tensor


@dataclass(frozen=True, slots=True)
class Inventory:
    """What of a model is exchanged, in the order of `state_dict`, parameters first."""

    model: nn.Module
    exchanged: tuple[ExchangedTensor, ...]
    device: torch.device

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return tuple(entry.spec for entry in self.exchanged)

    @property
    def is_plain(self) -> bool:
        """Tell whether every exchanged tensor is fp32 on the CPU, so that it can live in the plane itself."""
        return self.device.type == "cpu" and all(entry.tensor.dtype is torch.float32 for entry in self.exchanged)


def take_inventory(model: nn.Module) -> Inventory:
    """Find what to exchange. Raises `ModelError` naming the first tensor that cannot be."""
    model = getattr(model, "_orig_mod", model)  # torch.compile wraps: its prefix must not enter the schema
    entries = (*_parameters(model), *_buffers(model))
    if not any(entry.spec.segment is Segment.PARAMETERS for entry in entries):
        raise ModelError("the model has no parameter that requires a gradient: there is nothing to exchange")
    _check_stored(model)
    _check_aliases(entries)
    return Inventory(model, entries, _one_device(entries))


def dtype_name(dtype: torch.dtype) -> str:
    """Give a dtype's name as the schema writes it: `float32`."""
    return str(dtype).removeprefix("torch.")


def _parameters(model: nn.Module) -> Iterator[ExchangedTensor]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            _check_tensor(name, parameter)
            if parameter.dtype not in _EXCHANGED_DTYPES:
                raise ModelError(
                    f"parameter {name} is {dtype_name(parameter.dtype)}, which cannot be averaged: "
                    "train in float32, bfloat16, float16 or float64, or freeze it with requires_grad_(False)"
                )
            yield _entry(model, name, parameter, Segment.PARAMETERS)


def _buffers(model: nn.Module) -> Iterator[ExchangedTensor]:
    persistent = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        if persistent.get(name) is not buffer or buffer.dtype not in _EXCHANGED_DTYPES:
            continue
        _check_tensor(name, buffer)
        if not bool(torch.isfinite(buffer).all()):  # e.g. an attention mask of -inf: the average of two is NaN
            _log.warning("buffer %s is not finite and stays local: it is not averaged", name)
            continue
        yield _entry(model, name, buffer, Segment.BUFFERS)


def _entry(model: nn.Module, name: str, tensor: torch.Tensor, segment: Segment) -> ExchangedTensor:
    path, _, slot = name.rpartition(".")
    owner = model.get_submodule(path)
    spec = TensorSpec(name, tuple(tensor.shape), dtype_name(tensor.dtype), segment)
    is_variance = slot == "running_var" and isinstance(owner, nn.modules.batchnorm._NormBase)
    return ExchangedTensor(spec, tensor, owner, slot, is_variance)


def _check_tensor(name: str, tensor: torch.Tensor) -> None:
    if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        raise ModelError(f"{name} has no shape yet (a lazy module): run one forward pass before join()")
    if type(tensor.data) is not torch.Tensor:
        raise ModelError(
            f"{name} is a {type(tensor.data).__name__}: a node holds one whole replica of plain tensors, "
            "so join() the unsharded, unquantized model"
        )
    if tensor.layout is not torch.strided:
        raise ModelError(f"{name} is sparse ({tensor.layout}): make it dense before join()")
    if tensor.device.type not in ("cpu", "cuda"):
        raise ModelError(f"{name} is on device {tensor.device}: move the model to the CPU or a CUDA device")


def _check_stored(model: nn.Module) -> None:
    """Refuse now what `finish` could not write then."""
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor) and not storable(dtype_name(value.dtype)):
            raise ModelError(
                f"{name} is {dtype_name(value.dtype)}, which a model file cannot hold: "
                "convert it, or register it with persistent=False"
            )


def _check_aliases(entries: Sequence[ExchangedTensor]) -> None:
    """Refuse tensors that overlap in memory: moved into the plane each by itself, they would part for good."""
    spans = sorted((*_span(entry.tensor), entry.spec.name) for entry in entries if entry.tensor.numel())
    reach, holder = 0, ""
    for start, stop, name in spans:
        if start < reach:
            raise ModelError(
                f"{name} and {holder} share memory but are two tensors: "
                "tie them by using one Parameter for both, or clone one of them"
            )
        reach, holder = stop, name


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Give the addresses [first, last) that a strided tensor touches."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size()


def _one_device(entries: Sequence[ExchangedTensor]) -> torch.device:
    first = entries[0]
    for entry in entries:
        if entry.tensor.device != first.tensor.device:
            raise ModelError(
                f"{entry.spec.name} is on {entry.tensor.device} and {first.spec.name} on {first.tensor.device}: "
                "one node trains on one device; move the whole model to it"
            )
    return first.tensor.device
