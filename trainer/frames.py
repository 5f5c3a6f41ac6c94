"""Gives a data set as data frames, to look at and to hand to `two_tower.load`. Knows columns; knows no model."""

import numpy as np
import pandas as pd

from trainer.dataset import Dataset, Interactions


def frames_of(data: Dataset, rows: Interactions | None = None) -> dict[str, pd.DataFrame]:
    """Returns movies, histories and users, as `two_tower.load` takes them.

    Args:
        data: The data set.
        rows: What stands in the histories; all interactions if None.
    """
    rows = data.interactions if rows is None else rows
    movies = data.movies
    histories = pd.DataFrame(
        {
            "user_id": np.array(data.user_ids, object)[rows.user_rows],
            "movie_id": np.array(movies.movie_ids, object)[rows.movie_rows],
            "rating": rows.ratings,
        }
    )
    if data.has_times:
        histories["timestamp"] = rows.event_times_ms.astype("datetime64[ms]")
    return {
        "movies": pd.DataFrame(
            {
                "movie_id": list(movies.movie_ids),
                "title": list(movies.titles),
                "year": movies.years,
                "genres": pd.Series([list(genres) for genres in movies.genres], dtype=object),
                **{name: pd.Series(list(bag), dtype=object) for name, bag in movies.bags.items()},
            }
        ),
        "histories": histories,
        "users": pd.DataFrame(
            {
                "user_id": data.user_ids,
                "gender": list(data.profiles.genders),
                "age": data.profiles.ages,
                "occupation": list(data.profiles.occupations),
            }
        ),
    }
