"""Holds what a caller may say about a data set instead of leaving it to detection. Knows no file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer.errors import DataError
from two_tower.serving import RatingScale

ROLES = ("user", "movie", "rating", "time", "gender", "age", "occupation", "zip", "title", "genres", "year")
"""What a column can mean; the left side of `--columns`."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Statements about a data set; whatever is left out is detected.

    Attributes:
        columns: Column name by role (see `ROLES`), for files with a header. An empty name means "there is none".
        users_file: File of user profiles outside the source.
        movies_file: File of movies outside the source.
        scale: Rating scale instead of the detected one.
        movie_bags: Columns of the movies file that hold further categories, as "Tom Hanks|Meg Ryan".
        max_broken_share: Share of a file's rows, 0 to 1, that may be skipped as broken before the file is refused.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    users_file: Path | None = None
    movies_file: Path | None = None
    scale: RatingScale | None = None
    max_broken_share: float = 0.01
    movie_bags: tuple[str, ...] = ()

    def stated(self) -> list[str]:
        """Returns the command-line options of what is not left out."""
        options = {"columns": "--columns", "users_file": "--users", "movies_file": "--movies", "scale": "--scale"}
        options |= {"max_broken_share": "--max-broken", "movie_bags": "--movie-bag"}
        return [option for name, option in options.items() if getattr(self, name) != getattr(ReadOptions(), name)]


def parse_columns(text: str) -> dict[str, str]:
    """Reads "user=uid,movie=film,rating=stars,time=ts" as a column name by role.

    Raises:
        DataError: A part is not ROLE=NAME, names an unknown role or one role twice; lists every such part.
    """
    columns: dict[str, str] = {}
    faults: list[str] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals:
            faults.append(f'"{part}" is not ROLE=NAME')
        elif role not in ROLES:
            faults.append(f'"{role}" is not one of {", ".join(ROLES)}')
        elif role in columns:
            faults.append(f'"{role}" is given twice')
        else:
            columns[role] = name
    if faults:
        raise DataError(f"--columns {text}: {'; '.join(faults)}. For example: user=uid,movie=film,rating=stars,time=ts")
    return columns


def parse_scale(text: str) -> RatingScale:
    """Reads "LOW:HIGH:STEP", for example "1:10:1".

    Raises:
        DataError: Not three numbers, or no scale: LOW must be below HIGH and STEP must divide the distance.
    """
    example = "it must be LOW:HIGH:STEP with STEP dividing HIGH - LOW, for example 0.5:5:0.5"
    try:
        low, high, step = (float(part) for part in text.split(":"))
    except ValueError:
        raise DataError(f"--scale {text}: {example}") from None
    # Either may be infinite: of ends far apart, or of a step that is next to nothing.
    fits = step > 0 and low < high and math.isfinite(high - low) and math.isfinite((high - low) / step)
    if not fits or abs((high - low) / step - round((high - low) / step)) > 1e-6:
        raise DataError(f"--scale {text}: {example}")
    return RatingScale(low, high, step)
