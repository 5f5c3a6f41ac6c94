"""Who was deleted is in no file that a rebuild makes or leaves behind, byte by byte."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.integration.rebuild.looped import Looped
from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset
from two_tower.checkpoint import load

FORGOTTEN = "forget-me-5e1f"
ONLY_HIS = "watched-by-him-alone-77aa"


def files_that_name(folder: Path, text: str) -> list[str]:
    """Returns the files that hold a text, as bytes or, where they are compressed, once they are read."""
    found = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(pq.read_table(path).to_pydict()).encode()
        if text.encode() in content:
            found.append(str(path.relative_to(folder)))
    return found


def test_a_deleted_user_is_gone_from_snapshot_checkpoint_and_golden_answers(looped: Looped) -> None:
    """His rows, his id, his vector; the golden user, whose id was his, is another; so are older snapshots."""
    looped = Looped(looped.registry, looped.channel, _with_somebody_to_forget())
    before = looped.begin()
    assert files_that_name(looped.registry.path / before, FORGOTTEN) == ["manifest.json", "vocabularies.json"]
    assert len(files_that_name(looped.registry.path / "snapshots", FORGOTTEN)) == 2
    looped.feed(looped.part(0, 200))
    looped.delete(FORGOTTEN)
    looped.feed(looped.part(200, len(looped.new)))

    result = looped.rebuild()

    assert (result.outcome, result.num_deleted) == ("promoted", 1)
    assert files_that_name(looped.registry.path / (result.version or ""), FORGOTTEN) == []
    assert files_that_name(looped.registry.path / (result.candidate or ""), FORGOTTEN) == []
    assert files_that_name(looped.registry.path / "snapshots", FORGOTTEN) == []
    assert looped.snapshots.names() == [result.snapshot]
    # The old checkpoint still has him: it is not served any more, and goes when it is no longer kept.
    assert {file.split("/")[0] for file in files_that_name(looped.registry.path, FORGOTTEN)} == {before}
    model = load(looped.registry.path / (result.version or "")).model
    assert not model.knows_users([FORGOTTEN]).any()
    # That nobody is left who watched a movie is no reason to hold a checkpoint back.
    assert ONLY_HIS not in model.vocabularies()["movies"]
    again = looped.rebuild()
    assert (again.outcome, again.num_deleted) == ("nothing_new", 0)


def test_what_somebody_does_after_his_deletion_is_his_again(looped: Looped) -> None:
    """Rows up to the deletion are gone, later ones stay, and a rating from before does not come back with them."""
    looped.begin()
    looped.delete("u7")
    watched = int(looped.old.movie_rows[looped.old.user_rows == looped.data.user_ids.index("u7")][0])
    later_ms = int(time.time() * 1000) + 60_000
    looped.watch("u7", looped.data.movies.movie_ids[watched], later_ms)

    looped.rebuild()

    found = looped.newest_data()
    mine = found.interactions.take(found.interactions.user_rows == found.user_ids.index("u7"))
    assert mine.event_times_ms.tolist() == [later_ms]
    assert np.isnan(mine.ratings).all()


def _with_somebody_to_forget() -> Dataset:
    data = toy_dataset(num_users=150)
    movie_ids = list(data.movies.movie_ids)
    movie_ids[-1] = ONLY_HIS
    # The oldest row of all is the first of the training rows: its user is the golden one.
    rows, user_ids = data.interactions, list(data.user_ids)
    oldest = int(np.argsort(rows.event_times_ms, kind="stable")[0])
    rows.movie_rows[oldest] = len(movie_ids) - 1
    user_ids[rows.user_rows[oldest]] = FORGOTTEN
    movies = replace(data.movies, movie_ids=movie_ids)
    return replace(data, user_ids=user_ids, movies=movies)
