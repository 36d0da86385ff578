"""Check fields that came from outside, each against its named limit, and convert those that many messages share."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TypeVar

from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.errors import OversizeError, WireError
from adpsgd_node.ids import MAX_BOOT, NodeId, RunId, SchemaHash, valid_name
from adpsgd_node.wire import limits
from adpsgd_node.wire.v1 import membership_pb2

__all__ = [
    "at_most",
    "chosen",
    "line",
    "node_id",
    "progress_from_proto",
    "progress_to_proto",
    "run_id",
    "schema_hash",
    "short_text",
    "word",
]

_SHOWN_CHARACTERS = 80

Choice = TypeVar("Choice", bound=enum.IntEnum)


def node_id(name: str, boot: int, field: str) -> NodeId:
    if not valid_name(name):
        raise WireError(f"{field}: {name[:_SHOWN_CHARACTERS]!r} is no valid node name")
    return NodeId(name, at_most(boot, MAX_BOOT, f"boot of {field}"))


def run_id(text: str) -> RunId:
    if not valid_name(text):
        raise WireError(f"run_id: {text[:_SHOWN_CHARACTERS]!r} is no valid run id")
    return RunId(text)


def word(text: str, field: str) -> str:
    """Accept what could be a name: it is shown to people."""
    if not valid_name(text):
        raise WireError(f"{field}: {text[:_SHOWN_CHARACTERS]!r} is no valid {field}")
    return text


def line(text: str, field: str) -> str:
    """Accept one line of text, not empty: it is shown to people."""
    if not text or not text.isprintable():
        raise WireError(f"{field}: {text[:_SHOWN_CHARACTERS]!r} is no line of text")
    return short_text(text, field)


def schema_hash(data: bytes) -> SchemaHash:
    if len(data) != limits.SCHEMA_BYTES:
        raise WireError(f"schema: expected {limits.SCHEMA_BYTES} bytes, got {len(data)}")
    return SchemaHash(data)


def at_most(value: int, limit: int, field: str) -> int:
    if value > limit:
        raise OversizeError(f"{field}: {value} exceeds the limit of {limit}")
    return value


def short_text(text: str, field: str) -> str:
    at_most(len(text), limits.MAX_DETAIL_LENGTH, f"length of {field}")
    return text


def chosen(choices: type[Choice], number: int, field: str) -> Choice:
    """Convert an enum's number; 0 (unspecified) and numbers of a later schema are refused."""
    try:
        return choices(number)
    except ValueError:
        raise WireError(f"{field}: {number} is none of {', '.join(choice.name for choice in choices)}") from None


def progress_to_proto(entries: Sequence[ProgressEntry]) -> list[membership_pb2.ProgressEntry]:
    assert len(entries) <= limits.MAX_PROGRESS_ENTRIES, f"{len(entries)} progress entries in one frame"
    return [
        membership_pb2.ProgressEntry(
            name=entry.node.name, boot=entry.node.boot, steps=entry.steps, samples=entry.samples
        )
        for entry in entries
    ]


def progress_from_proto(entries: Iterable[membership_pb2.ProgressEntry], count: int) -> tuple[ProgressEntry, ...]:
    at_most(count, limits.MAX_PROGRESS_ENTRIES, "progress entries")
    return tuple(
        ProgressEntry(
            node_id(entry.name, entry.boot, "progress"),
            at_most(entry.steps, limits.MAX_COUNT, "steps"),
            at_most(entry.samples, limits.MAX_COUNT, "samples"),
        )
        for entry in entries
    )
