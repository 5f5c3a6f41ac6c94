"""The fit learns what is there to learn, also where data lacks ratings, times, genres or profiles."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.marquee import Options, fit
from two_tower.models.marquee import Marquee
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rank_scores, rate_all
from two_tower.serving import RatingScale
from two_tower.user_columns import Histories, Profiles, UserColumns

QUICK = Options(
    hidden_size=16,
    towers=1,
    tower_epochs=15,
    tower_learning_rate=0.01,
    tower_batch=8,
    machine_iterations=20,
    machine_rank=4,
    ranking_size=8,
    ranking_epochs=3,
)


@pytest.fixture(scope="module")
def toy() -> tuple[Dataset, Marquee]:
    """Toy data and a model of all its rows."""
    data = toy_dataset()
    return data, fit(data, QUICK, seed=0, progress=silent)


def held_out(data: Dataset, count: int = 100) -> tuple[Interactions, Interactions]:
    rows = np.arange(len(data.interactions))
    return data.interactions.take(rows[count:]), data.interactions.take(rows[:count])


@pytest.mark.parametrize("timed", [True, False])
def test_it_learns_tastes(timed: bool) -> None:
    """Held-out ratings of users with two clear tastes are predicted far better than by the mean (1.34 stars off)."""
    data = toy_dataset(timed=timed)
    train, test = held_out(data)

    model = fit(replace(data, interactions=train), QUICK, seed=0, progress=silent)

    assert evaluate(model, data, train, test, protocol="").metrics.rmse == pytest.approx(0.45, abs=0.3)


def test_a_scale_of_ten_is_learned_as_well_as_one_of_five() -> None:
    """The constants were found on stars of one to five; other scales are brought to them."""
    data = toy_dataset()
    train, test = held_out(data)

    def stretched(rows: Interactions) -> Interactions:
        return replace(rows, ratings=rows.ratings * 20)

    five = fit(replace(data, interactions=train), QUICK, seed=0, progress=silent)
    hundred_data = replace(data, interactions=stretched(train), scale=RatingScale(20, 100, 20))
    hundred = fit(hundred_data, QUICK, seed=0, progress=silent)

    of_five = evaluate(five, data, train, test, protocol="").metrics.rmse
    of_hundred = evaluate(hundred, hundred_data, stretched(train), stretched(test), protocol="").metrics.rmse
    assert of_five is not None
    assert of_hundred == pytest.approx(20 * of_five, rel=0.05)


def stored(data: Dataset, row: int, *, complete: bool = True, user_id: str | None = None) -> UserColumns:
    """A user with his profile and all his rows, newest first."""
    rows = data.interactions
    mine = np.flatnonzero(rows.user_rows == row)
    rows = rows.take(mine[np.lexsort((-rows.movie_rows[mine], -rows.event_times_ms[mine]))])
    profiles = data.profiles
    return UserColumns(
        [user_id],
        Profiles(profiles.genders[row : row + 1], profiles.ages[row : row + 1], profiles.occupations[row : row + 1]),
        Histories(np.array([0, len(rows)]), rows.movie_rows, rows.ratings, rows.event_times_ms, np.array([complete])),
    )


def test_a_trained_user_is_the_same_whether_his_history_was_trimmed_or_not(toy: tuple[Dataset, Marquee]) -> None:
    """Nothing has come since training, so both heads answer as they were trained."""
    data, model = toy
    movies = model.embed_movies(data.movies)

    whole = model.embed_users(stored(data, 4, user_id="u4"), movies)
    trimmed = model.embed_users(stored(data, 4, user_id="u4", complete=False), movies)

    assert trimmed.rating_vectors[0].numpy() == pytest.approx(whole.rating_vectors[0].numpy(), abs=1e-6)
    assert trimmed.ranking_vectors[0].numpy() == pytest.approx(whole.ranking_vectors[0].numpy(), abs=1e-5)


def test_a_stranger_of_the_same_history_is_judged_much_like_a_trained_user(toy: tuple[Dataset, Marquee]) -> None:
    """What is inferred of him lies nearer to what was trained than to anybody of the other taste."""
    data, model = toy
    movies = model.embed_movies(data.movies)

    trained, other = (
        rate_all(model, model.embed_users(stored(data, row, user_id=f"u{row}"), movies), movies)[0] for row in (4, 5)
    )
    stranger = rate_all(model, model.embed_users(stored(data, 4), movies), movies)[0]

    assert np.abs(stranger - trained).mean() < 0.3 * np.abs(stranger - other).mean()


def test_deviations_are_as_wide_as_the_errors() -> None:
    """About 80% of the held-out ratings lie within the 80% interval, where they are measured; the fit is the same."""
    data = toy_dataset(num_users=200, num_movies=60, rows_per_user=30)
    train, test = held_out(data, 600)
    believed, measured = (
        fit(replace(data, interactions=train), replace(QUICK, measured_deviations=on), seed=0, progress=silent)
        for on in (False, True)
    )

    before, after = (evaluate(model, data, train, test, protocol="") for model in (believed, measured))

    errors = np.abs(after.predicted - test.ratings)
    assert np.array_equal(before.predicted, after.predicted)
    assert (errors < 1.2816 * after.deviations).mean() == pytest.approx(0.8, abs=0.06)
    assert (errors < after.deviations / 3).mean() < 0.65
    assert not np.allclose(before.deviations, after.deviations, rtol=0.02)


def genre_data(num_movies: int = 120) -> Dataset:
    """Everybody finds musicals bad and westerns good; the last twenty movies have one genre and no rating."""
    rng = np.random.default_rng(0)
    good = rng.random(num_movies) < 0.5
    users = np.repeat(np.arange(80), 25)
    movies = np.concatenate([rng.permutation(num_movies - 20)[:25] for _ in range(80)])
    stars = np.clip(np.where(good[movies], 4.2, 2.0) + rng.normal(0, 0.6, len(users)), 1, 5).round()
    return Dataset(
        "genres",
        [f"u{row}" for row in range(80)],
        Profiles.unknown(80),
        [None] * 80,
        MovieColumns(
            [f"m{row}" for row in range(num_movies)],
            [""] * num_movies,
            np.full(num_movies, np.nan, np.float32),
            [("Western",) if is_good else ("Musical",) for is_good in good],
        ),
        Interactions(
            users.astype(np.int32),
            movies.astype(np.int32),
            stars.astype(np.float32),
            np.zeros(len(users), np.int64),
        ),
        RatingScale(1, 5, 1),
        False,
    )


def test_a_cold_movie_is_rated_from_its_content() -> None:
    """Movies that nobody rated are predicted far better by their genre than by the mean."""
    data = genre_data()
    model = fit(data, QUICK, seed=0, progress=silent)
    movies = model.embed_movies(data.movies)
    users = model.embed_users(UserColumns([None], Profiles.unknown(1), Histories.empty(1)), movies)

    cold = rate_all(model, users, movies)[0, -20:]

    assert not movies.known[-20:].any()
    truth = np.array([4.2 if genres == ("Western",) else 2.0 for genres in data.movies.genres[-20:]])
    mean = data.interactions.ratings.mean()
    assert np.abs(cold - truth).mean() < 0.35 * np.abs(mean - truth).mean()


def test_a_profile_that_matters_moves_the_answer_of_a_stranger() -> None:
    """In data where men love every other movie and women the rest, gender alone tells what to expect."""
    data = toy_dataset(num_users=200)
    model = fit(data, QUICK, seed=0, progress=silent)
    movies = model.embed_movies(data.movies)
    strangers = UserColumns(
        [None, None], Profiles(["M", "F"], np.full(2, np.nan, np.float32), [None, None]), Histories.empty(2)
    )

    ratings = rate_all(model, model.embed_users(strangers, movies), movies)

    # The even users are the M of the toy data, and they love the even movies.
    gap = (ratings[0] - ratings[1])[:-1]
    assert gap[::2].mean() > 0.4
    assert gap[1::2].mean() < -0.4


@pytest.mark.parametrize("timed", [True, False])
def test_data_without_ratings_gives_a_ranking_head_only(timed: bool) -> None:
    """Who watched what is enough to rank by: a held-out movie of the own taste comes before the others."""
    full = toy_dataset(rated=False, timed=timed, rows_per_user=20)
    mine = (full.interactions.user_rows % 2) == (full.interactions.movie_rows % 2)
    data = replace(full, interactions=full.interactions.take(mine))

    model = fit(data, replace(QUICK, ranking_epochs=20, untimed_ridge=5.0), seed=0, progress=silent)

    movies = model.embed_movies(data.movies)
    history = Histories(
        np.array([0, 3]),
        np.array([0, 2, 4], np.int32),
        np.full(3, np.nan, np.float32),
        np.array([9, 8, 7]),
        np.ones(1, bool),
    )
    users = model.embed_users(UserColumns([None], Profiles.unknown(1), history), movies)
    scores = rank_scores(model, users, movies)[0].numpy()
    assert model.rating_scale is None
    assert not any(name.startswith("rating.") for name in model.tensors())
    assert scores[6:39:2].mean() > scores[5:39:2].mean() + 1e-3


def test_lists_may_be_told_not_to_heed_times() -> None:
    """Then they are those of the same data without times, and what is known of it by time stays."""
    timed, untimed = toy_dataset(), toy_dataset(timed=False)

    heeding = fit(timed, QUICK, seed=0, progress=silent)
    model = fit(timed, replace(QUICK, ranking_timed=False), seed=0, progress=silent)

    expected = fit(untimed, QUICK, seed=0, progress=silent).tensors()
    names = [name for name in expected if name.startswith("ranking.")]
    assert names
    for name in names:
        torch.testing.assert_close(model.tensors()[name], expected[name], atol=1e-5, rtol=0)
    assert heeding.tensors()["ranking.vectors"].shape != expected["ranking.vectors"].shape
    assert model.config()["data_until_ms"] == heeding.config()["data_until_ms"] > 0


def test_what_a_trimmed_user_watched_since_counts_as_all_else_where_times_do_not() -> None:
    """Half of his rows were trained on; whoever has them all in his history gets the same list."""
    data = toy_dataset()
    rows = data.interactions
    early = rows.event_times_ms <= np.median(rows.event_times_ms)
    learned = replace(data, interactions=rows.take(early))
    model = fit(learned, replace(QUICK, ranking_timed=False), seed=0, progress=silent)
    movies = model.embed_movies(data.movies)
    assert 0 < early[rows.user_rows == 4].sum() < (rows.user_rows == 4).sum()

    trained = model.embed_users(stored(data, 4, user_id="u4", complete=False), movies)
    stranger = model.embed_users(stored(data, 4), movies)

    assert trained.ranking_vectors[0].numpy() == pytest.approx(stranger.ranking_vectors[0].numpy(), abs=1e-5)


def test_lists_cannot_heed_times_that_are_not_there() -> None:
    """The message says what to leave out."""
    with pytest.raises(DataError, match="ranking_timed=true wants the times of ratings"):
        fit(toy_dataset(timed=False), replace(QUICK, ranking_timed=True), seed=0, progress=silent)


def test_data_that_is_bare_ratings_is_enough() -> None:
    """No genres, no years, no profiles, no times; half of the rows without stars."""
    data = toy_dataset(num_users=200, rows_per_user=25, timed=False)
    stars = data.interactions.ratings.copy()
    stars[::2] = np.nan
    bare = replace(
        data,
        profiles=Profiles.unknown(200),
        movies=MovieColumns(data.movies.movie_ids, [""] * 40, np.full(40, np.nan, np.float32), [()] * 40),
        interactions=replace(data.interactions, ratings=stars),
    )
    train, test = held_out(bare)

    model = fit(replace(bare, interactions=train), QUICK, seed=0, progress=silent)

    assert evaluate(model, bare, train, test, protocol="").metrics.rmse == pytest.approx(0.6, abs=0.5)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("timed", [True, False])
def test_a_handful_of_rows_is_fitted(size: int, timed: bool) -> None:
    """One user, one movie, one rating: nothing to learn and nothing to divide by."""
    data = toy_dataset(timed=timed)
    model = fit(replace(data, interactions=data.interactions.take(np.arange(size))), QUICK, seed=0, progress=silent)
    movies = model.embed_movies(data.movies)

    ratings = rate_all(
        model, model.embed_users(UserColumns([None], Profiles.unknown(1), Histories.empty(1)), movies), movies
    )

    assert np.isfinite(ratings).all()


def test_what_training_never_names_stays_unread() -> None:
    """Movies and users without training rows have no row: their ratings could not have leaked into one."""
    data = toy_dataset()
    few = data.interactions.take(np.flatnonzero(data.interactions.user_rows < 5))

    model = fit(replace(data, interactions=few), QUICK, seed=0, progress=silent)

    assert model.vocabularies()["users"] == ["", "u0", "u1", "u2", "u3", "u4"]
    assert model.config()["data_until_ms"] == int(few.event_times_ms.max())


def test_progress_ends_at_the_end() -> None:
    """A bar that is drawn from it never goes back and is full when the fit returns."""
    told: list[tuple[int, int, str]] = []

    fit(toy_dataset(), QUICK, seed=0, progress=lambda *report: told.append(report))

    assert [report[0] for report in told] == sorted(report[0] for report in told)
    assert told[-1][0] == told[-1][1] == (15 + 20) * 2 + 3  # the rating head, its clone, the retrieval head


def test_the_number_of_threads_is_left_as_it_was() -> None:
    """The fit trains with its own number, so that a seed means one model on any machine of the kind."""
    before = torch.get_num_threads()
    during: list[int] = []

    fit(toy_dataset(), QUICK, seed=0, progress=lambda *report: during.append(torch.get_num_threads()))

    assert set(during) == {1}
    assert torch.get_num_threads() == before


def test_data_without_rows_is_refused() -> None:
    """With the reason, in words for a person."""
    data = toy_dataset()
    nothing = data.interactions.take(np.arange(0))
    unrated = replace(data.interactions, ratings=np.full(len(data.interactions), np.nan, np.float32))

    with pytest.raises(DataError, match="no interactions"):
        fit(replace(data, interactions=nothing), QUICK, seed=0, progress=silent)
    with pytest.raises(DataError, match="none of the rows"):
        fit(replace(data, interactions=unrated), QUICK, seed=0, progress=silent)
