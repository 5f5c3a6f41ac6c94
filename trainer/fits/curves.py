"""Keeps the losses and metrics that a fit reports, for the report's curves. Knows numbers and names; knows no fit.

A fit hands figures over with its progress. The loop of one stage deep inside a fit of many knows no overall progress:
it says `tell`, and whoever records the fit keeps the figure where progress stood last.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from trainer.errors import DivergedError
from trainer.fits import Progress


class CurveRecorder:
    """A `Progress` that passes everything on and keeps the figures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._share, self._message = 0.0, ""
        self.curves: dict[str, list[tuple[float, float]]] = {}
        """Figure name → (share of the training that was done, value), in the order reported."""

    def __call__(self, done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
        """Keeps the figures and passes the report on.

        Raises:
            DivergedError: A figure is not finite: what is trained from there on is worth nothing.
        """
        self._share, self._message = done / max(total, 1), message
        for name, value in (figures or {}).items():
            self.keep(name, value)
        self._progress(done, total, message, figures)

    def keep(self, name: str, value: float) -> None:
        """Keeps one figure where progress stood last.

        Raises:
            DivergedError: It is not finite.
        """
        if not math.isfinite(value):
            raise DivergedError(
                f"training stopped at {self._message!r}: {name} is {value}; no checkpoint was written, those that "
                "exist are untouched. A smaller learning rate would be the first thing to try"
            )
        self.curves.setdefault(name, []).append((self._share, float(value)))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears what is told while a fit runs."""
        token = _listener.set(self)
        try:
            yield
        finally:
            _listener.reset(token)


_listener: ContextVar[CurveRecorder | None] = ContextVar("curve_recorder", default=None)


def tell(name: str, value: float) -> None:
    """Hands a figure to whoever records the fit that runs, if anybody does.

    Raises:
        DivergedError: It is not finite, and somebody listens.
    """
    recorder = _listener.get()
    if recorder is not None:
        recorder.keep(name, value)
