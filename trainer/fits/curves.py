"""Keeps the losses and metrics that a fit reports, for the report's curves. Knows numbers and names; knows no fit."""

import math
from collections.abc import Mapping

from trainer.errors import DivergedError
from trainer.fits import Progress


class CurveRecorder:
    """A `Progress` that passes everything on and keeps the figures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.curves: dict[str, list[tuple[float, float]]] = {}
        """Figure name → (share of the training that was done, value), in the order reported."""

    def __call__(self, done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
        """Keeps the figures and passes the report on.

        Raises:
            DivergedError: A figure is not finite: what is trained from there on is worth nothing.
        """
        for name, value in (figures or {}).items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"training stopped at {message!r}: {name} is {value}; no checkpoint was written, those that exist "
                    "are untouched. Try a smaller learning rate (--set learning_rate=...)"
                )
            self.curves.setdefault(name, []).append((done / max(total, 1), float(value)))
        self._progress(done, total, message, figures)
