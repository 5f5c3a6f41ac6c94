"""Says where downloaded data sets lie and which names they have. Knows no network and no file format."""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from trainer.errors import DataError

DATASET_NAMES = ("ml-100k", "ml-1m", "ml-latest-small", "ml-20m", "ml-25m", "ml-32m")
CACHE_VARIABLE = "MARQUEE_CACHE"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of downloaded data: `MARQUEE_CACHE`, else the platform's own place for caches."""
    stated = environment.get(CACHE_VARIABLE)
    return Path(stated) if stated else Path(platformdirs.user_cache_dir("marquee", appauthor=False))


def archive_of(name: str, cache: Path) -> Path:
    """Returns where the archive of a named data set lies once it is downloaded; it is read without unpacking."""
    return cache / f"{name}.zip"


def resolve_source(source: str | Path, cache: Path | None = None) -> Path:
    """Turns a path or the name of a data set into a path; a path that exists goes before a name.

    Raises:
        DataError: Neither a path nor a name, or the named data set is not downloaded yet.
    """
    path = Path(source)
    if path.exists():
        return path
    if str(source) in DATASET_NAMES:
        archive = archive_of(str(source), cache or cache_folder())
        if archive.exists():
            return archive
        raise DataError(f"{source}: not downloaded yet; run: python -m trainer download {source}")
    raise DataError(f"{source}: no such file or folder, and no data set of that name ({', '.join(DATASET_NAMES)})")
