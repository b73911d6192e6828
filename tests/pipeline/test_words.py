"""A prediction in words says no more than is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import saccade
from pipeline.words import chance, tell


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.5, "0.50"),
        (0.994, "0.994"),
        (0.99962, "0.9996"),
        (0.9999997, "above 0.9999"),
        (2e-9, "below 0.0001"),
        (0.031, "0.03"),
        (1.0, "1.00"),
        (0.0, "0.00"),
    ],
)
def test_a_probability_is_never_rounded_to_certainty(p: float, words: str) -> None:
    assert chance(p) == words


def test_it_says_what_is_about_reading_and_what_about_the_slide(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5)
    words = tell(found)
    assert words["what"].startswith(f"{found.predicted}, probability ")
    assert f"{found.patches_read} of {found.cells} patches" in words["what"]
    assert "not about how often the model is right" in words["how_sure"]
    assert words["how_good"] == "How good the model is is not known."
    assert "on the thumbnail only" in words["not_read"]
    assert "is not known" in words["unusual"]
    warned = replace(found, out_of_distribution=2.5, warnings=("it is paler than any",))
    assert "unlike" in tell(warned)["unusual"]
    assert tell(warned)["unusual"].endswith("warning: it is paler than any.")


def test_reading_everything_leaves_nothing_open(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5, samples=10_000)
    words = tell(found)
    assert "does not mean that the model is right" in words["how_sure"]
    assert words["not_read"] == "All tissue was read at the patches' resolution."
