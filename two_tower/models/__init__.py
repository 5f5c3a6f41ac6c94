"""Names the models. Imports one only when it is asked for, so that a process pays for the models that it uses."""

from importlib import import_module

from two_tower.errors import UnknownModelError
from two_tower.serving import Model

MODELS = {
    "two-tower-history": "two_tower.models.two_tower_history:TwoTowerHistory",
    "marquee": "two_tower.models.marquee:Marquee",
}
"""Model name → "module:class"."""


def model_class(name: str) -> type[Model]:
    """Returns the class of a model.

    Raises:
        UnknownModelError: No model has this name.
    """
    if name not in MODELS:
        raise UnknownModelError(f"there is no model {name!r}; the models are {', '.join(sorted(MODELS))}")
    module, _, attribute = MODELS[name].partition(":")
    found: type[Model] = getattr(import_module(module), attribute)
    return found
