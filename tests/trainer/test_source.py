"""Archives are read in place; damaged, encrypted, exploding and escaping ones are refused."""

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.errors import DataError
from trainer.readers import read_dataset

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(f"{n},{n % 7},{1 + n % 5},{n}\n" for n in range(50))


def _archive(path: Path, members: dict[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_an_archive_reads_as_its_folder(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """A zip gives the same rows as the folder it was made from, and nothing is unpacked beside it."""
    files = {"ratings.csv": RATINGS, "movies.csv": "movieId,title,genres\n" + "".join(f"{n},T,\n" for n in range(7))}
    place = tmp_path / "zips"
    place.mkdir()
    archive = _archive(place / "mini.zip", {f"mini/{name}": content for name, content in files.items()})

    from_archive, from_folder = read_dataset(archive), read_dataset(folder_of(files))

    assert from_archive.interactions.movie_rows.tolist() == from_folder.interactions.movie_rows.tolist()
    assert from_archive.name == "mini"
    assert list(place.iterdir()) == [archive]


def test_notes_of_an_operating_system_are_passed_over(tmp_path: Path) -> None:
    """An archive packed on a Mac holds a hidden twin of each file."""
    archive = _archive(tmp_path / "mini.zip", {"mini/views.csv": RATINGS, "__MACOSX/mini/._views.csv": b"\0\5\x16\7"})

    assert len(read_dataset(archive).interactions) == 50


def test_parquet_inside_an_archive_is_read(tmp_path: Path) -> None:
    """A format that must seek is read from an archive too."""
    import pandas as pd

    table = io.BytesIO()
    pd.DataFrame({"user": [1, 2], "movie": [1, 1], "rating": [2, 4]}).to_parquet(table)

    data = read_dataset(_archive(tmp_path / "mini.zip", {"ratings.parquet": table.getvalue()}))

    assert data.interactions.ratings.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("name", ["../evil.csv", "a/../../evil.csv", "/etc/evil.csv", "C:/evil.csv", "..\\evil.csv"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    """An archive with such a name is refused whole and writes nothing."""
    archive = _archive(tmp_path / "bad.zip", {"ratings.csv": RATINGS, name: "x"})

    with pytest.raises(DataError, match="points outside the archive"):
        read_dataset(archive)

    assert list(tmp_path.iterdir()) == [archive]


def test_a_symbolic_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    """A link may point anywhere, so it is not followed."""
    link = zipfile.ZipInfo("ratings.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")

    with pytest.raises(DataError, match="symbolic link"):
        read_dataset(tmp_path / "bad.zip")


def test_an_exploding_archive_is_refused(tmp_path: Path) -> None:
    """A member that would grow hundreds of times is refused before it is read."""
    archive = _archive(tmp_path / "bomb.zip", {"ratings.csv": b"0" * (32 * 2**20)})

    with pytest.raises(DataError, match="it would grow from"):
        read_dataset(archive)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    """A flipped byte and a missing end are told from each other and from good data."""
    good = _archive(tmp_path / "good.zip", {"ratings.csv": RATINGS}, zipfile.ZIP_STORED).read_bytes()
    flipped, cut = tmp_path / "flipped.zip", tmp_path / "cut.zip"
    flipped.write_bytes(good.replace(b"49,0,5,49", b"49,0,4,49"))
    cut.write_bytes(good[:-30])

    with pytest.raises(DataError, match=r"flipped\.zip/ratings\.csv: cannot be read"):
        read_dataset(flipped)
    with pytest.raises(DataError, match=r"cut\.zip: not a readable zip archive"):
        read_dataset(cut)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    """The flag alone is enough: no password is asked for."""
    content = bytearray(_archive(tmp_path / "locked.zip", {"ratings.csv": RATINGS}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(content)

    with pytest.raises(DataError, match="encrypted"):
        read_dataset(tmp_path / "locked.zip")


def test_an_unknown_source_lists_the_names(tmp_path: Path) -> None:
    """Neither path nor data set: the message says which names there are."""
    with pytest.raises(DataError, match=r"no such file or folder.*ml-latest-small"):
        read_dataset(tmp_path / "absent")


def test_a_named_data_set_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for the downloaded archive; before the download the message gives the command."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="python -m trainer download ml-latest-small"):
        read_dataset("ml-latest-small")
    _archive(tmp_path / "ml-latest-small.zip", {"ml-latest-small/ratings.csv": RATINGS})

    data = read_dataset("ml-latest-small")

    assert data.name == "ml-latest-small"
    assert len(data.interactions) == 50
