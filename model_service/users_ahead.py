"""Embeds who is near by a model that is about to answer, so that its first second is like every other.

Knows users, models and how long it may take; knows no label and no RPC.
"""

import time
from collections.abc import Callable
from itertools import islice

from model_service.catalogue_mirror import InBackground
from model_service.device_work import DeviceWork
from model_service.generation import Generation
from model_service.near_features import NearFeatures

_AT_ONCE = 128
"""Users in a pass of the tower, which takes some 7 ms: half as long for each as of eight, and others want the lock of
Python as long as it takes: docs/decisions/0061-loading-gives-way.md."""
_AT_MOST_S = 20.0
"""How long a swap waits for it on a busy machine; who is not embedded by then is embedded when he is asked about."""


class UsersAhead:
    """Goes through the users who were asked about last, the last one first."""

    def __init__(
        self,
        features: NearFeatures,
        work: DeviceWork,
        max_users: int,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Stores who knows the users, who embeds them, and how many at most; 0 leaves all to the first answers."""
        self._features = features
        self._work = work
        self._max_users = max_users
        self._clock = clock
        self._wall_clock = wall_clock

    async def embed(self, generation: Generation, in_background: InBackground) -> int:
        """Embeds users and keeps them so; returns how many.

        Args:
            generation: What is going to answer, over the catalogue that answers now.
            in_background: Runs the user tower.
        """
        give_up_at = self._clock() + _AT_MOST_S
        user_ids = iter(self._features.asked_last(self._max_users))
        num_embedded = 0
        while (some := list(islice(user_ids, _AT_ONCE))) and self._clock() < give_up_at:
            users = self._features.to_embed(some, generation)
            if users:
                made = await in_background(self._work.embed_users, users, generation, int(self._wall_clock() * 1000))
                num_embedded += self._features.keep(made, users)
        return num_embedded
