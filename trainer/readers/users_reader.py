"""Reads a file of users: gender, age, occupation, zip code. Knows how MovieLens writes them; knows no rating."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.readers.keyed_table import KeyedTable, read_keyed_table
from trainer.readers.layouts import KNOWN, ML_1M_OCCUPATIONS, Layout
from trainer.readers.source import SourceFile
from two_tower.user_columns import Profiles

MAX_AGE = 130
MAX_BYTES = {"gender": 32, "occupation": 64, "zip": 32}
"""Length of a text that the services keep, in UTF-8: marquee/v1/user.proto."""
GENDERS = {"m": "M", "male": "M", "f": "F", "female": "F"}
"""Spellings of MovieLens's two letters; any other text stays as it is."""


@dataclass(frozen=True, slots=True)
class Users:
    """The users of a users file, in its order."""

    user_ids: list[str]
    profiles: Profiles
    zips: list[str | None]
    table: KeyedTable


def read_users(file: SourceFile, layout: Layout, max_share: float) -> Users:
    """Reads a users file; an empty field is an unknown one, an age that is no number from 0 to 130 too.

    So is a text that no service keeps, which is noted.

    Raises:
        DataError: It is empty, damaged, or has too many broken rows.
    """
    table = read_keyed_table(file, layout, "user", max_share)
    occupation_of = _named_occupation if layout is KNOWN["users.dat"] else _or_none
    ages = np.asarray(table.mapped("age", _age), np.float32)
    profiles = Profiles(_texts(table, "gender", _gender), ages, _texts(table, "occupation", occupation_of))
    return Users(table.ids, profiles, _texts(table, "zip", _or_none), table)


def _texts(table: KeyedTable, role: str, meaning: Callable[[str], str | None]) -> list[str | None]:
    most = MAX_BYTES[role]

    def kept(text: str | None) -> str | None:
        return text if text is None or len(text.encode()) <= most else None

    return table.storable(table.mapped(role, meaning), kept, f"{role} over {most} bytes of UTF-8: read as unknown")


def _or_none(text: str) -> str | None:
    return text or None


def _gender(text: str) -> str | None:
    return GENDERS.get(text.lower(), text) or None


def _age(text: str) -> float:
    try:
        age = float(text)
    except ValueError:
        return float("nan")
    return age if 0 <= age <= MAX_AGE else float("nan")


def _named_occupation(code: str) -> str | None:
    known = code.isascii() and code.isdigit() and int(code) < len(ML_1M_OCCUPATIONS)
    return ML_1M_OCCUPATIONS[int(code)] if known else _or_none(code)
