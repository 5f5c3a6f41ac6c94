"""How much an index looks at, by what was measured of it."""

import pytest

from model_service.reaches import Depth, Filtered, Reaches

NUM_MOVIES = 100_000
DEPTHS = {10: Depth(5, 150, 0.96), 100: Depth(9, 200, 0.96)}
FILTERED = {
    (0.5, 10): Filtered(0.9, 150, 0.97),
    (0.5, 100): Filtered(0.95, 300, 0.97),
    (0.2, 10): Filtered(0.99, 110, 0.97),
    (0.2, 100): Filtered(0.9, 400, 0.97),
    (0.06, 10): Filtered(0.98, 110, 0.97),
}


@pytest.fixture
def reaches():
    return Reaches(NUM_MOVIES, DEPTHS, FILTERED)


def test_without_a_filter_the_next_depth_tells(reaches):
    """That of the list and of what is left out of it."""
    assert reaches.look_for(10, 0, NUM_MOVIES).num_groups == 5
    assert reaches.look_for(20, 0, NUM_MOVIES).num_groups == 9
    assert reaches.look_for(10, 90, NUM_MOVIES).num_groups == 9


def test_as_much_more_is_proposed_as_may_be_dropped(reaches):
    """What a row excludes may all be among what is proposed to it."""
    look = reaches.look_for(10, 40, NUM_MOVIES)

    assert look.num_proposed == look.num_scored + 40


def test_the_few_movies_that_a_filter_bars_may_be_the_best(reaches):
    """So the search goes as deep as if all of them stood before those that are wanted."""
    assert reaches.look_for(10, 0, NUM_MOVIES - 80).num_groups == 9


def test_more_is_looked_at_of_what_was_measured_on_both_sides(reaches):
    """Between two shares and two depths the most of the four does."""
    look = reaches.look_for(55, 0, 30_000)

    assert (look.num_groups, look.coverage, look.num_wanted) == (0, 0.99, 55)
    assert look.num_scored == (150 + 400) / 2


def test_what_lets_more_through_than_was_measured_is_as_the_most_that_was(reaches):
    """There is nothing beside it."""
    assert reaches.look_for(10, 0, 80_000).coverage == 0.9


@pytest.mark.parametrize(
    ("k", "num_allowed"),
    [(10, 5_500), (50, 10_000), (200, 50_000), (10, 4_000), (1, 0)],
    ids=["fewer than were measured", "a depth that was not reached", "deeper than was measured", "few", "none"],
)
def test_what_was_not_measured_is_left_to_exact_search(reaches, k, num_allowed):
    """No recall is known of it."""
    assert reaches.look_for(k, 0, num_allowed) is None


def test_rows_that_have_seen_about_as_much_are_looked_up_together(reaches):
    """A movie more or less makes no other search."""
    assert reaches.look_for(10, 78, NUM_MOVIES) == reaches.look_for(10, 80, NUM_MOVIES)
