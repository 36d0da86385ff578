"""Find a codec by the name that `Open` carries or the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from adpsgd_node.codecs.bf16 import Bf16
from adpsgd_node.codecs.codec import Codec
from adpsgd_node.codecs.fp32 import Fp32
from adpsgd_node.core.exchange.frame import CodecName

__all__ = ["codec_named"]

_CODECS: Mapping[CodecName, Codec] = MappingProxyType({codec.name: codec for codec in (Fp32(), Bf16())})


def codec_named(name: CodecName) -> Codec:
    """Return the codec of this name; every `CodecName` has one."""
    return _CODECS[name]
