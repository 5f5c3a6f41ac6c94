"""Answers of different servers are compared number by number."""

from benchmarks.peers.asking import differences, kind_of

OURS = {"rating": 3.5, "rounded_rating": 3.5, "score": 0.25}
LIST = {"movies": [{"movie_id": "7", "score": 1.0, "predicted_rating": 4.0}]}


def test_equal_answers_do_not_differ():
    """What rounds otherwise by less than the tolerance is the same answer."""
    assert differences([OURS, LIST], [{**OURS, "score": 0.2500001}, LIST], 1e-5) == []


def test_a_number_that_differs_is_named():
    """Who answers another number is told which."""
    [found] = differences([OURS], [{**OURS, "rating": 3.6}], 1e-3)

    assert found == "answer 0: rating is 3.6 and ours is 3.5"


def test_another_movie_in_a_list_is_named():
    """A list differs if one of its movies does, whatever the scores."""
    other = {"movies": [{**LIST["movies"][0], "movie_id": "8"}]}

    [found] = differences([LIST], [other], 1e-3)

    assert found == "answer 0: movie_id is '8' and ours is '7'"


def test_an_answer_that_is_not_a_number_differs():
    """NaN is never within a tolerance."""
    assert differences([OURS], [{**OURS, "score": float("nan")}], 1e-3)


def test_a_question_with_a_movie_wants_a_rating():
    """Both kinds of questions share a route where a server has but one."""
    assert [kind_of({"user_id": "1", "movie_id": "2"}), kind_of({"user_id": "1", "k": 10})] == ["rate", "top"]
