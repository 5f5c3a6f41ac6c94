"""Judges a model on users whom it is not told to know: no id, and only their newest few events. Knows no model by name.

Whatever was learnt of movies from their ratings stays learnt: it is how well strangers are answered, not how well a
model would do that had never seen these people.
"""

from dataclasses import replace

import numpy as np

from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation, evaluate
from two_tower.serving import Model


def evaluate_strangers(
    model: Model,
    data: Dataset,
    train: Interactions,
    held_out: Interactions,
    known: int,
    *,
    max_users: int,
    rng: np.random.Generator,
) -> Evaluation | None:
    """Judges the model on some users with at least `known` training rows, of which it is shown the newest `known`.

    Args:
        model: The model.
        data: Users and movies.
        train: The rows that stand in the users' histories; movies in them are not recommended.
        held_out: The rows to be judged on.
        known: Events of each user that are shown.
        max_users: So many users, drawn at random, are enough.
        rng: Draws them.

    Returns:
        What it said, None if no user with held-out rows has so many training rows.
    """
    counts = np.bincount(train.user_rows, minlength=len(data.user_ids))
    users = np.unique(held_out.user_rows)
    users = users[counts[users] >= known]
    if not len(users):
        return None
    drawn = rng.permutation(users)[:max_users]
    nobody = replace(data, user_ids=[""] * len(data.user_ids))
    return evaluate(
        model,
        nobody,
        train.take(np.isin(train.user_rows, drawn)),
        held_out.take(np.isin(held_out.user_rows, drawn)),
        protocol=f"strangers of whom the newest {known} events are known",
        window=known,
    )
