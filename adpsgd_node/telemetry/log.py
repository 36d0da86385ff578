"""Write one line per event: `TIME LEVEL node component: message key=value`, or one JSON object.

    log = EventLog("exchange")
    log.warning("declined", peer="node-2", reason="busy")
    # 2026-03-01T12:00:00.123Z WARNING node-1 exchange: declined peer=node-2 reason=busy

Values may come from peers: control characters are escaped and long values cut, so that no value forges a line.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime

__all__ = ["EventLog", "OncePer", "set_up_logging"]

ROOT = "adpsgd_node"
"""Every logger of this project is a child of this one; the root logger stays the user's."""

MAX_VALUE_LENGTH = 500
"""Characters of one value (or message) in a line; the rest is cut and marked with `...`."""

MAX_ONCE_KEYS = 1024
"""Keys a `OncePer` remembers unless told otherwise; beyond it the longest unused is forgotten."""


class EventLog:
    """Log messages with named values; `component` says which part of the daemon speaks."""

    def __init__(self, component: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{component}")

    def debug(self, message: str, /, **fields: object) -> None:
        self._emit(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._emit(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._emit(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._emit(logging.ERROR, message, fields)

    def exception(self, message: str, error: BaseException, /, **fields: object) -> None:
        """Log a fault of our own with its traceback."""
        self._emit(logging.ERROR, message, fields, error)

    def _emit(self, level: int, message: str, fields: Mapping[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            # "%s" keeps a percent sign in the message from being read as a placeholder.
            self._logger.log(level, "%s", message, extra={"fields": fields}, exc_info=error)


class OncePer:
    """Tell whether an event is due: the first of its key in every `interval_s`. Bounded; time is handed in."""

    def __init__(self, interval_s: float, capacity: int = MAX_ONCE_KEYS) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity}: a OncePer remembers at least one key")
        self._interval_s = interval_s
        self._capacity = capacity
        self._last: OrderedDict[Hashable, float] = OrderedDict()

    def due(self, key: Hashable, now: float) -> bool:
        """Answer True and remember `now` unless `key` was due less than `interval_s` ago."""
        last = self._last.get(key)
        if last is not None and now - last < self._interval_s:
            self._last.move_to_end(key)
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > self._capacity:
            self._last.popitem(last=False)
        return True


class _Plain(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {self._node} {_component(record)}: {_one_line(record.getMessage())}"
        for key, value in _fields(record).items():
            line += f" {key}={_plain_value(value)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "node": self._node,
            "component": _component(record),
            "message": _cut(record.getMessage()),
        }
        fields = {key: _json_value(value) for key, value in _fields(record).items()}
        if fields:
            entry["fields"] = fields
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class _Lines(logging.Handler):
    """Hand each formatted record to a sink that does not block, such as `LineWriter.error`."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:
            self.handleError(record)


def set_up_logging(
    node: str, *, level: str = "INFO", as_json: bool = False, write: Callable[[str], None] | None = None
) -> None:
    """Send this project's log to `write`, one line a call without its newline (default: stderr).

    Replaces what an earlier call set up. Raises `ValueError` for an unknown level.
    """
    handler = logging.StreamHandler() if write is None else _Lines(write)
    handler.setFormatter(_Json(node) if as_json else _Plain(node))
    logger = logging.getLogger(ROOT)
    logger.setLevel(level.upper())
    logger.propagate = False
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _component(record: logging.LogRecord) -> str:
    return record.name.rpartition(".")[2]


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else text[:MAX_VALUE_LENGTH] + "..."


def _one_line(text: str) -> str:
    text = _cut(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _plain_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _one_line(str(value))
    return text if text and not set(' "=') & set(text) else json.dumps(text, ensure_ascii=False)


def _json_value(value: object) -> object:
    # NaN and infinity are no JSON; they become their names.
    if isinstance(value, bool | int) or value is None or (isinstance(value, float) and value - value == 0.0):
        return value
    return _cut(str(value))
