"""Logs are JSON, one event a line."""

import io
import json
import logging

import pytest
import structlog

from service_runtime import logs


@pytest.fixture
def stream():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    logs.configure("INFO", stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json(stream):
    """Name, level, time and fields stand in one object."""
    structlog.get_logger("oven").info("baked", num_loaves=3)

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"], line["num_loaves"]) == ("baked", "info", "oven", 3)
    assert line["timestamp"].endswith("Z")


def test_libraries_log_in_the_same_form(stream):
    """A library's plain logging arrives as JSON too."""
    logging.getLogger("library").warning("it is %s", "late")

    assert json.loads(stream.getvalue())["event"] == "it is late"


def test_a_traceback_stays_on_its_line_without_local_values(stream):
    """A traceback names places, never the values of variables."""
    secret = "zip 90210"
    try:
        raise ValueError("no")
    except ValueError as error:
        structlog.get_logger().error("internal_error", exc_info=error)

    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "ValueError: no" in json.loads(lines[0])["exception"]
    assert "90210" not in stream.getvalue()
    assert secret


def failed(error: Exception) -> Exception:
    """Returns an exception that was raised."""
    try:
        raise error
    except type(error) as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        KeyError("ripley"),
        RuntimeError("no user 'ripley' in \"ripley's ship\""),
        RuntimeError('<call that ended with:\n\tdetails = "no user ripley"\n>'),
        ExceptionGroup("two", [KeyError("ripley"), ValueError("'ripley' is none")]),
    ],
)
def test_what_an_exception_quotes_is_not_logged(stream, error):
    """The message of an exception often quotes the id that it was about; what kind it is and where stays."""
    structlog.get_logger().error("internal_error", exc_info=failed(error))

    exception = json.loads(stream.getvalue())["exception"]
    assert "ripley" not in exception
    assert type(error).__name__ in exception
    assert 'test_logs.py", line' in exception
    assert "raise error" in exception
