"""Says what an answer about a user is based on. Knows what is known of him and what a model makes use of; no vector."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from two_tower.serving import Model
from two_tower.user_columns import UserColumns


class Source(IntEnum):
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


def sources_of(model: Model, users: UserColumns) -> list[Source]:
    """Returns what the answer about each user rests on. [B]."""
    trained = model.knows_users(list(users.user_ids))
    lengths, profiles = np.diff(users.histories.offsets), users.profiles
    return [
        source_of(
            model,
            is_trained=bool(trained[b]),
            has_history=bool(lengths[b]),
            has_profile=(profiles.genders[b], profiles.occupations[b]) != (None, None)
            or not np.isnan(profiles.ages[b]),
        )
        for b in range(len(users))
    ]


def are_popular(sources: Sequence[Source]) -> NDArray[np.bool_]:
    """Tells which answers rest on nothing but what is popular. bool [B]."""
    return np.array([source is Source.POPULAR for source in sources], np.bool_)
