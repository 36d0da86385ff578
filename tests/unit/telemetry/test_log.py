"""How log lines look, and how often repeated ones are written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from adpsgd_node.telemetry.log import MAX_VALUE_LENGTH, ROOT, EventLog, OncePer, set_up_logging


@pytest.fixture
def written() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    logger = logging.getLogger(ROOT)
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def test_plain_line_names_time_level_node_component_message_and_values(written: list[str]) -> None:
    set_up_logging("node-1", write=written.append)
    EventLog("exchange").warning("declined", peer="node-2", reason="too busy", distance=0.12345678, nothing="")
    time, _, rest = written[0].partition(" ")
    assert time.endswith("Z")
    assert rest == 'WARNING node-1 exchange: declined peer=node-2 reason="too busy" distance=0.123457 nothing=""'


def test_json_line_is_one_object_with_the_same_parts(written: list[str]) -> None:
    set_up_logging("node-1", as_json=True, write=written.append)
    EventLog("swim").info("member changed", member="node-2", steps=3, loss=float("nan"))
    entry = json.loads(written[0], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "INFO",
        "node": "node-1",
        "component": "swim",
        "message": "member changed",
        "fields": {"member": "node-2", "steps": 3, "loss": "nan"},
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_value_from_a_peer_cannot_forge_a_line_or_flood_the_log(written: list[str], as_json: bool) -> None:
    set_up_logging("node-1", as_json=as_json, write=written.append)
    EventLog("exchange").warning("100%s\n", detail="x\n2026-01-01 ERROR \x1b[31m" + "y" * 10_000)
    assert len(written) == 1
    assert written[0].isprintable()
    assert len(written[0]) < 2 * MAX_VALUE_LENGTH


def test_lower_levels_are_not_written(written: list[str]) -> None:
    set_up_logging("node-1", level="warning", write=written.append)
    log = EventLog("exchange")
    log.debug("not this")
    log.info("nor this")
    log.error("but this")
    assert len(written) == 1
    assert "but this" in written[0]


def test_setting_up_again_replaces_the_earlier_sink(written: list[str]) -> None:
    earlier: list[str] = []
    set_up_logging("node-1", write=earlier.append)
    set_up_logging("node-1", write=written.append)
    EventLog("exchange").info("once")
    assert earlier == []
    assert len(written) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_fault_of_our_own_is_written_with_its_traceback(written: list[str], as_json: bool) -> None:
    set_up_logging("node-1", as_json=as_json, write=written.append)
    try:
        raise RuntimeError("broken invariant")
    except RuntimeError as error:
        EventLog("exchange").exception("task failed", error, task="gossip")
    assert "task failed" in written[0]
    assert "Traceback" in written[0]
    assert "broken invariant" in written[0]


def test_unknown_level_is_refused(written: list[str]) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        set_up_logging("node-1", level="loud", write=written.append)


def once_per(interval_s: float, capacity: int = 8) -> Callable[[str, float], bool]:
    return OncePer(interval_s, capacity).due


def test_event_is_due_once_in_each_interval() -> None:
    due = once_per(10.0)
    assert due("a", 0.0)
    assert not due("a", 9.9)
    assert due("a", 10.0)
    assert not due("a", 19.9)


def test_events_of_different_keys_do_not_silence_each_other() -> None:
    due = once_per(10.0)
    assert due("a", 0.0)
    assert due("b", 0.0)


def test_full_table_forgets_the_longest_unused_key() -> None:
    due = once_per(10.0, capacity=2)
    due("a", 0.0)
    due("b", 1.0)
    due("a", 2.0)
    assert due("c", 3.0)
    assert not due("a", 4.0)
    assert due("b", 5.0)
