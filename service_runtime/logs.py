"""Writes logs as JSON, one event a line, of exceptions without the texts that they quote. Knows no event."""

import logging
import re
import sys
from typing import TextIO

import structlog

_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
# Lines of a traceback that name a place and show its code, of groups of exceptions too.
_PLACE = re.compile(r'(?: *\| )? {2}(?: {2}(?! *[|+])|File ")')


def configure(level: str, stream: TextIO | None = None) -> None:
    """Sends every log line of the process, those of libraries too, to `stream` (default: standard error).

    A line holds `event`, `level`, `logger`, `timestamp` (UTC) and the fields of the event.

    Args:
        level: "DEBUG", "INFO", "WARNING" or "ERROR".
        stream: Where lines go.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Plain text: structlog's dictionaries of a traceback hold local variables, and so personal data.
        structlog.processors.format_exc_info,
        _without_quoted_values,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


def _without_quoted_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Takes quoted texts out of an exception's message: `KeyError: 'ripley'` names whoever was asked for."""
    if "exception" in event:
        lines = str(event["exception"]).split("\n")
        event["exception"] = "\n".join(line if _PLACE.match(line) else _QUOTED.sub("'...'", line) for line in lines)
    return event
