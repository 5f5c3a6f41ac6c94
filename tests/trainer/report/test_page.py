"""The page of a report is drawn by a browser that has no network, whatever stands in titles."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.report.findings import (
    Band,
    BiasedMovie,
    Findings,
    GenreBias,
    Interval,
    MapPoint,
    Neighbour,
    Neighbourhood,
    Reliability,
    Stranger,
)
from trainer.report.page import page_of, plot_names

NASTY = "</script><script>document.title='owned'</script> & \"Up\" (2009)"
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.fixture
def findings() -> Findings:
    """Something of everything, with a title that tries to be more than a title."""
    rng = np.random.default_rng(0)
    genres = ("Comedy", "Drama", "<b>")
    return Findings(
        title="toy <model>",
        facts=(("options", "a=<1>"),),
        curves={"training mse": ((0.5, 2.0), (1.0, 1.0)), "validation rmse": ((0.5, 1.1), (1.0, 1.0))},
        reliability=(Reliability(2.0, 2.1, 10), Reliability(4.0, 3.9, 10)),
        intervals=(Interval(0.5, 0.48), Interval(0.8, 0.81)),
        by_known=(Band("0", 10, 1.0, 0.1, 0.8), Band("1 to 4", 10, 0.9, 0.0, None)),
        by_popularity=(Band("10 to 29", 20, 0.95, 0.0, None),),
        strangers=(Stranger(0, 10, 1.1, 0.01), Stranger(5, 10, 1.0, 0.05)),
        best_movies=(BiasedMovie(NASTY, 0.8, 12), BiasedMovie("Heat (1995)", 0.7, 10)),
        worst_movies=(BiasedMovie("Heat (1995)", -0.7, 11),),
        genre_biases=(GenreBias("Comedy", 0.1, 3), GenreBias("<b>", -0.1, 3)),
        genres=genres,
        genre_cosines=((1.0, 0.2, 0.1), (0.2, 1.0, -0.4), (0.1, -0.4, 1.0)),
        neighbourhoods=(Neighbourhood(NASTY, (Neighbour("Heat (1995)", 0.9),)),),
        movie_map=tuple(
            MapPoint(NASTY if n == 0 else f"Movie {n}", genres[n % 3], n, float(rng.normal()), float(rng.normal()))
            for n in range(30)
        ),
    )


def test_the_page_asks_for_nothing_from_elsewhere(findings: Findings) -> None:
    """No script, style, image or font is loaded; one file can be sent to somebody."""
    page = page_of(findings).decode()
    ours = re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)

    assert len(ours) < 200_000
    assert not re.search(r"""(src|href)\s*=\s*["']""", ours)
    assert "http" not in ours.replace("http://www.w3.org", "")


def test_titles_are_text(findings: Findings) -> None:
    """Markup in a title is shown, not obeyed."""
    page = page_of(findings).decode()

    assert "</script><script>document.title" not in page
    assert "toy &lt;model&gt;" in page
    assert "a=&lt;1&gt;" in page


def test_what_there_is_nothing_of_is_left_out(findings: Findings) -> None:
    """A model without ratings has no error to show, and no heading above nothing."""
    without = replace(findings, reliability=(), intervals=(), by_known=(), by_popularity=(), best_movies=())

    assert {"reliability", "intervals", "error-by-known", "movie-biases"}.isdisjoint(plot_names(without))
    assert "Where it errs" not in page_of(without).decode()


def test_a_browser_draws_every_plot(findings: Findings, tmp_path: Path) -> None:
    """Headless Chromium, without network: each div holds a drawing, and the map has a point for each movie."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH: the report is not looked at in a browser")
    path = tmp_path / "report.html"
    path.write_bytes(page_of(findings))

    shown = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=20000", "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout

    names = plot_names(findings)
    assert len(names) == 11
    after_each = re.split(r'<div id="plot-([\w-]+)"', shown)[1:]
    drawn = dict(zip(after_each[::2], after_each[1::2], strict=True))
    assert tuple(drawn) == names
    for name, content in drawn.items():
        assert 'class="main-svg"' in content, name
        assert re.search(r'class="(points?|lines|bars|hm|trace[\w ]*)"', content), name
    assert len(re.findall(r'<path class="point"', drawn["movie-map"])) == 30
    assert "<title>toy &lt;model&gt;</title>" in shown
