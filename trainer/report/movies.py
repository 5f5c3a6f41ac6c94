"""Looks at the movie side of a model: what it likes, what it finds alike. Knows both serving forms; draws nothing.

Everything is asked through the serving forms, so that it means the same for every model: a movie's bias is what
somebody of whom nothing is known would rate it, less the mean of all movies; likeness is what SimilarMovies answers.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset
from trainer.report.findings import BiasedMovie, GenreBias, MapPoint, Neighbour, Neighbourhood
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import raw_pairs
from two_tower.serving import Model
from two_tower.user_columns import Histories, Profiles, UserColumns

LIST_LENGTH = 10
NUM_NEIGHBOURS = 5
"""As many as the notebooks show."""

WELL_RATED = 10
"""Ratings of a movie below which its place in a list says little; where few movies have so many, all are listed."""

_LONGEST_TITLE = 200
"""Letters: a page names hundreds of movies, and no known title is longer."""

MAP_MOVIES = 600
"""t-SNE of so many takes two or three seconds of one core; more make the map no clearer."""


class MovieSide:
    """The movies of a data set as a model sees them. M movies."""

    def __init__(self, model: Model, data: Dataset, counts: NDArray[np.integer]) -> None:
        """Embeds the catalogue.

        Args:
            model: The model.
            data: Gives the movies.
            counts: Training ratings of each. [M]
        """
        self._movies = data.movies
        self._counts = counts
        self._model = model
        self._embedded: Any = model.embed_movies(data.movies)
        enough = self._embedded.known & (counts >= WELL_RATED)
        # A catalogue of which hardly anything is rated often is still worth a look.
        self._listed = np.flatnonzero(enough if enough.sum() >= 2 * LIST_LENGTH else self._embedded.known)
        vectors = self._embedded.similarity_vectors.double().cpu().numpy()  # [M, K]
        self._units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def biases(self) -> tuple[tuple[BiasedMovie, ...], tuple[BiasedMovie, ...]]:
        """Returns the movies that somebody unknown would rate highest and lowest."""
        stars = self._stars()
        if stars is None:
            return (), ()
        best = self._listed[np.argsort(-stars[self._listed], kind="stable")]
        first, last = (
            tuple(BiasedMovie(self._title(row), float(stars[row]), int(self._counts[row])) for row in end)
            for end in (best[:LIST_LENGTH], best[::-1][:LIST_LENGTH])
        )
        return first, last

    def genre_biases(self) -> tuple[GenreBias, ...]:
        """Returns the genres, best first."""
        stars = self._stars()
        if stars is None:
            return ()
        found = [
            GenreBias(genre, float(stars[rows].mean()), len(rows)) for genre, rows in self._rows_by_genre().items()
        ]
        return tuple(sorted(found, key=lambda each: -each.stars))

    def genre_cosines(self) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
        """Returns the genres and the cosines of their movies' means, less what all movies have in common. [G, G]."""
        by_genre = self._rows_by_genre()
        if not by_genre:
            return (), ()
        common = self._units[self._listed].mean(axis=0)
        means = np.stack([self._units[rows].mean(axis=0) - common for rows in by_genre.values()])  # [G, K]
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        cosines = means @ means.T
        return tuple(by_genre), tuple(tuple(round(float(each), 3) for each in row) for row in cosines)

    def neighbourhoods(self) -> tuple[Neighbourhood, ...]:
        """Returns the nearest movies of those with the most ratings."""
        best_known = self._by_popularity()[:LIST_LENGTH]
        cosines = self._units[best_known] @ self._units[self._listed].T  # [10, listed]
        found = []
        for row, cosine in zip(best_known, cosines, strict=True):
            nearest = [place for place in np.argsort(-cosine, kind="stable") if self._listed[place] != row]
            found.append(
                Neighbourhood(
                    self._title(row),
                    tuple(
                        Neighbour(self._title(self._listed[place]), float(cosine[place]))
                        for place in nearest[:NUM_NEIGHBOURS]
                    ),
                )
            )
        return tuple(found)

    def map(self) -> tuple[MapPoint, ...]:
        """Lays the movies with the most ratings out in two dimensions (t-SNE: van der Maaten & Hinton 2008)."""
        rows = self._by_popularity()[:MAP_MOVIES]
        units = self._units[rows]
        if len(rows) < 5 or not np.ptp(units, axis=0).any():
            return ()
        # Imported here, since it takes a second that the other commands need not wait for.
        from sklearn.manifold import TSNE

        # Between unit vectors the squared distance is 2 - 2 cosine: the same neighbours as SimilarMovies.
        places = TSNE(
            2, perplexity=min(30.0, (len(rows) - 1) / 3), init="random", max_iter=500, random_state=0, n_jobs=1
        ).fit_transform(units.astype(np.float32))
        return tuple(
            MapPoint(
                self._title(row),
                next(iter(self._movies.genres[row]), ""),
                int(self._counts[row]),
                round(float(x), 3),
                round(float(y), 3),
            )
            for row, (x, y) in zip(rows, places, strict=True)
        )

    def _stars(self) -> NDArray[np.float64] | None:
        """What somebody unknown would rate each movie, less the mean of the listed ones. [M]."""
        if self._model.rating_scale is None or not len(self._listed):
            return None
        nobody = UserColumns([None], Profiles.unknown(1), Histories.empty(1))
        users = self._model.embed_users(nobody, self._embedded)
        numbers = np.arange(len(self._movies))
        with torch.no_grad():
            raw = raw_pairs(self._model, users, self._embedded, np.zeros_like(numbers), numbers)
        stars: NDArray[np.float64] = self._model.link(raw.cpu().numpy()).astype(np.float64)
        stars -= stars[self._listed].mean()
        return stars

    def _by_popularity(self) -> NDArray[np.int64]:
        return self._listed[np.argsort(-self._counts[self._listed], kind="stable")]

    def _rows_by_genre(self) -> dict[str, NDArray[np.int64]]:
        rows: dict[str, list[int]] = {}
        for row in self._listed:
            for genre in self._movies.genres[int(row)]:
                rows.setdefault(genre, []).append(int(row))
        return {genre: np.asarray(rows[genre], np.int64) for genre in sorted(rows)}

    def _title(self, row: int) -> str:
        return title_of(self._movies, int(row))


def title_of(movies: MovieColumns, row: int) -> str:
    """Returns a movie's title with its year, or what else is known of it."""
    title = movies.titles[row] or movies.movie_ids[row]
    if len(title) > _LONGEST_TITLE:
        title = f"{title[:_LONGEST_TITLE]}…"
    year = movies.years[row]
    return title if np.isnan(year) or f"({year:.0f})" in title else f"{title} ({year:.0f})"
