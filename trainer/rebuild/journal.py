"""Remembers how far a rebuild has come, and what the last ones came to. Knows one small file; starts nothing.

    <registry>/rebuild.json

It is replaced atomically after each step, so that a rebuild that was killed is found where it was: each step either
stands in the journal, or is done again.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.errors import TrainerError
from two_tower import strict_json
from two_tower.registry import Registry

FORMAT_VERSION = 1
MAX_RESULTS = 200
_NAME = "rebuild.json"


class JournalError(TrainerError):
    """The journal cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of the comparison; `gain` is above 0 where the new one is better, with its 95% interval."""

    metric: str
    new: float
    old: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A rebuild that has begun and not ended.

    Attributes:
        label: The label that it is for.
        model: What it trains, None for what the label names.
        options: What the fit is told, None for what the labelled one was told.
        forced: Why nothing is to be compared; empty if it is.
        started_at_ms: When it began.
        snapshot: What it trains on; None until that is durable.
        incumbent: What had the label when the snapshot was taken; None if nothing had.
        candidate: The checkpoint that is judged; None until it is written.
        compared_on: Which rows it was judged on, for a person; None until it was.
        figures: How it was judged.
        refitted: The checkpoint of all rows; None until it is written.
    """

    label: str
    model: str | None
    options: list[str] | None
    forced: str
    started_at_ms: int
    snapshot: str | None = None
    incumbent: str | None = None
    candidate: str | None = None
    compared_on: str | None = None
    figures: list[Figure]
    refitted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a rebuild came to.

    Attributes:
        outcome: One of `OUTCOMES`.
        reason: Why, for a person.
        label: The label that it was for.
        version: What has the label now; None if nothing has.
        started_at_ms: When it began.
        ended_at_ms: When it ended.
        snapshot: What it trained on; None if there was none.
        candidate: What was judged; None if nothing was.
        refitted: What was made of all rows; None if that was not done.
        num_rows: Rows of the snapshot.
        num_events: Events that came since the one before.
        num_deleted: Users who were forgotten.
        figures: How the candidate was judged.
    """

    outcome: str
    reason: str
    label: str
    version: str | None
    started_at_ms: int
    ended_at_ms: int
    snapshot: str | None
    candidate: str | None
    refitted: str | None
    num_rows: int
    num_events: int
    num_deleted: int
    figures: list[Figure]


OUTCOMES = ("promoted", "refused", "nothing_new", "failed")
"""The label moved; the gate held it back; there was too little to judge on; it could not be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that the journal says.

    Attributes:
        format_version: Always `FORMAT_VERSION`.
        run: What is under way, None if nothing is.
        results: Of the newest `MAX_RESULTS` rebuilds, oldest first.
    """

    format_version: int = FORMAT_VERSION
    run: Run | None
    results: list[Result]


class Journal:
    """The journal of one registry. Only who holds the rebuild lock writes it."""

    def __init__(self, registry: Registry) -> None:
        self.path: Path = registry.path / _NAME

    def read(self) -> Record:
        """Returns what it says; an absent one says nothing.

        Raises:
            JournalError: It is damaged or of another format.
        """
        try:
            fields = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Record(run=None, results=[])
        except (OSError, ValueError) as error:
            raise JournalError(f"{self.path} cannot be read ({error}); remove it to begin anew") from error
        problems: list[str] = []
        record = strict_json.decode(Record, fields, "journal", problems)
        if problems or record is None or record.format_version != FORMAT_VERSION:
            told = "; ".join(problems[:3]) or f"it is of another format than {FORMAT_VERSION}"
            raise JournalError(f"{self.path} is not understood ({told}); remove it to begin anew")
        assert isinstance(record, Record)
        return record

    def note(self, run: Run) -> Run:
        """Keeps how far a rebuild has come, and returns that."""
        self._write(replace(self.read(), run=run))
        return run

    def close(self, result: Result) -> Result:
        """Keeps what a rebuild came to, and returns that; nothing is under way any more."""
        before = self.read().results
        if (
            before
            and result.outcome == "failed"
            and (before[-1].outcome, before[-1].reason) == ("failed", result.reason)
        ):
            # Tried again and again for the same reason, it would push out what there was before.
            before = before[:-1]
        self._write(Record(run=None, results=[*before, result][-MAX_RESULTS:]))
        return result

    def _write(self, record: Record) -> None:
        aside = self.path.with_name(f".{_NAME}.partial-{os.getpid()}")
        with aside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(strict_json.encode(record), indent=1))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)
