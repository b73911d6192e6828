"""A prediction in words says no more than is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import saccade
from pipeline.predict import Decision
from pipeline.refer.label_set import LabelSet
from pipeline.run.artefacts import told_name
from pipeline.words import tell
from stages.amounts import apart


def test_it_says_what_is_about_reading_and_what_about_the_slide(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5)
    words = tell(found)
    assert words["what"].startswith(f"{found.predicted}, probability ")
    assert f"{found.patches_read} of {found.cells} patches with tissue" in words["what"]
    assert words["how_sure"].startswith("Reading all the tissue would, with 95 % confidence, give a probability ")
    assert words["how_sure"].endswith("This covers only the unread tissue, not how often the model is right.")
    assert words["how_good"] == "It is not known how good the model is."
    assert "on the thumbnail only" in words["not_read"]
    assert "is not known" in words["unusual"]
    warned = replace(found, out_of_distribution=2.5, warnings=("it is paler than any",))
    assert "unlike" in tell(warned)["unusual"]
    assert tell(warned)["unusual"].endswith("warning: it is paler than any.")
    assert not re.search(r"-\d", words["evidence"]), "a minus is a minus sign"


def test_a_number_is_told_by_its_name_without_an_article(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5)
    for name, words in (("age, years", "age, years between 40 and 60"), ("value", "a value between 40 and 60")):
        spec = replace(found.spec, task="regression", classes=(name,))
        ends = {"values": {name: 50.0}, "intervals": {name: (40.0, 60.0)}}
        parts = ("statistics", "constant", "patches", "unread")
        said = replace(found.attribution, **{part: getattr(found.attribution, part)[..., :1] for part in parts})
        other = replace(found, spec=spec, **ends, attribution=said)
        assert f"give {words}. This" in tell(other)["how_sure"]


def test_a_slide_that_looks_unlike_is_told_once_and_never_at_the_limit(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5)
    same = "it looks unlike the 40 slides that the model was trained on: paler (out-of-distribution score 1.02)"
    told = tell(replace(found, out_of_distribution=1.02, warnings=(same, "its bounds were cut")))["unusual"]
    assert told.count("unlike") == 1
    assert told.endswith("; warning: its bounds were cut.")
    assert "score 1.02;" in tell(replace(found, out_of_distribution=1.02, warnings=()))["unusual"]


def test_calls_and_decisions_are_told_where_there_are_any(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5)
    assert not {"called", "decided"} & tell(found).keys()
    both = ("normal", "tumour")
    for own, words in (
        (LabelSet(("tumour",), "tumour", "", 0.1, False), "Called tumour: the only class that may be the label, at a "),
        (
            LabelSet(both, "refer", "both are possible", 0.1, True),
            "Not called but referred, at a stated error of 10 % of ",
        ),
    ):
        assert tell(replace(found, label_set=own))["called"].startswith(words)
    for side, words in (("below", "Settled: "), ("undecided", "Not settled: ")):
        told = tell(replace(found, decision=Decision("tumour", side, 0.5, 0.01)))["decided"]
        assert told.startswith(words)
        assert "the probability of tumour" in told


def test_reading_everything_leaves_nothing_open(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5, samples=10_000)
    words = tell(found)
    assert "does not mean that the model is right" in words["how_sure"]
    assert words["not_read"] == "All tissue was read at the patches' resolution."
    decided = tell(replace(found, decision=Decision("1", "below", 0.9999999999, 0.01)))["decided"]
    assert decided == "Settled: all the tissue was read, and the probability of '1' lies below 0.9999999999."


def test_plus_speaks_for_the_class_whose_evidence_the_pictures_show(slides_folder: Path, checkpoint: Path) -> None:
    found = saccade.predict(slides_folder / "even.tif", checkpoint, mpp=0.5)
    first, second = found.values
    for p in (0.2, 0.8):
        predicted = replace(found, values={first: 1 - p, second: p})
        assert f"plus speaks for {apart(told_name(predicted))})" in tell(predicted)["evidence"]
        assert told_name(predicted) == second
