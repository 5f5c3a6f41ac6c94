"""Lets users watch and rate movies: what, in which order, when, with how many stars. Knows no file.

A user watches in sessions. A session keeps to one shelf (first genre and era), chosen by taste; inside it movies are
drawn by popularity, or the follower of the movie just watched is taken. So taste, demographics and order all predict
what is watched next.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Interactions
from trainer.synthesis.audience import Audience
from trainer.synthesis.catalogue import NUM_ERAS, Catalogue

CHOICE_SHARPNESS = 1.8
"""How strongly a star of taste raises the odds of choosing a genre."""
SESSION_FILMS = 10
"""Mean number of movies drawn in a session."""
STAY_SHARE = 0.3
"""Chance that the next session keeps to the shelf of the one before."""
FOLLOW_SHARE = 0.35
"""Chance that, within a session, a movie's follower comes next."""
DRAWS_PER_FILM = 2
"""Movies drawn for each one needed: a movie drawn again is not watched again."""
MEAN_RATING = 3.3
NOISE_SD = 0.75
"""Stars by which a rating differs from what the structure says, about half of the variance."""
LOW, HIGH, STEP = 0.5, 5.0, 0.5
FIRST_START_S, LAST_START_S = 1_388_534_400, 1_577_836_800
"""The first session of a user begins in 2014 to 2019."""
SESSION_GAP_S = 6 * 86_400
FILM_GAP_S = 40
INSTANT_SHARE = 0.15
"""Share of movies rated in the same second as the one before, as on a page of check boxes."""


def watch(
    audience: Audience, counts: NDArray[np.int64], first_user_row: int, catalogue: Catalogue, rng: np.random.Generator
) -> Interactions:
    """Lets each user of a block watch `counts` different movies; rows are ordered by user, then by movie."""
    users, movies, sessions = _draw(audience, counts, catalogue, rng)
    users, movies, sessions = _first_views(users, movies, sessions, counts, len(catalogue.popularity))
    users, movies, sessions = _filled_up(users, movies, sessions, audience, counts, catalogue, rng)
    times_s = _times(users, sessions, rng)
    ratings = _ratings(users, movies, audience, catalogue, rng)
    order = np.lexsort((movies, users))
    return Interactions(
        (users[order] + first_user_row).astype(np.int32),
        movies[order].astype(np.int32),
        ratings[order],
        times_s[order] * 1000,
    )


def _draw(
    audience: Audience, counts: NDArray[np.int64], catalogue: Catalogue, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Draws movies step by step for all users at once; returns user, movie and session of each draw, in order."""
    draws = DRAWS_PER_FILM * counts + SESSION_FILMS
    # Busy users first, so that those still drawing at any step are a prefix.
    by_draws = np.argsort(-draws, kind="stable")
    chances = _shelf_chances(audience, catalogue)[by_draws]  # [B, shelves], cumulative
    starts = np.append(0, np.cumsum(draws))
    begin = starts[by_draws]
    movies = np.empty(starts[-1], np.int32)
    sessions = np.empty(starts[-1], np.int32)
    weights = np.append(0, np.cumsum(catalogue.popularity[catalogue.shelf_order]))
    shelf_begin, shelf_end = weights[catalogue.shelf_starts[:-1]], weights[catalogue.shelf_starts[1:]]
    shelf = np.zeros(len(counts), np.int64)
    movie = np.zeros(len(counts), np.int32)
    session = np.zeros(len(counts), np.int32)
    active_at = np.searchsorted(-draws[by_draws], -np.arange(draws.max()), side="left")
    for step, active in enumerate(active_at.tolist()):
        chance = rng.random((4, active))
        opens = chance[0] < 1 / SESSION_FILMS if step else np.ones(active, np.bool_)
        moves = np.flatnonzero(opens & ((chance[1] >= STAY_SHARE) | (step == 0)))
        shelf[moves] = (chances[moves] < rng.random(len(moves))[:, None]).sum(axis=-1)
        session[:active] += opens
        here = shelf[:active]
        spot = shelf_begin[here] + chance[2] * (shelf_end[here] - shelf_begin[here])
        place = np.searchsorted(weights, spot, side="right") - 1
        place = np.minimum(place, catalogue.shelf_starts[here + 1] - 1)
        follows = ~opens & (chance[3] < FOLLOW_SHARE)
        movie[:active] = np.where(follows, catalogue.followers[movie[:active]], catalogue.shelf_order[place])
        movies[begin[:active] + step] = movie[:active]
        sessions[begin[:active] + step] = session[:active]
    return np.repeat(np.arange(len(counts)), draws), movies, sessions


def _shelf_chances(audience: Audience, catalogue: Catalogue) -> NDArray[np.float64]:
    """Returns the cumulative chance of each shelf, by user. float64 [B, G * NUM_ERAS]."""
    sizes = np.diff(catalogue.shelf_starts)
    views = np.add.reduceat(np.append(catalogue.popularity[catalogue.shelf_order], 0.0), catalogue.shelf_starts[:-1])
    drawn = np.where(sizes > 0, views, 0.0)  # [shelves]
    wish = CHOICE_SHARPNESS * audience.tastes[:, :, None] + audience.era_bias[:, None, :]  # [B, G, E]
    chances = drawn * np.exp(wish.reshape(len(wish), -1, order="C").astype(np.float64))
    cumulative = np.cumsum(chances, axis=-1)
    cumulative /= cumulative[:, -1:]
    # Rounding must not let a draw fall behind the last shelf that holds movies.
    cumulative[:, np.flatnonzero(sizes)[-1] :] = 1.0
    assert cumulative.shape[-1] == audience.tastes.shape[-1] * NUM_ERAS
    return cumulative


def _first_views(
    users: NDArray[np.int64],
    movies: NDArray[np.int32],
    sessions: NDArray[np.int32],
    counts: NDArray[np.int64],
    num_movies: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Keeps each movie's first draw by a user, and as many movies of a user as are wanted."""
    first = np.sort(np.unique(users * num_movies + movies, return_index=True)[1])
    users, movies, sessions = users[first], movies[first], sessions[first]
    begin = np.searchsorted(users, np.arange(len(counts)))
    wanted = np.arange(len(users)) - begin[users] < counts[users]
    return users[wanted], movies[wanted], sessions[wanted]


def _filled_up(
    users: NDArray[np.int64],
    movies: NDArray[np.int32],
    sessions: NDArray[np.int32],
    audience: Audience,
    counts: NDArray[np.int64],
    catalogue: Catalogue,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Gives users who exhausted their shelves further movies by popularity and taste, in a last session."""
    bounds = np.searchsorted(users, np.arange(len(counts) + 1))
    short = np.flatnonzero(np.diff(bounds) < counts)
    parts = [(users, movies, sessions)]
    popular = np.log(catalogue.popularity)
    for user in short.tolist():
        seen = movies[bounds[user] : bounds[user + 1]]
        needed = int(counts[user]) - len(seen)
        wish = popular + CHOICE_SHARPNESS * (catalogue.genre_weights @ audience.tastes[user])
        # The largest Gumbel-perturbed logits are a weighted draw without replacement.
        keys = wish + rng.gumbel(size=len(wish))
        keys[seen] = -np.inf
        more = np.argpartition(-keys, needed - 1)[:needed].astype(np.int32)
        last = int(sessions[bounds[user + 1] - 1]) + 1
        parts.append((np.full(needed, user), more[np.argsort(-keys[more])], np.full(needed, last, np.int32)))
    users, movies, sessions = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(users, kind="stable")
    return users[order], movies[order], sessions[order]


def _times(users: NDArray[np.int64], sessions: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Gives each view its second; a user's views never go back in time. int64 [n]."""
    new_user = np.append(True, users[1:] != users[:-1])
    new_session = np.append(True, sessions[1:] != sessions[:-1])
    gaps = np.ceil(rng.exponential(FILM_GAP_S, len(users)))
    gaps[rng.random(len(users)) < INSTANT_SHARE] = 0
    gaps[new_session] = np.ceil(rng.exponential(SESSION_GAP_S, int(new_session.sum()))) + 3_600
    gaps[new_user] = rng.integers(FIRST_START_S, LAST_START_S, int(new_user.sum()))
    elapsed = np.cumsum(gaps.astype(np.int64))
    begin = np.flatnonzero(new_user)
    before = elapsed[begin] - gaps[begin].astype(np.int64)
    return elapsed - np.repeat(before, np.diff(np.append(begin, len(users))))


def _ratings(
    users: NDArray[np.int64],
    movies: NDArray[np.int32],
    audience: Audience,
    catalogue: Catalogue,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    stars = (
        MEAN_RATING
        + audience.lenience[users]
        + catalogue.quality[movies]
        + np.einsum("ng,ng->n", audience.tastes[users], catalogue.genre_weights[movies])
        + np.einsum("nk,nk->n", audience.hidden[users], catalogue.hidden[movies])
        + NOISE_SD * rng.standard_normal(len(users), np.float32)
    )
    return np.asarray(np.clip(np.round(stars / STEP) * STEP, LOW, HIGH), np.float32)
