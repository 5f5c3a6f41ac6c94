"""Attacks the readers of data sets. Whatever the files hold, DataError is all that may come of it."""

import os
import shutil
from collections.abc import Sequence
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.errors import DataError
from trainer.readers import read_dataset

_LATEST = {
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,10,4.0,964982703\n1,2,0.5,964981247\n2,10,3.5,964982224\n",
    "movies.csv": b'movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n10,"Heat, The (2013) ",Action\n',
}
_ML_1M = {
    "ratings.dat": b"1::10::5::978300760\n2::2::3::978302109\n",
    "movies.dat": "2::Jumanji (1995)::Adventure|Children's\n10::Les Misérables (1998)::Drama\n".encode("latin-1"),
    "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072-1234\n",
}
_FLAGS = "|0" * 17
_ML_100K = {
    "u.data": b"2\t1\t3\t881250949\n1\t1\t5\t881250950\n",
    "u.item": f"1|Á köldum (1994)|08-Mar-1996||http://x|0|1{_FLAGS}\n2|unknown||||1|0{_FLAGS}\n".encode("latin-1"),
    "u.user": b"1|24|M|technician|85711\n2|53|F|other|V3N4P\n",
}


_USERS, _MOVIES, _STARS = ["a", "a", "bü"], [1, 2, 1], [4.0, 3.5, None]


def _parquet() -> bytes:
    table = pa.table({"user": _USERS, "movie": _MOVIES, "rating": _STARS, "time": [1, 2, 3]})
    return _written(table, compression="NONE")


def _other_parquet() -> bytes:
    """The same rows in other types, packed as another program would."""
    columns = {
        "user": pa.array(_USERS).dictionary_encode(),
        "movie": pa.array([str(movie).encode() for movie in _MOVIES]),
        "rating": pa.array([None if stars is None else Decimal(str(stars)) for stars in _STARS]),
        "time": pa.array([1_000_000, 2_000_000, 3_000_000], pa.timestamp("us")),
    }
    return _written(pa.table(columns), compression="SNAPPY", use_dictionary=False, data_page_version="2.0")


def _written(table: pa.Table, **options: object) -> bytes:
    stream = BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


class DataReaders:
    """The first byte of an input says which file of which data set the rest replaces."""

    def __init__(self, folder: Path) -> None:
        """Stores where files are written."""
        self._folder = folder / "data"
        self._cache = folder / "cache"
        # What is read from Parquet is kept as columns there; never in the cache of whoever runs this.
        os.environ["MARQUEE_CACHE"] = str(self._cache)
        parquet = _parquet()
        sets = [_LATEST, _ML_1M, _ML_100K, {"ratings.parquet": parquet}, {"interactions/1.parquet": parquet}]
        self._places = [(files, name) for files in sets for name in files]

    def seeds(self) -> Sequence[bytes]:
        """Returns inputs that spoil nothing."""
        seeds = [bytes([place]) + files[name] for place, (files, name) in enumerate(self._places)]
        parquet = [place for place, (_, name) in enumerate(self._places) if name.endswith(".parquet")]
        return seeds + [bytes([place]) + _other_parquet() for place in parquet]

    def attack(self, data: bytes) -> None:
        """Reads what an input makes of a data set. Raises what should not be raised."""
        if not data:
            return
        files, spoilt = self._places[data[0] % len(self._places)]
        for folder in (self._folder, self._cache):
            shutil.rmtree(folder, ignore_errors=True)
        for name, content in {**files, spoilt: data[1:]}.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            read_dataset(self._folder)
        except DataError:
            return
