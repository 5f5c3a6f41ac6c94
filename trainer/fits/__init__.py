"""Names the fits: how each model is made from data. Imports one only when it is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from trainer.dataset import Dataset
from two_tower.errors import UnknownModelError
from two_tower.serving import Model

FITS = {
    "two-tower": "trainer.fits.two_tower",
    "two-tower-history": "trainer.fits.two_tower_history",
    "marquee": "trainer.fits.marquee",
    "content-fc": "trainer.fits.content_fc",
    "nn-collab": "trainer.fits.nn_collab",
    "nn-collab-genre": "trainer.fits.nn_collab_genre",
    "tfrs-simple": "trainer.fits.tfrs_simple",
    "tfrs-titles": "trainer.fits.tfrs_titles",
    "mf-centred": "trainer.fits.mf_centred",
    "dot-bias": "trainer.fits.dot_bias",
    "dot-bias-genre": "trainer.fits.dot_bias_genre",
    "random": "trainer.fits.random",
    "weighted": "trainer.fits.weighted",
    "majority": "trainer.fits.majority",
    "mean": "trainer.fits.mean",
    "bias": "trainer.fits.bias",
    "popular": "trainer.fits.popular",
    "item-knn": "trainer.fits.item_knn",
}
"""Model name → module with `Options`, a frozen dataclass whose every field has a default, and `fit`."""

_PLANS = {"marquee": "trainer.fits.marquee_memory"}
"""Model name → module with `fit_to_machine`, where the fit takes more memory than its data."""


class Progress(Protocol):
    """Is told how far a fit has come."""

    def __call__(self, done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
        """Reports that `done` of `total` steps are made; the message says what is going on and how well.

        `figures` are losses and metrics by name ("training mse", "validation rmse"): their curves are drawn in the
        report of a training. Hand them over by position; a figure need not be in every call.
        """


class FitFunction(Protocol):
    """Makes a model."""

    def __call__(self, data: Dataset, options: Any, *, seed: int, progress: Progress) -> Model:
        """Fits a model to a data set.

        Args:
            data: Its interactions are the training rows and nothing else; users and movies are all of the files.
            options: An instance of the fit's `Options`.
            seed: All chance comes from it; the same seed gives the same model on the same machine.
            progress: Told at least once an epoch.
        """


@dataclass(frozen=True, slots=True)
class Fit:
    """How one model is made.

    Attributes:
        options_class: Its options.
        fit: Makes it.
        keeps_state: Whether `fit` takes a `state` (`trainer.fits.training_state`) to be resumed from.
        in_processes: Whether it trains in several processes that torchrun started.
        fit_to_machine: Changes options so that a fit to a data set stays within this machine's memory, and says what
            it changed, one sentence each; None for a model whose memory is that of its data.
    """

    options_class: type[Any]
    fit: FitFunction
    keeps_state: bool = False
    in_processes: bool = False
    fit_to_machine: Callable[[Dataset, Any], tuple[Any, tuple[str, ...]]] | None = None


def silent(done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
    """A `Progress` that nobody sees."""


def fit_function(name: str) -> Fit:
    """Returns how a model is made.

    Raises:
        UnknownModelError: No model has this name.
    """
    if name not in FITS:
        raise UnknownModelError(f"there is no model {name!r}; the models are {', '.join(sorted(FITS))}")
    module = import_module(FITS[name])
    fit: Callable[..., Model] = module.fit
    plan = import_module(_PLANS[name]).fit_to_machine if name in _PLANS else None
    return Fit(module.Options, fit, getattr(module, "KEEPS_STATE", False), getattr(module, "IN_PROCESSES", False), plan)
