"""Fits content-fc by mini-batch gradient descent on the absolute error. Knows the training rows; knows no held-out row.

The published notebook chose its best epoch on the rows that it reported. Here a slice of the training rows is held back
for that, unless the caller names the rows to choose by. Its ReduceLROnPlateau waited for 10 bad epochs out of 10; here
it waits for 2. And its output layer has a ReLU, which dies under some seeds: every rating is 0, no gradient flows, and
nothing said so. Here such a training starts again with other weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from trainer.dataset import Dataset, Interactions
from trainer.errors import DivergedError
from trainer.fits import Progress
from trainer.fits.divergence import last_good_model
from trainer.fits.pair_training import Course, Plan, run
from trainer.fits.rated_pairs import RatedPairs, divide, encoder_of, require_scale
from two_tower.features import FeatureEncoder
from two_tower.models.content_fc import Config, ContentFc, ContentNetwork, movie_columns, user_columns

HIDDEN_WIDTHS = (64, 32, 16)
MAX_STARTS = 20
"""Of 20 seeds on ML-100K 11 lived at once and none needed more than 4 starts (docs/experiments.md)."""

_ROWS_ASKED_AFTER_AN_EPOCH = 4096
"""Enough to tell a dead network, which gives the same for all, from one that lives."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; all but the validation slice and the patience of the plateau is the notebook's.

    Attributes:
        learning_rate: Of Adam, at the start.
        plateau_patience: Epochs without a better validation loss after which the learning rate is divided by 10.
        batch_size: Rows a step.
        epochs: Passes over the training rows; the best by validation loss gives the weights.
        validation_share: Share of the training rows that is held back to choose the epoch by. With 0 the last epoch
            gives the weights, and the plateau is one of the training loss.
    """

    learning_rate: float = field(default=0.01, metadata={"low": 1e-6, "high": 1.0})
    plateau_patience: int = field(default=2, metadata={"low": 0, "high": 1000})
    batch_size: int = field(default=512, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=10, metadata={"low": 1, "high": 10_000})
    validation_share: float = field(default=0.1, metadata={"low": 0.0, "high": 0.9})


class DeadNetworkError(DivergedError):
    """Every rating is the same: a layer whose ReLUs are all at zero passes no gradient, and nothing is learnt."""


def fit(
    data: Dataset, options: Options, *, seed: int, progress: Progress, validation: Interactions | None = None
) -> ContentFc:
    """Fits the network.

    Args:
        data: Its interactions are the training rows.
        options: How.
        seed: All chance comes from it.
        progress: Told once an epoch.
        validation: Rows to choose the epoch by, instead of a slice of the training rows.

    Raises:
        DataError: The data has no ratings, or no rows.
        DeadNetworkError: The network died under `MAX_STARTS` seeds, one after the other.
        DivergedFitError: A loss is not finite.
    """
    scale = require_scale(data, ContentFc.name)
    encoder = encoder_of(data)
    config = Config(HIDDEN_WIDTHS, len(encoder.users), len(encoder.movies), encoder.ages, encoder.years, scale)
    rng = np.random.default_rng(seed)
    learn, choose = divide(data, validation, options.validation_share, rng)
    network = ContentFc.make_network(config, encoder.vocabularies())
    trainee = _Trainee(data, config, encoder, network, learn, choose, options)
    for start in range(1, MAX_STARTS + 1):
        trainee.begin(torch.Generator().manual_seed(int(rng.integers(2**62)) if start > 1 else seed))
        with last_good_model(lambda: ContentFc(config, encoder, network)):
            try:
                _train(trainee, options, len(learn), len(choose), rng, progress)
            except DeadNetworkError:
                if start == MAX_STARTS:
                    raise
                progress(0, options.epochs, f"the network died; start {start + 1} of at most {MAX_STARTS}")
            else:
                break
    return ContentFc(config, encoder, network)


def _train(
    trainee: "_Trainee", options: Options, num_rows: int, num_choose: int, rng: np.random.Generator, progress: Progress
) -> None:
    keep = "validation" if num_choose else "last"
    plan = Plan(num_rows, options.batch_size, options.epochs, "mae", keep=keep)  # type: ignore[arg-type]
    run(trainee, plan, rng, progress, trainee.after_epoch)


class _Trainee:
    """The network and its optimiser. B = rows of a batch, U and V = user and movie columns."""

    def __init__(
        self,
        data: Dataset,
        config: Config,
        encoder: FeatureEncoder,
        network: ContentNetwork,
        learn: RatedPairs,
        choose: RatedPairs,
        options: Options,
    ) -> None:
        users = encoder.encode_users(data.user_ids, data.profiles)
        movies = encoder.encode_movies(data.movies)
        sizes = (len(encoder.genders), len(encoder.occupations))
        self._users = torch.from_numpy(user_columns(users, config.ages, *sizes))  # [users, U]
        self._movies = torch.from_numpy(movie_columns(movies, config.years))  # [movies, V]
        self._network = network
        self._learn = learn
        self._choose = choose
        self._options = options

    def begin(self, generator: torch.Generator) -> None:
        """Starts as the notebook's library does, uniform within 1/√width, but where there is nothing to learn from.

        A column that is zero in all training rows (a gender or genre that nobody has, "age is missing" where none is)
        keeps the weight that it starts with: 0, so that who comes with it later gets no made-up answer.
        """
        network = self._network
        first = (network.user_layer, network.movie_layer)
        width = sum(part.in_features for part in first)
        with torch.no_grad():
            for part, columns in zip(first, (self._users[torch.unique(self._learn.users)], self._movies), strict=True):
                part.weight.uniform_(-(width**-0.5), width**-0.5, generator=generator)
                part.weight[:, (columns == 0).all(dim=0)] = 0
            network.user_layer.bias.uniform_(-(width**-0.5), width**-0.5, generator=generator)
            for layer in network.layers:
                assert isinstance(layer, nn.Linear)
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
        self._optimiser = torch.optim.Adam(network.parameters(), self._options.learning_rate, fused=True)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimiser, patience=self._options.plateau_patience
        )

    def weights(self) -> Mapping[str, Tensor]:
        return self._network.state_dict()

    def step(self, positions: Tensor) -> Tensor:
        batch = self._learn.take(positions)
        summed = (self._predict(batch) - batch.ratings).abs().sum()
        self._optimiser.zero_grad(set_to_none=True)
        (summed / len(positions)).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return summed.detach()

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        if not len(self._choose):
            return None
        return float((self._predict(self._choose) - self._choose.ratings).abs().mean())

    @torch.no_grad()
    def after_epoch(self, course: Course) -> None:
        """Lets the learning rate follow the loss.

        Raises:
            DeadNetworkError: All ratings are the same though users and movies differ.
        """
        self._plateau.step((course.validation or course.training)[-1])
        asked = self._learn.take(torch.arange(min(len(self._learn), _ROWS_ASKED_AFTER_AN_EPOCH)))
        predicted = self._predict(asked)  # [rows]
        inputs = self._network.user_layer(self._users[asked.users]) + self._network.movie_layer(
            self._movies[asked.movies]
        )  # [rows, H]
        all_alike = bool((predicted == predicted[0]).all())
        if all_alike and (float(predicted[0]) == 0 or bool((inputs != inputs[0]).any())):
            raise DeadNetworkError(
                f"in epoch {len(course.training)} every rating is {float(predicted[0]):g}: the ReLUs of a layer are "
                f"all at zero, and were under {MAX_STARTS} seeds; try a smaller learning_rate"
            )

    def _predict(self, pairs: RatedPairs) -> Tensor:
        network = self._network
        users = network.user_layer(self._users[pairs.users])  # [B, H]
        return network.meet(users, network.movie_layer(self._movies[pairs.movies]))  # [B]
