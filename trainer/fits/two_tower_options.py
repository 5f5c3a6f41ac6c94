"""How `two-tower` is trained: every switch and constant, its range and where it comes from. Knows no data.

"LL" is the log-linear head of `marquee`, whose constants were the start; docs/experiments.md has what each switch is
worth.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ATTENTION_SIZE, ATTENTION_HEADS = 32, 2
"""Two heads of 16 add about a tenth to a step."""


@dataclass(frozen=True, slots=True)
class Options:
    """Constants of the fit; None means: chosen by the size of the data, see `trainer.fits.two_tower`.

    Attributes:
        ranking_size: Width of a ranking vector. LL.
        rating_size: Width of a rating vector.
        hidden_size: Width of the layer between content, or profile, and the vectors.
        id_size: Width of a user's own row.
        epochs: Passes over all users. LL.
        batch_users: Users a step, over all processes. None: 32 (LL) below 20,000 users, else 256.
        cuts: Places at which each user's history is cut in a pass, at most. None: 30, fewer where scoring the
            catalogue would take long.
        learning_rate: Of Adam. LL.
        weight_decay: L2 on all tables. LL.
        warm_up_steps: Steps in which the learning rate rises to its full height. LL.
        history_length: Newest movies of a history that the user tower looks at; the store keeps 200.
        history_dropout: Share of a history hidden at each cut. LL.
        blank_rate: Share of cuts at which the whole history is hidden: the cold user.
        user_unknown_rate: Share of users whose id is hidden at a step, so that strangers are served.
        movie_unknown_rate: Share of movies whose id is hidden at a step, so that cold movies are made from content.
        rating_weight: Of the squared error, in units of the ratings' deviation, beside the cross-entropy.
        rating_l2: Penalty on the squared length of rating vectors.
        num_rated: Ratings guessed from each cut.
        num_next: Next movies guessed from each cut; the h-th weighs e^-h. LL.
        negatives: Which movies a softmax is over: all of them (full), those that the batch guesses (in-batch), or
            those and `sampled_movies` drawn by frequency (sampled), corrected by log Q (Yi et al. 2019, section 3.2).
            auto is full up to `full_softmax_movies`, else sampled.
        full_softmax_movies: Movies up to which auto takes all.
        sampled_movies: Movies drawn for a sampled softmax.
        history_ratings: Whether ratings in the history count.
        attention: Whether the user tower attends to the history; else only decaying sums. Off: it takes half as long
            again and brought nothing (docs/experiments.md).
        recency: Whether newer movies weigh more, in data with times.
        titles: Whether the movie tower reads title words.
        title_vectors: File of word vectors in GloVe's text format, in the place of trained words; "" for none.
        movie_means: Whether the movie tower knows the mean rating of the training rows.
        user_scale: Whether the user tower knows the user's own mean and spread of ratings.
        bags: Bag-of-category columns of the movies that the movie tower reads, separated by commas; "*" is all.
        contrastive_weight: Of pulling two views together: a user's history under two dropouts, a movie with and
            without its id (Wu et al. 2021, section 3.2; Yao et al. 2021, section 3).
        hide_ties: Whether events of the same moment are hidden from each other, so that a row sees what is strictly
            earlier; else they get an order, drawn anew each epoch, in which a row sees what is before it, as a user who
            comes back within the second is served. Without times the order is always drawn.
        precision: bf16 runs matrix products in bfloat16; auto does where the hardware multiplies it.
        threads: Processor threads of torch while the model is trained; docs/experiments.md says why one.
    """

    ranking_size: int = field(default=128, metadata={"low": 1, "high": 1024})
    rating_size: int = field(default=32, metadata={"low": 1, "high": 1024})
    hidden_size: int = field(default=64, metadata={"low": 1, "high": 1024})
    id_size: int = field(default=32, metadata={"low": 1, "high": 1024})
    epochs: int = field(default=20, metadata={"low": 1, "high": 10_000})
    batch_users: int | None = field(default=None, metadata={"low": 1, "high": 65536})
    cuts: int | None = field(default=None, metadata={"low": 1, "high": 1000})
    learning_rate: float = field(default=3e-3, metadata={"low": 1e-6, "high": 1.0})
    weight_decay: float = field(default=1e-5, metadata={"low": 0.0, "high": 1.0})
    warm_up_steps: int = field(default=20, metadata={"low": 1, "high": 100_000})
    history_length: int = field(default=200, metadata={"low": 1, "high": 1000})
    history_dropout: float = field(default=0.3, metadata={"low": 0.0, "high": 0.95})
    blank_rate: float = field(default=0.02, metadata={"low": 0.0, "high": 0.95})
    user_unknown_rate: float = field(default=0.2, metadata={"low": 0.0, "high": 1.0})
    movie_unknown_rate: float = field(default=0.02, metadata={"low": 0.0, "high": 0.95})
    rating_weight: float = field(default=1.0, metadata={"low": 0.0, "high": 1000.0})
    rating_l2: float = field(default=0.1, metadata={"low": 0.0, "high": 10.0})
    num_rated: int = field(default=4, metadata={"low": 1, "high": 100})
    num_next: int = field(default=3, metadata={"low": 1, "high": 100})
    negatives: Literal["auto", "full", "sampled", "in-batch"] = "auto"
    full_softmax_movies: int = field(default=20_000, metadata={"low": 1, "high": 10_000_000})
    sampled_movies: int = field(default=4096, metadata={"low": 1, "high": 1_000_000})
    history_ratings: bool = True
    attention: bool = False
    recency: bool = True
    titles: bool = True
    title_vectors: str = ""
    movie_means: bool = True
    user_scale: bool = True
    bags: str = "*"
    contrastive_weight: float = field(default=0.0, metadata={"low": 0.0, "high": 100.0})
    hide_ties: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = field(default=1, metadata={"low": 1, "high": 1024})

    def __post_init__(self) -> None:
        if self.title_vectors and not Path(self.title_vectors).is_file():
            raise ValueError(f"title_vectors: there is no file {self.title_vectors!r}")
        if self.ranking_size % ATTENTION_HEADS and self.attention:
            raise ValueError(f"ranking_size: attention has {ATTENTION_HEADS} heads, which must divide it")
