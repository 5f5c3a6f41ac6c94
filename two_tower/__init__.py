"""The model: what trainer and model_service must agree on. Knows tensors and files; no process, RPC or data frame."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from two_tower.frames import Frame
    from two_tower.recommender import Recommender


def load(
    path: str | Path,
    *,
    movies: "Frame",
    histories: "Frame | None" = None,
    users: "Frame | None" = None,
    device: str = "cpu",
) -> "Recommender":
    """Opens a checkpoint for use without servers; its answers are those of the RPCs.

    A frame is a pandas DataFrame, or any mapping from column names to columns. Ids are strings; whole numbers are
    written as such. MovieLens's `userId` and `movieId` are understood.

        model = two_tower.load("registry", movies=movies, histories=ratings)
        ratings.assign(**model.predict(ratings))
        pd.DataFrame(model.top_k(users, k=10))

    Args:
        path: Folder of a checkpoint, or of a registry, whose `stable` checkpoint is opened.
        movies: The catalogue, in the order of its catalogue numbers: movie_id, and where known title, year, genres (a
            list, or text such as "Action|Sci-Fi"). Any other column of lists or tuples is a bag of categories. Without
            a column year it is the last "(dddd)" of the title.
        histories: What was watched: user_id, movie_id, and where known rating (stars, NaN where not rated) and
            timestamp (seconds since 1970, or dates and times; UTC unless they say otherwise).
        users: Profiles: user_id, and where known gender, age, occupation.
        device: Where the weights go, as torch names it.

    Raises:
        TwoTowerError: The checkpoint cannot be served, or a frame cannot be read; says what would be right.
    """
    from two_tower.recommender import open_recommender

    return open_recommender(Path(path), movies, histories, users, device)
