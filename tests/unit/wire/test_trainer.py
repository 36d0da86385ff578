from __future__ import annotations

import pytest

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import WireError
from adpsgd_node.ids import RunId, SchemaHash
from adpsgd_node.wire import trainer as wire
from adpsgd_node.wire.v1 import model_pb2, trainer_pb2

TENSORS = (
    TensorSpec("conv.weight", (3, 1, 5), "bfloat16", Segment.PARAMETERS),
    TensorSpec("scale", (), "float32", Segment.PARAMETERS),
    TensorSpec("norm.running_mean", (3,), "float32", Segment.BUFFERS),
)

FRAMES: list[wire.TrainerFrame] = [
    wire.Attach(pid=12, tensors=TENSORS, dataset_size=1797),
    wire.Attached(
        daemon_pid=7,
        node="n0",
        run_id=RunId("run"),
        schema=SchemaHash(bytes(range(32))),
        chunk_bytes=1 << 20,
        resumed=True,
        output="out/n0",
        state_folder="out/n0/checkpoints/.trainer",
    ),
    wire.Ready(),
    wire.Go(adopted=True, donor="n1", restore="out/n0/checkpoints/000003/trainer.pt"),
    wire.Go(),
    wire.Settle(),
    wire.Agreed(consensus_distance=1e-4, steps_total=9, samples_total=1 << 40, members=4),
    wire.Saved("out/n0/model.safetensors"),
    wire.Failed("SchemaMismatchError", "tensor 0 differs: train the same model"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_every_frame_survives_the_wire(frame: wire.TrainerFrame) -> None:
    assert wire.decode(wire.encode(frame)) == frame
    packed = wire.pack(frame)
    assert wire.frame_length(packed[: wire.LENGTH_BYTES]) == len(packed) - wire.LENGTH_BYTES
    assert wire.decode(packed[wire.LENGTH_BYTES :]) == frame


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(WireError, match="no TrainerFrame"):
        wire.decode(b"\xff\xff\xff\xff")


def test_a_frame_of_a_later_version_is_refused() -> None:
    with pytest.raises(WireError, match="different versions"):
        wire.decode(b"\x9a\x06\x00")  # field 99


def test_a_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(WireError, match="exceeds the limit"):
        wire.frame_length((wire.MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


def test_a_schema_of_another_length_is_refused() -> None:
    message = trainer_pb2.TrainerFrame(attached=trainer_pb2.Attached(run_id="run", schema=b"short"))
    with pytest.raises(WireError, match="schema"):
        wire.decode(message.SerializeToString())


def test_an_unknown_segment_is_refused_and_the_tensor_named() -> None:
    message = trainer_pb2.TrainerFrame()
    message.attach.tensors.append(model_pb2.TensorSpec(name="w"))
    with pytest.raises(WireError, match="tensor w"):
        wire.decode(message.SerializeToString())


def test_more_dimensions_than_allowed_are_refused() -> None:
    message = trainer_pb2.TrainerFrame()
    message.attach.tensors.append(model_pb2.TensorSpec(name="w", shape=[1] * 33, segment=model_pb2.SEGMENT_BUFFERS))
    with pytest.raises(WireError, match="dimensions of tensor w"):
        wire.decode(message.SerializeToString())


def test_a_long_detail_is_cut_rather_than_lost() -> None:
    frame = wire.decode(wire.encode(wire.Failed("JoinError", "ü" * wire.MAX_TEXT_BYTES)))
    assert isinstance(frame, wire.Failed)
    assert frame.detail == "ü" * (wire.MAX_TEXT_BYTES // 2)
