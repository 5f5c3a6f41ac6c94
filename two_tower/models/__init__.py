"""Names the models. Imports one only when it is asked for, so that a process pays for the models that it uses."""

from importlib import import_module

from two_tower.errors import UnknownModelError
from two_tower.serving import Model

MODELS = {
    "two-tower": "two_tower.models.two_tower:TwoTower",
    "two-tower-history": "two_tower.models.two_tower_history:TwoTowerHistory",
    "marquee": "two_tower.models.marquee:Marquee",
    "content-fc": "two_tower.models.content_fc:ContentFc",
    "nn-collab": "two_tower.models.nn_collab:NnCollab",
    "nn-collab-genre": "two_tower.models.nn_collab:NnCollabGenre",
    "tfrs-simple": "two_tower.models.tfrs_simple:TfrsSimple",
    "tfrs-titles": "two_tower.models.tfrs_titles:TfrsTitles",
    "mf-centred": "two_tower.models.mf_centred:MfCentred",
    "dot-bias": "two_tower.models.dot_bias:DotBias",
    "dot-bias-genre": "two_tower.models.dot_bias_genre:DotBiasGenre",
    "random": "two_tower.models.chance:Random",
    "weighted": "two_tower.models.chance:Weighted",
    "majority": "two_tower.models.baselines:Majority",
    "mean": "two_tower.models.baselines:Mean",
    "bias": "two_tower.models.baselines:Bias",
    "popular": "two_tower.models.baselines:Popular",
    "item-knn": "two_tower.models.item_knn:ItemKnn",
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
