"""Says what an answer about a user is based on. Knows what is known of him and what a model makes use of; no vector."""

from enum import Enum

from two_tower.serving import Model


class Source(Enum):
    """What an answer is based on; see AnswerSource in the contract."""

    PERSONAL = 1
    FOLDED_IN = 2
    PROFILE = 3
    POPULAR = 4


def source_of(model: Model, *, is_trained: bool, has_history: bool, has_profile: bool) -> Source:
    """Returns what an answer rests on: never what the model makes no use of."""
    if is_trained:
        return Source.PERSONAL
    if model.uses_history and has_history:
        return Source.FOLDED_IN
    return Source.PROFILE if model.uses_profile and has_profile else Source.POPULAR
