"""Offers survive the wire; what exceeds a limit does not pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import OversizeError
from adpsgd_node.ids import NodeId, RunId, SchemaHash
from adpsgd_node.wire import limits
from adpsgd_node.wire.model import (
    OfferRequest,
    OfferResponse,
    decode_offer_request,
    decode_offer_response,
    encode_offer_request,
    encode_offer_response,
)
from adpsgd_node.wire.v1 import model_pb2 as pb

SCHEMA = SchemaHash(b"s" * limits.SCHEMA_BYTES)
MOST = 2**64 - 1

refusals = st.builds(Refusal, st.sampled_from(RefusalReason), st.text(max_size=50))
totals = st.integers(0, limits.MAX_TOTAL)
offers = st.builds(
    OfferResponse,
    source=st.just(NodeId("n1", 7)),
    phase=st.sampled_from(Phase),
    has_model=st.booleans(),
    step=st.integers(0, MOST),
    refusal=st.none() | refusals,
    tensors=st.just(()) | st.just((TensorSpec("w", (2, 3), "float32", Segment.PARAMETERS),)),
    has_checkpoint=st.booleans(),
    checkpoint_steps=totals,
    checkpoint_samples=totals,
)


@given(offers)
def test_every_offer_survives_the_wire(offer: OfferResponse) -> None:
    assert decode_offer_response(encode_offer_response(offer)) == offer


def test_the_question_for_an_offer_survives_the_wire() -> None:
    request = OfferRequest(protocol=1, run_id=RunId("run"), schema=SCHEMA, source=NodeId("n1", 3), algorithm="d-psgd")
    assert decode_offer_request(encode_offer_request(request)) == request


def test_a_checkpoint_further_than_any_run_can_be_is_refused() -> None:
    offer = pb.OfferResponse(checkpoint_steps=limits.MAX_TOTAL + 1)
    offer.source.name, offer.source.phase = "n1", 1  # type: ignore[assignment]
    with pytest.raises(OversizeError, match="checkpoint_steps"):
        decode_offer_response(offer.SerializeToString())
