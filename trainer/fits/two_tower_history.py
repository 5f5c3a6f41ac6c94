"""Fits two-tower-history by mini-batch gradient descent. Knows the training rows; knows no held-out row.

The published notebook showed each user's first row the whole history of the previous user, and put test rows into
histories. Here a history holds training rows only, and of timed data only movies watched strictly earlier than the row
being trained on (rows of the same moment do not see each other: 40% of ML-100K's rows tie with their neighbour). Data
without times has no "earlier": each row sees a random sample of the user's other training rows, drawn anew each epoch.

The notebook knows no unknown user or movie. Here a small share of the ids is hidden in training, so that row 0 of each
table learns to stand for whoever has no row; `unknown_rate=0` gives the notebook, with row 0 at the mean of its start.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress
from trainer.fits.history_windows import HistoryWindows
from trainer.fits.row_optimisers import RowOptimiser, make_row_optimiser
from trainer.fits.tower_kernels import Samples
from trainer.fits.tower_steps import TowerSteps
from two_tower.features import FeatureEncoder, MovieFeatures, UserFeatures
from two_tower.models.two_tower_history import Config, Towers, TwoTowerHistory, make_towers

LEARNING_RATES = {"sgd": 0.002, "adam": 0.005, "rmsprop": 0.003}
"""What the notebook used and, for the last two, had commented out."""

_ROWS_PREPARED_AT_ONCE = 1 << 15


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; the defaults are the notebook's.

    Attributes:
        activation: After every layer of both towers.
        layers: 2 is 64 and then 32 wide, 1 is 32 wide.
        optimiser: Which rule follows the gradient.
        learning_rate: 0 takes the notebook's for the optimiser: sgd .002, adam .005, rmsprop .003.
        momentum: Of sgd, 0 to below 1.
        batch_size: Rows a step.
        epochs: Passes over the training rows.
        normalised: Whether tower outputs have length 1; then only target "unit" reaches all stars.
        target: "stars" fits max(0, dot) to the stars, "unit" sigmoid(dot) to their place between lowest and highest.
        history_length: Movies of the history that the user tower looks at, 1 to 200.
        unknown_rate: Share of ids, genders and occupations that training hides, 0 to below 1.
        threads: Processor threads that take steps on the same weights at once, each on rows of its own and none waiting
            for another (Niu et al. 2011, "Hogwild!"), 1 or more; of sgd without `normalised`. With more than one a seed
            no longer means one model: the error differs by about .001.
    """

    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    layers: Literal[1, 2] = 2
    optimiser: Literal["sgd", "adam", "rmsprop"] = "sgd"
    learning_rate: float = field(default=0.0, metadata={"low": 0.0, "high": 10.0})
    momentum: float = field(default=0.05, metadata={"low": 0.0, "high": 0.999})
    batch_size: int = field(default=64, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=1, metadata={"low": 1, "high": 10_000})
    normalised: bool = False
    target: Literal["stars", "unit"] = "stars"
    history_length: int = field(default=20, metadata={"low": 1, "high": 200})
    unknown_rate: float = field(default=0.01, metadata={"low": 0.0, "high": 0.9})
    threads: int = field(default=1, metadata={"low": 1, "high": 64})


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> TwoTowerHistory:
    """Fits the network.

    Raises:
        DataError: The data has no ratings, or no rows.
    """
    rows = data.interactions
    if data.scale is None or not len(rows):
        raise DataError(f"two-tower-history learns from ratings, and {data.name} has none to train on")
    encoder = _make_encoder(data)
    config = Config(
        activation=options.activation,
        hidden_widths=(64, 32) if options.layers == 2 else (32,),
        history_length=options.history_length,
        history_ordered=data.has_times,
        normalised=options.normalised,
        target=options.target,
        ages=encoder.ages,
        years=encoder.years,
        scale=data.scale,
    )
    rng = np.random.default_rng(seed)
    towers = make_towers(config, encoder)
    _initialise(towers, seed)
    _Training(data, options, encoder, towers).run(rng, progress)
    return TwoTowerHistory(config, encoder, towers)


def _make_encoder(data: Dataset) -> FeatureEncoder:
    user_ids = [data.user_ids[row] for row in np.unique(data.interactions.user_rows)]
    movie_ids = [data.movies.movie_ids[row] for row in np.unique(data.interactions.movie_rows)]
    return FeatureEncoder.of(user_ids, movie_ids, data.profiles, data.movies)


def _initialise(towers: Towers, seed: int) -> None:
    """Starts as the notebook's library does: tables N(0, 1), layers uniform within 1/√width; row 0 at the mean."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in towers.named_parameters():
            if name.endswith("_table"):
                tensor.normal_(generator=generator)[0] = 0
        for layer in towers.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)


class _Training:
    """The loop. n = training rows, B = batch, L = history length; positions count training rows."""

    def __init__(self, data: Dataset, options: Options, encoder: FeatureEncoder, towers: Towers) -> None:
        assert data.scale is not None
        self._options = options
        self._towers = towers
        self._rows = data.interactions
        self._users: UserFeatures = encoder.encode_users(data.user_ids, data.profiles)
        self._movies: MovieFeatures = encoder.encode_movies(data.movies)
        self._watched = self._movies.rows[self._rows.movie_rows]  # [n]
        self._windows = HistoryWindows(self._rows, data.has_times, options.history_length)
        scale = data.scale
        width = scale.high - scale.low
        stars = self._rows.ratings
        self._targets = stars if options.target == "stars" else (stars - scale.low) / (width or 1.0)  # [n]
        self._rated = np.flatnonzero(~np.isnan(stars))
        self._in_stars = 1.0 if options.target == "stars" else width**2

    def run(self, rng: np.random.Generator, progress: Progress) -> None:
        options = self._options
        learning_rate = options.learning_rate or LEARNING_RATES[options.optimiser]
        momentum = options.momentum
        if options.optimiser == "sgd" and not options.normalised:
            steps = TowerSteps(
                self._towers,
                options.activation,
                unit_target=options.target == "unit",
                learning_rate=learning_rate,
                momentum=momentum,
            )
            with ThreadPoolExecutor(options.threads) as pool:
                self._run(rng, progress, lambda blocks: self._train_compiled(blocks, rng, steps, pool))
            return
        dense = [parameter for parameter in self._towers.parameters() if parameter.requires_grad]
        dense_optimiser = _make_optimiser(options.optimiser, dense, learning_rate, momentum)
        user_optimiser = make_row_optimiser(options.optimiser, self._towers.user_table, learning_rate, momentum)
        movie_optimiser = make_row_optimiser(options.optimiser, self._towers.movie_table, learning_rate, momentum)
        self._run(
            rng,
            progress,
            lambda blocks: (
                self._train(positions, rng, dense_optimiser, user_optimiser, movie_optimiser) for positions in blocks
            ),
        )

    def _run(
        self,
        rng: np.random.Generator,
        progress: Progress,
        train: Callable[[list[NDArray[np.int64]]], Iterable[float]],
    ) -> None:
        options, num_rows = self._options, len(self._rated)
        size = _ROWS_PREPARED_AT_ONCE
        if options.threads > 1:
            # Blocks of whole batches, several for each thread however few the rows are.
            size = min(size, -(-num_rows // (8 * options.threads * options.batch_size)) * options.batch_size)
        for epoch in range(options.epochs):
            self._windows.draw(rng)
            order = rng.permutation(self._rated)
            blocks = [order[start : start + size] for start in range(0, num_rows, size)]
            squared_error, done = 0.0, 0
            for block, error in zip(blocks, train(blocks), strict=True):
                squared_error += error
                done += len(block)
                mse = squared_error / done * self._in_stars
                message = f"epoch {epoch + 1} of {options.epochs}, training mse {mse:.4f}"
                progress(epoch * num_rows + done, options.epochs * num_rows, message, {"training mse": mse})

    def _train_compiled(
        self, blocks: list[NDArray[np.int64]], rng: np.random.Generator, steps: TowerSteps, pool: ThreadPoolExecutor
    ) -> Iterator[float]:
        """Yields each block's error; the next blocks are prepared here while threads take the steps of those before."""
        running: deque[Future[float]] = deque()
        for positions in blocks:
            running.append(pool.submit(steps.train, self._samples(positions, rng), self._options.batch_size))
            if len(running) > self._options.threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def _train(
        self,
        positions: NDArray[np.int64],
        rng: np.random.Generator,
        dense_optimiser: torch.optim.Optimizer,
        user_optimiser: RowOptimiser,
        movie_optimiser: RowOptimiser,
    ) -> float:
        samples = self._samples(positions, rng)
        tensors = [torch.from_numpy(column) for column in samples]
        squared_error = torch.zeros(())
        for batch in zip(*(torch.split(tensor, self._options.batch_size) for tensor in tensors), strict=True):
            squared_error += self._step(batch, dense_optimiser, user_optimiser, movie_optimiser)
        return float(squared_error)

    def _samples(self, positions: NDArray[np.int64], rng: np.random.Generator) -> Samples:
        users, movies = self._rows.user_rows[positions], self._rows.movie_rows[positions]
        windows, shares = self._windows.of(positions)  # [rows, L], [rows, L]
        return Samples(
            users=self._hide(self._users.rows[users], rng),
            genders=self._hide(self._users.genders[users], rng),
            ages=self._users.ages[users],
            occupations=self._hide(self._users.occupations[users], rng),
            movies=self._hide(self._movies.rows[movies], rng),
            genres=self._movies.genres[movies],
            years=self._movies.years[movies],
            targets=self._targets[positions].astype(np.float32),
            history=self._watched[windows],
            shares=shares,
        )

    def _step(
        self,
        batch: tuple[Tensor, ...],
        dense_optimiser: torch.optim.Optimizer,
        user_optimiser: RowOptimiser,
        movie_optimiser: RowOptimiser,
    ) -> Tensor:
        user_rows, genders, ages, occupations, movie_rows, genres, years, targets, history_rows, shares = batch
        towers = self._towers
        # The id tables stay outside autograd: it would touch every row of them at every step.
        user_ids = towers.user_table[user_rows].requires_grad_()  # [B, 100]
        movie_ids = towers.movie_table[movie_rows].requires_grad_()  # [B, 100]
        histories = nn.functional.embedding_bag(
            history_rows, towers.movie_table, per_sample_weights=shares, mode="sum"
        ).requires_grad_()  # [B, 100]
        user_vectors = towers.embed_users(user_ids, histories, genders, ages, occupations)  # [B, D]
        movie_vectors = towers.embed_movies(movie_ids, genres, years)  # [B, D]
        dots = (user_vectors * movie_vectors).sum(dim=-1)  # [B]
        predicted = torch.relu(dots) if self._options.target == "stars" else torch.sigmoid(dots)
        squared_error = (predicted - targets).square().sum()
        dense_optimiser.zero_grad(set_to_none=True)
        (squared_error / len(targets)).backward()  # type: ignore[no-untyped-call]
        dense_optimiser.step()
        assert user_ids.grad is not None
        assert movie_ids.grad is not None
        assert histories.grad is not None
        user_optimiser.step((user_rows, user_ids.grad))
        history_grads = histories.grad[:, None, :] * shares[:, :, None]  # [B, L, 100]
        movie_optimiser.step((movie_rows, movie_ids.grad), (history_rows.flatten(), history_grads.flatten(0, 1)))
        return squared_error.detach()

    def _hide(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        if not self._options.unknown_rate:
            return rows
        return np.where(rng.random(len(rows)) < self._options.unknown_rate, 0, rows)


def _make_optimiser(
    name: str, parameters: list[nn.Parameter], learning_rate: float, momentum: float
) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum=momentum, fused=True)
    if name == "adam":
        return torch.optim.Adam(parameters, learning_rate, fused=True)
    return torch.optim.RMSprop(parameters, learning_rate, foreach=True)
