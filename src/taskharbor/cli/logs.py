"""Logging of a worker process: standard error, one line a record, as text or as JSON.

In text a traceback follows its line, indented; in JSON it is a field. What is logged holds no payloads.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
import typer

from taskharbor.cli.output import plain


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on records are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def log_level(text: str) -> LogLevel:
    """Return a level from its name, in capitals or not; `warn` is one, as in logging itself.

    Raises:
        BadParameter: there is no such level.
    """
    name = text.lower()
    try:
        return LogLevel("warning" if name == "warn" else name)
    except ValueError as error:
        levels = [level.value for level in LogLevel]
        raise typer.BadParameter(
            f"{text!r} is no level; expected {', '.join(levels[:-1])} or {levels[-1]}"
        ) from error


def configure_logging(level: LogLevel, form: LogFormat, process: str) -> None:
    """Send the records of all loggers to standard error.

    `process` tells the processes of one supervisor apart; "" where there is but one.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if form is LogFormat.JSON else TextLines(process))
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


class TextLines(logging.Formatter):
    """A record as a line of text."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = f" [{process}]" if process else ""

    def format(self, record: logging.LogRecord) -> str:
        told = (
            f"{_time(record)} {record.levelname}{self._process} {record.name}: {plain(record.getMessage())}"
        )
        if record.exc_info:
            trace = plain(self.formatException(record.exc_info), lines=True)
            told += "".join(f"\n    {text}" for text in trace.splitlines())
        return told


class JsonLines(logging.Formatter):
    """A record as a line of JSON."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._process:
            told["process"] = self._process
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()
