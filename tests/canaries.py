"""A pytest plugin: what callers send of users, titles and tokens during the whole run is in no log and no error.

Every request that a service of ours reads in this process is looked through for user ids and titles, every call for its
token. Of these the scanner remembers what is long enough to be told from other words. After each test it looks for them
in what was logged and in every error that was sent to a caller; a test in which one appears fails.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2

from service_runtime import behaviours
from service_runtime.calls import Call, parse, read_call, translate
from service_runtime.security import Caller

_SECRET_FIELDS = frozenset({"user_id", "user_ids", "title"})
# A word that may stand in a log for other reasons says nothing; an id with a digit or of some length does.
_TELLING = re.compile(r"(?=.*\d).{6,}|.{12,}", re.DOTALL)
# Of a thousand ids of a request some are as good as all, and the newest are those that a test may tell of.
_VALUES_A_FIELD = 20
_VALUES = 5000
_LOG_LINE = re.compile(r"^(\{|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)")


class Scanner:
    """Remembers what must not come back, and finds it."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.planted: dict[str, None] = {}
        self.leaks: list[str] = []

    def plant(self, value: str) -> None:
        """Remembers a value, if it can be told from other words."""
        if _TELLING.fullmatch(value):
            self.planted[value] = None
            if len(self.planted) > _VALUES:
                del self.planted[next(iter(self.planted))]

    def plant_request(self, message: Message) -> None:
        """Remembers the user ids and titles of a request."""
        for field, value in message.ListFields():
            if field.message_type is not None:
                if field.message_type.GetOptions().map_entry:
                    continue
                for part in value[:_VALUES_A_FIELD] if field.is_repeated else [value]:
                    self.plant_request(part)
            elif field.name in _SECRET_FIELDS:
                for text in value[:_VALUES_A_FIELD] if field.is_repeated else [value]:
                    self.plant(text)

    def scan(self, text: str, where: str) -> None:
        """Notes what was planted and is in a text."""
        for value in self.planted:
            place = text.find(value)
            if place >= 0:
                self.leaks.append(f"{value!r} in {where}: {text[max(0, place - 300) : place + 300]}")


SCANNER = Scanner()


@pytest.fixture(scope="session", autouse=True)
def _canaries_are_planted() -> Iterator[None]:
    """Looks at each call that a service in this process takes, and at each error that it sends."""
    patch = pytest.MonkeyPatch()

    def watched_read_call(path: str, context: Any, callers: Any) -> tuple[Call, Caller]:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                SCANNER.plant(str(value).partition(" ")[2])
        return read_call(path, context, callers)

    def watched_parse(request_type: type[Message], payload: bytes) -> Message:
        request = parse(request_type, payload)
        SCANNER.plant_request(request)
        return request

    def watched_translate(error: Exception, call: Call) -> status_pb2.Status:
        status = translate(error, call)
        SCANNER.scan(str(status), f"an error of {call.method}")
        return status

    patch.setattr(behaviours, "read_call", watched_read_call)
    patch.setattr(behaviours, "parse", watched_parse)
    patch.setattr(behaviours, "translate", watched_translate)
    yield
    patch.undo()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Fails a test at its end if what it logged, or an error that it caused, holds what a caller sent."""
    report = yield
    if call.when == "teardown":
        for name, text in report.sections:
            logged = [line for line in text.splitlines() if _LOG_LINE.match(line) or "log" in name]
            SCANNER.scan("\n".join(logged), "a log line")
        leaks, SCANNER.leaks = SCANNER.leaks, []
        if leaks and report.passed:
            report.outcome = "failed"
            report.longrepr = "what a caller sent came back:\n" + "\n".join(leaks[:10])
    return report
