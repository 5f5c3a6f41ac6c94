"""Tells what rebuilds come to, as metrics. Knows the journal; knows no step of a rebuild."""

import time

from service_runtime.metrics import Metrics, Numbers
from trainer.rebuild.journal import OUTCOMES, Journal, Record
from trainer.rebuild.service import due_ms

STEPS = ("waiting", "reading", "training", "comparing", "refitting")


class RebuildMeasures:
    """Metrics of the process that rebuilds; what ended is read from the journal, so it outlives a restart."""

    def __init__(self, metrics: Metrics, journal: Journal, every_s: float) -> None:
        """Defines the metrics."""
        self._journal = journal
        self._every_s = every_s
        self._step = STEPS[0]
        self._ended = metrics.counter("rebuilds", "Rebuilds that ended in this process, by outcome.", ["outcome"])
        for outcome in OUTCOMES:
            self._ended.labels(outcome)
        metrics.gauge_of("rebuild_step", "1 for what the rebuild does now.", self._steps, ["step"])
        metrics.gauge_of(
            "rebuild_end_timestamp_seconds", "When the last rebuild of each outcome ended.", self._ends, ["outcome"]
        )
        metrics.gauge_of("rebuild_duration_seconds", "How long the last rebuild took.", self._duration)
        metrics.gauge_of("rebuild_overdue_seconds", "How long the next rebuild is overdue; 0 if it is not.", self._late)
        metrics.gauge_of("rebuild_snapshot_rows", "Rows of the newest snapshot that was trained on.", self._rows)
        metrics.gauge_of(
            "rebuild_quality", "What the last comparison measured, of both models.", self._quality, ["metric", "model"]
        )

    def step(self, name: str) -> None:
        """Takes note of what is done now, one of `STEPS`."""
        self._step = name

    def ended(self, outcome: str) -> None:
        """Counts a rebuild."""
        self._ended.labels(outcome).inc()

    def _record(self) -> Record:
        return self._journal.read()

    def _steps(self) -> Numbers:
        return {(step,): float(step == self._step) for step in STEPS}

    def _ends(self) -> Numbers:
        return {(result.outcome,): result.ended_at_ms / 1000 for result in self._record().results}

    def _duration(self) -> Numbers:
        results = self._record().results
        return {(): (results[-1].ended_at_ms - results[-1].started_at_ms) / 1000} if results else {}

    def _late(self) -> Numbers:
        if self._step != STEPS[0]:
            return {(): 0.0}
        return {(): max(0.0, time.time() - due_ms(self._record(), self._every_s) / 1000)}

    def _rows(self) -> Numbers:
        with_rows = [result.num_rows for result in self._record().results if result.snapshot is not None]
        return {(): float(with_rows[-1])} if with_rows else {}

    def _quality(self) -> Numbers:
        compared = [result.figures for result in self._record().results if result.figures]
        figures = compared[-1] if compared else []
        return {
            (each.metric, model): value for each in figures for model, value in (("new", each.new), ("old", each.old))
        }
