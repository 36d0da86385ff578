"""How a chunk of the plane becomes bytes: one codec a file, behind one contract."""

from adpsgd_node.codecs.choice import codec_named
from adpsgd_node.codecs.codec import Codec

__all__ = ["Codec", "codec_named"]
