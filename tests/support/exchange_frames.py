"""Hypothesis strategies for the frames of an exchange stream, within the limits of the wire."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from adpsgd_node.core.exchange.frame import (
    Abort,
    AbortReason,
    Accept,
    Chunk,
    Close,
    CodecName,
    Decline,
    DeclineReason,
    Frame,
    Open,
    Settle,
    Settled,
    SettleOutcome,
)
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.ids import MAX_BOOT, MAX_NAME_LENGTH, NodeId, RunId, SchemaHash
from adpsgd_node.wire import limits

__all__ = ["chunks", "frames", "settleds", "settles"]

counts = st.integers(0, 2**64 - 1)
totals = st.integers(0, limits.MAX_COUNT)
words = st.integers(0, 2**32 - 1)
chunk_counts = st.integers(0, limits.MAX_CHUNK_COUNT)
chunk_indices = st.integers(0, limits.MAX_CHUNK_COUNT - 1)
names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=MAX_NAME_LENGTH)
nodes = st.builds(NodeId, names, st.integers(0, MAX_BOOT))
progress = st.lists(st.builds(ProgressEntry, nodes, totals, totals), max_size=limits.MAX_PROGRESS_ENTRIES).map(tuple)

scales = st.one_of(st.just(1.0), st.floats(0.0, 1.0, exclude_min=True, width=32))

chunks = st.builds(Chunk, chunk_indices, chunk_counts, st.binary(max_size=300), scales)

opens = st.builds(
    Open,
    protocol=words,
    run_id=names.map(RunId),
    schema=st.binary(min_size=limits.SCHEMA_BYTES, max_size=limits.SCHEMA_BYTES).map(SchemaHash),
    initiator=nodes,
    responder=nodes,
    exchange_id=counts,
    codec=st.sampled_from(CodecName),
    chunk_bytes=st.integers(0, limits.MAX_CHUNK_BYTES),
    chunk_count=chunk_counts,
    step=counts,
    progress=progress,
    clip=st.floats(0.0, 2.0**20, width=32),
)

frames: st.SearchStrategy[Frame] = st.one_of(
    opens,
    st.builds(Accept, counts, progress),
    st.builds(Decline, st.sampled_from(DeclineReason), st.text(max_size=limits.MAX_DETAIL_LENGTH)),
    chunks,
    st.builds(Abort, st.sampled_from(AbortReason), chunk_indices),
    st.builds(Close, chunk_counts),
)

settles = st.builds(
    Settle, run_id=names.map(RunId), initiator=nodes, responder=nodes, exchange_id=counts, applied_through=chunk_counts
)
settleds = st.builds(Settled, st.sampled_from(SettleOutcome), chunk_counts)
