"""The commands that ask the running model_service: predict, topk."""

from typing import Annotated

import typer
from marquee.client.channel import open_sync_channel
from marquee.client.credentials import Credentials
from marquee.v1 import model_service_pb2, movie_pb2
from rich.table import Table

from trainer.asking import best_movies, predict_ratings
from trainer.commands.terminal import Terminal

UserOption = Annotated[str, typer.Option("--user", metavar="ID", help="External user id.")]
ModelServiceOption = Annotated[
    str, typer.Option("--model-service", metavar="HOST:PORT", help="Where model_service listens.")
]

DEFAULT_MODEL_SERVICE = "127.0.0.1:50052"


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    app.command("predict")(predict_command)
    app.command("topk")(topk_command)


def predict_command(
    user: UserOption,
    movie: Annotated[list[str], typer.Option("--movie", metavar="ID", help="External movie id; may be repeated.")],
    model_service: ModelServiceOption = DEFAULT_MODEL_SERVICE,
) -> None:
    """Shows what a user would rate movies."""
    with open_sync_channel(model_service, credentials=Credentials.from_environment()) as channel:
        predicted = predict_ratings(channel, user, movie)
    table = Table(title=f"What user {user} would rate")
    for heading in ("movie", "title", "year", "genres", "rating", "stddev", "rounded", "cold"):
        table.add_column(heading, justify="right" if heading in ("year", "rating", "stddev", "rounded") else "left")
    for each in predicted:
        stddev = f"{each.answer.stddev:.2f}" if each.answer.HasField("stddev") else "?"
        rating = f"{each.answer.rating:.3f}", stddev, f"{each.answer.rounded_rating:g}"
        table.add_row(*_cells(each.movie), *rating, "yes" if each.answer.cold else "")
    table.caption = _caption(predicted[0].answer.source, predicted[0].answer.model_version)
    Terminal().print(table)


def topk_command(
    user: UserOption,
    k: Annotated[int, typer.Option("-k", min=1, max=500, help="Movies wanted.")] = 10,
    genre: Annotated[
        list[str] | None,
        typer.Option("--genre", metavar="GENRE", help="Only movies with this genre; if given again, with one of them."),
    ] = None,
    diversity: Annotated[
        float, typer.Option("--diversity", min=0, max=1, help="How much variety counts against score: 0 not at all.")
    ] = 0.0,
    explain: Annotated[
        int, typer.Option("--explain", min=0, max=5, help="History entries named for each movie as what speaks for it.")
    ] = 0,
    model_service: ModelServiceOption = DEFAULT_MODEL_SERVICE,
) -> None:
    """Shows what to recommend to a user."""
    with open_sync_channel(model_service, credentials=Credentials.from_environment()) as channel:
        answer = best_movies(channel, user, k, genre or [], diversity, explain)
    table = Table(title=f"What user {user} may like")
    why = ["because of"] if explain else []
    for heading in ("#", "movie", "title", "year", "genres", "rating", "score", "cold", *why):
        table.add_column(heading, justify="right" if heading in ("#", "year", "rating", "score") else "left")
    for rank, ranked in enumerate(answer.movies, start=1):
        rating = f"{ranked.predicted_rating:.3f}" if ranked.HasField("predicted_rating") else "none"
        ranked.movie.movie_id = ranked.movie_id
        cells = [str(rank), *_cells(ranked.movie), rating, f"{ranked.score:.3f}", "yes" if ranked.cold else ""]
        reasons = ", ".join(f"{reason.movie_id} {reason.share:.0%}" for reason in ranked.explanation.reasons)
        table.add_row(*cells, *([reasons] if explain else []))
    table.caption = _caption(answer.source, answer.model_version)
    Terminal().print(table)


def _cells(movie: movie_pb2.Movie) -> tuple[str, str, str, str]:
    year = str(movie.year) if movie.HasField("year") else ""
    return movie.movie_id, movie.title, year, ", ".join(movie.genres)


def _caption(source: model_service_pb2.AnswerSource.ValueType, version: str) -> str:
    name = model_service_pb2.AnswerSource.Name(source).removeprefix("ANSWER_SOURCE_")
    return f"{name} answer of model {version}"
