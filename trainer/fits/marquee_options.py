"""How `marquee` is trained: every constant, its range and where it comes from. Knows no data.

"Recipe" below is the search on validation rows of MovieLens 100K, latest-small and 1M that came before this code;
docs/experiments.md sums it up.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """Constants of the fit; None means: chosen by the size of the data, see `trainer.fits.marquee`.

    Attributes:
        hidden_size: Hidden units of the movie tower, 1 or more. None: 400 below 300,000 ratings, else 1000. Recipe.
        towers: Movie towers, each from another start, that are averaged, 1 or more. None: 2 below 300,000 ratings, else
            1.
        tower_epochs: Passes over all movies, 1 or more.
        tower_batch: Movies a step, 1 or more. None: 64 below 300,000 ratings, else 128.
        tower_learning_rate: Of Adam, above 0. Recipe.
        tower_weight_decay: L2 on both sides of the tower, 0 or more. None: by ratings a movie, see
            `trainer.fits.marquee`.
        input_dropout: Share of observed inputs hidden, 0..1. None: .3 below 300,000 ratings, else .5. Recipe.
        side_scale: Factor on content features before the tower, 0 or more: at 1 they learn far too slowly. None: 8
            below 20 ratings a movie, else 4. Recipe.
        machine_share: Weight of the factorisation machine against the tower, 0..1; at 0 or 1 one of them is not fitted.
            Recipe.
        machine_rank: Its factors, 1 or more. None: 16 below 300,000 ratings, else 24.
        machine_iterations: Its sweeps, of which the last 70% count, 1 or more. None: 300 below 300,000 ratings, else
            200. Recipe.
        machine_size: Coordinates of the mean of its samples, 1 or more. None: 48 below 300,000 ratings, else 64.
        rating_size: Coordinates that the members are compressed to, 1 or more. None: 96 below 300,000 ratings, else
            128.
        prior_spread: Factor on the users' covariance for the prior of a stranger's vector, above 0. None: 1.5 below
            300,000 ratings, else 1.2.
        noise_share: Noise variance of a rating as a share of what the biases leave, above 0.
        profile_ridge: λ of the ridge from profile to user vector, above 0. Recipe.
        implicit_ridge: λ of the ridge from watched movies to user vector, above 0.
        implicit_movies: Movies, the most watched ones, with a row in that ridge, 1 or more; its time is cubic in it.
        implicit_damping: Watched movies at which that counts half, above 0. Recipe.
        prior_events: q, events that weigh against a trained vector as new ones come, above 0. Recipe.
        ranking_timed: Whether lists are of what a user will watch next, by the order in which users watched; else of
            what he would watch at any time. None: if the data has times. Rows held out at random are judged better with
            false, those held out by time with true.
        ranking_size: Coordinates of the log-linear part of the retrieval head with times, 1 or more. Recipe.
        ranking_epochs: Passes over all users, 0 or more; at 0 only the closed form ranks.
        ranking_movies: Movies, the most watched ones, that the log-linear part ranks, 1 or more; its time is linear in
            it. The others are made from content.
        ranking_cuts: Cuts of each user's history in a pass, 1 or more. None: up to 30, fewer where the catalogue is
            large, and below 1 a share of the users, so that the time stays bounded.
        ranking_batch: Users a step, 1 or more. None: 8 below 20 ratings a movie, else 32 as in the recipe.
        ranking_learning_rate: Of Adam, above 0. Recipe.
        ranking_weight_decay: L2 on the three tables, 0 or more. Recipe.
        history_dropout: Share of a history hidden at each cut, 0..1. Recipe.
        short_decay: Events after which the short memory has faded to 1/e, above 0. Recipe.
        long_decay: The same for the long memory. Recipe.
        flat_gain: Part of the long memory that never fades, 0 or more. Recipe.
        closed_gain: Weight of the closed form beside the log-linear part, 0 or more; at 0 it is not solved. None: 2
            below 20 ratings a movie, else .5.
        closed_size: Coordinates of the closed form, 1 or more. None: 384 below 20 ratings a movie, else 128.
        closed_movies: Movies, the most watched ones, that take part in it, 1 or more; its time is cubic and its memory
            quadratic in it.
        ease_ridge: λ of EASE in the closed form, above 0. None: 100 below 20 ratings a movie, else 300 as in the
            recipe.
        sequential_ridge: λ of its sequential ridge, above 0. None: 100 below 20 ratings a movie, else 500 as in the
            recipe.
        popularity_power: p of the factor (n + 1)^-p on its scores of a movie watched n times, 0 or more. None: .2 below
            20 ratings a movie, else .1 as in the recipe.
        untimed_size: Coordinates of the retrieval head that heeds no times, 1 or more.
        untimed_dropout: EDLAE's p, 0 up to but not 1. Recipe.
        untimed_ridge: EDLAE's λ, above 0. Recipe.
        untimed_movies: Movies, the most watched ones, that EDLAE ranks by what is watched together, 1 or more; its time
            is cubic in it.
        measured_deviations: Whether a clone of the rating head, fitted to most of the rows, says how wide deviations
            must be; it takes the head's time again. None: below 300,000 ratings, beyond which what the model believes
            holds (docs/experiments.md, 2026-11-22).
        content_ridge: λ of the ridges that make a movie from content, above 0. None: 10 for retrieval vectors; for
            rating vectors that of `trainer.fits.marquee_rating.CONTENT_RIDGES` which foretells left out movies best.
        threads: Processor threads of torch while the model is trained, 1 or more. Each number of threads rounds
            otherwise, so the same seed gives the same model only with the same number. A second one brings nothing to
            the tower and costs tenfold on a busy machine, where threads wait for each other: docs/experiments.md,
            2026-11-21.
    """

    hidden_size: int | None = field(default=None, metadata={"low": 1, "high": 8192})
    towers: int | None = field(default=None, metadata={"low": 1, "high": 100})
    tower_epochs: int = field(default=20, metadata={"low": 1, "high": 1000})
    tower_batch: int | None = field(default=None, metadata={"low": 1, "high": 65536})
    tower_learning_rate: float = field(default=1e-3, metadata={"low": 1e-6, "high": 1.0})
    tower_weight_decay: float | None = field(default=None, metadata={"low": 0.0, "high": 1.0})
    input_dropout: float | None = field(default=None, metadata={"low": 0.0, "high": 0.95})
    side_scale: float | None = field(default=None, metadata={"low": 0.0, "high": 100.0})
    machine_share: float = field(default=0.5, metadata={"low": 0.0, "high": 1.0})
    machine_rank: int | None = field(default=None, metadata={"low": 1, "high": 256})
    machine_iterations: int | None = field(default=None, metadata={"low": 1, "high": 100000})
    machine_size: int | None = field(default=None, metadata={"low": 1, "high": 1024})
    rating_size: int | None = field(default=None, metadata={"low": 1, "high": 1024})
    prior_spread: float | None = field(default=None, metadata={"low": 0.01, "high": 100.0})
    noise_share: float = field(default=0.8, metadata={"low": 0.01, "high": 10.0})
    profile_ridge: float = field(default=50.0, metadata={"low": 1e-3, "high": 1e9})
    implicit_ridge: float = field(default=10.0, metadata={"low": 1e-3, "high": 1e9})
    implicit_movies: int = field(default=4000, metadata={"low": 1, "high": 50000})
    implicit_damping: float = field(default=10.0, metadata={"low": 1e-3, "high": 1e6})
    prior_events: float = field(default=5.0, metadata={"low": 1e-3, "high": 1e6})
    ranking_timed: bool | None = None
    ranking_size: int = field(default=128, metadata={"low": 1, "high": 1024})
    ranking_epochs: int = field(default=20, metadata={"low": 0, "high": 1000})
    ranking_movies: int = field(default=4000, metadata={"low": 1, "high": 1000000})
    ranking_cuts: int | None = field(default=None, metadata={"low": 1, "high": 1000})
    ranking_batch: int | None = field(default=None, metadata={"low": 1, "high": 4096})
    ranking_learning_rate: float = field(default=3e-3, metadata={"low": 1e-6, "high": 1.0})
    ranking_weight_decay: float = field(default=1e-5, metadata={"low": 0.0, "high": 1.0})
    history_dropout: float = field(default=0.3, metadata={"low": 0.0, "high": 0.95})
    short_decay: float = field(default=2.0, metadata={"low": 0.1, "high": 1e6})
    long_decay: float = field(default=12.0, metadata={"low": 0.1, "high": 1e6})
    flat_gain: float = field(default=0.1, metadata={"low": 0.0, "high": 10.0})
    closed_gain: float | None = field(default=None, metadata={"low": 0.0, "high": 1000.0})
    closed_size: int | None = field(default=None, metadata={"low": 1, "high": 4096})
    closed_movies: int = field(default=3000, metadata={"low": 1, "high": 20000})
    ease_ridge: float | None = field(default=None, metadata={"low": 1e-3, "high": 1e9})
    sequential_ridge: float | None = field(default=None, metadata={"low": 1e-3, "high": 1e9})
    popularity_power: float | None = field(default=None, metadata={"low": 0.0, "high": 1.0})
    untimed_size: int = field(default=256, metadata={"low": 1, "high": 4096})
    untimed_dropout: float = field(default=0.3, metadata={"low": 0.0, "high": 0.95})
    untimed_ridge: float = field(default=300.0, metadata={"low": 1e-3, "high": 1e9})
    untimed_movies: int = field(default=8000, metadata={"low": 1, "high": 50000})
    measured_deviations: bool | None = None
    content_ridge: float | None = field(default=None, metadata={"low": 1e-3, "high": 1e9})
    threads: int = field(default=1, metadata={"low": 1, "high": 1024})
