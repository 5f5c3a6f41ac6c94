"""What callers are answered, worked out by hand; over real gRPC."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2, user_pb2


def stored(user_id, **fields):
    return pb.UserSelector(user_id=user_id, **fields)


def entry(movie_id, rating=None, time_ms=None):
    made = user_pb2.HistoryEntry(movie_id=movie_id, rating=rating)
    if time_ms is not None:
        made.event_time.FromMilliseconds(time_ms)
    return made


def inline(*entries, **profile):
    return pb.UserSelector(inline_user=pb.InlineUser(history=entries, profile=user_pb2.UserProfile(**profile)))


async def rate(model, user, movie_id):
    return await model.PredictRating(pb.PredictRatingRequest(user=user, movie_id=movie_id))


async def top(model, user, k=10, **fields):
    return await model.TopK(pb.TopKRequest(user=user, k=k, **fields))


def ids(reply):
    return [movie.movie_id for movie in reply.movies]


async def test_a_rating_is_the_dot_product_on_the_scale(model):
    """ann·heat = 1: 3 + 1 stars; what ranks is 2·1 + .3."""
    reply = await rate(model, stored("ann"), "heat")

    assert (reply.rating, reply.rounded_rating, reply.model_version) == (4.0, 4.0, "v1")
    assert reply.score == pytest.approx(2.3)
    assert reply.source == pb.ANSWER_SOURCE_PERSONAL
    assert not reply.cold


async def test_whatever_movie_id_the_catalogue_has_can_be_asked_for(features, start, train):
    """Ids are the caller's own strings, control characters included; those of users alone are kept from them."""
    features.put_movie("a\tb", title="Tab", genres=["Comedy"])
    train("v1")

    async with start() as model:
        rated = await rate(model, inline(entry("a\tb", 5.0)), "a\tb")
        listed = await top(model, stored("ann"), filter=pb.MovieFilter(allow=pb.MovieList(movie_ids=["a\tb"])))

    assert rated.cold
    assert ids(listed) == ["a\tb"]


async def test_a_rating_is_clipped_and_rounded_and_its_score_is_not(model):
    """Four movies loved give 3 + 1·2·(1 + ...) stars: 5 is the most that the scale has."""
    reply = await rate(model, inline(entry("heat", 5.0), entry("alien", 5.0), entry("up", 5.0)), "heat")

    assert (reply.rating, reply.rounded_rating) == (5.0, 5.0)
    assert reply.score == pytest.approx(2 * (2 + 0.5 + 0.25) + 0.3)


async def test_the_nearest_possible_rating_is_given_too(model):
    """ann·alien = .5 and ann·big = .25: 3.25 stars cannot be given, 3 can."""
    reply = await rate(model, stored("ann"), "big")

    assert reply.rating == 3.25
    assert reply.rounded_rating in (3.0, 3.5)


async def test_top_k_ranks_all_that_was_not_seen(model, features):
    """Bob loves comedy; he has seen big."""
    features.watch("bob", "big", 1000, 3.0)

    reply = await top(model, stored("bob"))

    assert ids(reply) == ["new", "up", "heat", "alien"]
    assert reply.movies[0].score == pytest.approx(2.0)
    assert reply.movies[0].predicted_rating == pytest.approx(4.0)
    assert [movie.cold for movie in reply.movies] == [True, False, False, False]
    assert reply.user_version == features.version_of("bob")


async def test_seen_movies_are_answered_on_request(model, features):
    """exclude_seen is true unless the request says otherwise."""
    features.watch("bob", "big", 1000, 3.0)

    reply = await top(model, stored("bob"), exclude_seen=False)

    assert ids(reply)[:2] == ["big", "new"]


async def test_titles_come_with_view_movie(model):
    """One call is enough for a page."""
    reply = await top(model, stored("ann"), k=1, view=movie_pb2.MOVIE_VIEW_MOVIE)

    movie = reply.movies[0].movie
    assert (movie.title, movie.year, list(movie.genres)) == ("Heat", 1995, ["Crime", "Drama"])
    assert not (await top(model, stored("ann"), k=1)).movies[0].HasField("movie")


async def test_filters_hold_together(model):
    """A comedy that is a drama too, or one that came out before 1990, and not the other."""
    drama_too = await top(model, stored("ann"), filter=pb.MovieFilter(genres_all=["comedy", "DRAMA"]))
    old = await top(model, stored("ann"), filter=pb.MovieFilter(genres_any=["Comedy"], year_max=1990))
    allowed = await top(
        model,
        stored("ann"),
        filter=pb.MovieFilter(
            allow=pb.MovieList(movie_ids=["big", "new", "up"]), exclude=pb.MovieList(movie_ids=["up", "nobody knows"])
        ),
    )
    nothing = await top(model, stored("ann"), filter=pb.MovieFilter(allow=pb.MovieList()))

    assert [ids(reply) for reply in (drama_too, old, allowed, nothing)] == [["up"], ["big"], ["big", "new"], []]


async def test_the_source_says_what_an_answer_is_based_on(model, features):
    """A trained vector, a history, a profile, or nothing."""
    features.watch("carl", "heat", 1000)
    features.put_user("dora", gender="F")

    sources = [(await rate(model, user, "heat")).source for user in map(stored, ("ann", "carl", "dora", "nobody"))]

    assert sources == [
        pb.ANSWER_SOURCE_PERSONAL,
        pb.ANSWER_SOURCE_FOLDED_IN,
        pb.ANSWER_SOURCE_PROFILE,
        pb.ANSWER_SOURCE_POPULAR,
    ]


async def test_an_inline_user_gets_the_answer_of_a_stored_stranger(model, features):
    """Whoever says the same about himself is told the same, in whatever order he says it."""
    features.put_user("carl", gender="F", age=30)
    for movie_id, time_ms, rating in (("big", 2000, 5.0), ("up", 2000, None), ("heat", 3000, 2.0)):
        features.watch("carl", movie_id, time_ms, rating)
    same = inline(entry("big", 5.0, 2000), entry("heat", 2.0, 3000), entry("up", None, 2000), gender="F", age=30)

    from_store, from_request = await top(model, stored("carl")), await top(model, same)

    from_store.user_version = ""
    assert from_request == from_store
    assert from_request.source == pb.ANSWER_SOURCE_FOLDED_IN


async def test_an_inline_history_without_times_stands_newest_first(model):
    """The first counts in full, the second by half: 3 + (2·1 - 2·.5·.5)."""
    reply = await rate(model, inline(entry("heat", 5.0), entry("alien", 1.0)), "heat")

    assert reply.score == pytest.approx(2 * (2 - 0.5) + 0.3)


async def test_session_events_count_as_newest_and_are_not_stored(model, features):
    """What-if: a comedy loved just now moves him; the next answer knows nothing of it."""
    features.watch("carl", "heat", 4_000_000_000_000, 5.0)
    session = stored("carl", session_events=[entry("big", 5.0)])

    with_session = await rate(model, session, "heat")
    listed = await top(model, session)
    without = await rate(model, stored("carl"), "heat")

    assert with_session.score == pytest.approx(2 * (2 * 0.5) + 0.3)
    assert ids(listed) == ["new", "up", "alien"]
    assert without.score == pytest.approx(2 * 2 + 0.3)


async def test_a_session_event_keeps_the_rating_that_it_does_not_give(model, features):
    """Watched again and not rated: the movie is the newest now and its stars stay, as the store would keep them."""
    features.watch("carl", "heat", 1000, 5.0)
    features.watch("carl", "big", 2000, 4.0)

    reply = await rate(model, stored("carl", session_events=[entry("heat")]), "heat")

    assert reply.score == pytest.approx(2 * 2 + 0.3)


async def test_profile_overrides_replace_what_is_stored(model, features):
    """For this answer dora is a man."""
    features.put_user("dora", gender="F")

    reply = await rate(model, stored("dora", profile_overrides=user_pb2.UserProfile(gender="M")), "big")

    assert reply.rating == pytest.approx(3.25)


async def test_a_user_deleted_after_the_data_was_taken_is_a_stranger(model, features):
    """His trained vector is not used any more; deleted before, he came back and it is."""
    features.delete_user("ann", 1_600_000_000_001)
    features.delete_user("bob", 1_600_000_000_000)

    ann, bob = await rate(model, stored("ann"), "heat"), await rate(model, stored("bob"), "big")

    assert (ann.source, ann.rating) == (pb.ANSWER_SOURCE_POPULAR, 3.0)
    assert (bob.source, bob.rating) == (pb.ANSWER_SOURCE_PERSONAL, 4.0)


async def test_a_watched_movie_disappears_and_moves_the_scores(model, features):
    """The next answer knows the event, and says so by its version."""
    before = await top(model, stored("carl"))
    version = features.watch("carl", "big", 1000, 5.0)

    after = await top(model, stored("carl", min_user_version=version))

    assert "big" in ids(before)
    assert "big" not in ids(after)
    assert after.movies[0].movie_id == "new"
    assert after.user_version == version


async def test_the_batch_rpcs_answer_as_the_single_ones(model, features):
    """Columns in, columns out, row by row what PredictRating and TopK say."""
    features.watch("carl", "heat", 1000, 1.0)
    users, movies = ["ann", "carl", "nobody"], ["heat", "big", "new"]

    ratings = await model.BatchPredictRatings(
        pb.BatchPredictRatingsRequest(
            user_ids=users, movie_ids=movies, user_indices=[2, 0, 1, 1], movie_indices=[0, 1, 2, 0]
        )
    )
    lists = await model.BatchTopK(pb.BatchTopKRequest(users=[stored(user_id) for user_id in users], k=3))

    for place, (user, movie) in enumerate([(2, 0), (0, 1), (1, 2), (1, 0)]):
        single = await rate(model, stored(users[user]), movies[movie])
        assert ratings.ratings[place] == single.rating
        assert ratings.rounded_ratings[place] == single.rounded_rating
        assert ratings.scores[place] == single.score
        assert ratings.sources[user] == single.source
        assert ratings.user_versions[user] == single.user_version
        assert ratings.cold[movie] == single.cold
    for user_id, result in zip(users, lists.results, strict=True):
        single = await top(model, stored(user_id), k=3)
        assert result.movies == single.movies
        assert (result.status, result.source) == (pb.ROW_STATUS_OK, single.source)
    assert (ratings.model_version, lists.model_version) == ("v1", "v1")


async def test_rows_that_cannot_be_answered_do_not_fail_their_neighbours(model, features):
    """An unknown movie, a version not reached yet and one of another store are matters of their rows."""
    version = features.watch("ann", "big", 1000)
    ahead, foreign = version[:-1] + "9", "f" * 16 + version[16:]

    ratings = await model.BatchPredictRatings(
        pb.BatchPredictRatingsRequest(
            user_ids=["ann", "bob", "carl"],
            movie_ids=["heat", "unheard of"],
            user_indices=[0, 0, 1, 2],
            movie_indices=[0, 1, 0, 0],
            min_user_versions=[version, ahead, foreign],
        )
    )
    lists = await model.BatchTopK(
        pb.BatchTopKRequest(users=[stored("ann", min_user_version=version), stored("bob", min_user_version=ahead)], k=3)
    )

    assert list(ratings.statuses) == [
        pb.ROW_STATUS_OK,
        pb.ROW_STATUS_MOVIE_NOT_FOUND,
        pb.ROW_STATUS_USER_NOT_CURRENT,
        pb.ROW_STATUS_FOREIGN_USER_VERSION,
    ]
    assert [rating == rating for rating in ratings.ratings] == [True, False, False, False]
    assert [row.status for row in lists.results] == [pb.ROW_STATUS_OK, pb.ROW_STATUS_USER_NOT_CURRENT]
    assert not lists.results[1].movies


async def test_similar_movies_are_the_nearest_in_direction(model):
    """Alien points where heat does; up half so; big elsewhere. The movie itself is left out."""
    reply = await model.SimilarMovies(pb.SimilarMoviesRequest(movie_id="heat", k=10))

    assert ids(reply) == ["alien", "up", "big", "new"]
    assert [movie.score for movie in reply.movies] == pytest.approx([1.0, 0.5**0.5, 0.0, 0.0])
    assert not reply.movies[0].HasField("predicted_rating")


async def test_times_are_read_to_the_millisecond(model):
    """Of two events of one movie the later counts, be it later by a millisecond."""
    later = Timestamp(seconds=10, nanos=1_000_000)
    first = user_pb2.HistoryEntry(movie_id="heat", rating=5.0, event_time=later)
    second = user_pb2.HistoryEntry(movie_id="heat", rating=1.0, event_time=Timestamp(seconds=10))

    reply = await rate(model, inline(second, first), "heat")

    assert reply.score == pytest.approx(2 * 2 + 0.3)
