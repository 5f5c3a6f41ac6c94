"""Refuses data whose users lack demographics, for who would rather know. Knows profiles; knows no model."""

import numpy as np

from trainer.dataset import Dataset
from trainer.errors import DataError


def require_profiles(data: Dataset) -> None:
    """Checks that gender, age and occupation of every user with an interaction are known.

    Raises:
        DataError: They are not; says of how many users which is missing.
    """
    users = np.unique(data.interactions.user_rows).tolist()
    missing = {
        "gender": sum(not data.profiles.genders[row] for row in users),
        "age": int(np.isnan(data.profiles.ages[users]).sum()),
        "occupation": sum(not data.profiles.occupations[row] for row in users),
    }
    if any(missing.values()):
        lacking = ", ".join(f"{name} of {count:,}" for name, count in missing.items() if count)
        raise DataError(
            f"{data.name}: --require-profile, and of {len(users):,} users are missing: {lacking}. Name a file of users "
            "that has them (--users), or leave --require-profile away: what is missing is then learnt as unknown"
        )
