"""Questions and answers about a world survive the wire; what is wrong or too long does not pass."""

from __future__ import annotations

import pytest

from adpsgd_node.core.algorithms.world import MAX_WORLD
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.errors import OversizeError, WireError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.wire import world as wire
from adpsgd_node.wire.v1 import model_pb2 as pb

N0, N1 = NodeId("n0", 3), NodeId("n1", 4)


def test_a_request_survives() -> None:
    request = wire.WorldRequest(protocol=1, run_id=RunId("r"), source=N0, size=4)
    assert wire.decode_world_request(wire.encode_world_request(request)) == request


@pytest.mark.parametrize(
    "response",
    [
        wire.WorldResponse(source=N0, size=0),
        wire.WorldResponse(source=N0, size=2, members=(N0, N1), rendezvous=Address("[::1]:7400")),
        wire.WorldResponse(source=N0, size=2, refusal=Refusal(RefusalReason.RUN, "another run")),
    ],
)
def test_a_response_survives(response: wire.WorldResponse) -> None:
    assert wire.decode_world_response(wire.encode_world_response(response)) == response


def message(**changed: object) -> pb.WorldResponse:
    fields = {"members": [{"name": "n0", "boot": 3}], "rendezvous": "h:1", **changed}
    return pb.WorldResponse(source={"name": "n0", "boot": 3}, size=1, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"rendezvous": ""}, "a world of 1 members with rendezvous ''"),
        ({"members": []}, "a world of 0 members with rendezvous 'h:1'"),
        ({"rendezvous": "h"}, "is no address"),
        ({"rendezvous": "h:0"}, "'h:0' is no address to dial"),
        ({"rendezvous": "h\x00:1"}, "is no address to dial"),
        ({"members": [{"name": "n0"}, {"name": "n0", "boot": 1}]}, "a name stands twice"),
        ({"members": [{"name": "no/name"}]}, "is no valid node name"),
        ({"refusal": {"reason": 0}}, "refusal reason: 0 is none of"),
    ],
)
def test_a_response_that_cannot_be_is_refused(changed: dict[str, object], text: str) -> None:
    assert wire.decode_world_response(message().SerializeToString())
    with pytest.raises(WireError, match=text):
        wire.decode_world_response(message(**changed).SerializeToString())


@pytest.mark.parametrize(
    "changed",
    [
        {"rendezvous": "h" * 300 + ":1"},
        {"members": [{"name": f"n{number}"} for number in range(MAX_WORLD + 1)]},
    ],
)
def test_what_is_too_long_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(OversizeError):
        wire.decode_world_response(message(**changed).SerializeToString())


@pytest.mark.parametrize("data", [b"\xff", b"x" * (1 << 20)])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    for decode in (wire.decode_world_request, wire.decode_world_response):
        with pytest.raises(WireError):
            decode(data)
