"""What pages hold of a run: names as text whatever they are, numbers that lead to the right pictures."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewing import HOSTILE, data_in, hostile

from pipeline.model.quality import UNKNOWN, Quality
from pipeline.output.run_record import NOTICE
from pipeline.view.cohort_page import cohort_page
from pipeline.view.findings import find
from pipeline.view.links import Links
from pipeline.view.page import in_page, sentence
from pipeline.view.run_folder import RunFolder, open_run
from pipeline.view.slide_page import slide_page
from pipeline.view.viewer import Viewer

SERVED = Links(served=True)


def test_sentences_begin_with_a_capital_but_paths_stay_what_they_are() -> None:
    assert sentence("the slide is gone") == "The slide is gone"
    for path in ("moved/a.tif", "a.tif", "C:\\a", "./a"):
        assert sentence(f"{path} is another slide") == f"{path} is another slide"


def page_of(run: RunFolder, number: int, **how: Any) -> str:
    found = find(run.slides[number])
    patches = range(len(found.samples.boxes)) if found.samples is not None else ()
    said: dict[str, Any] = {"notes": (), "background": (255, 255, 255), "patches": patches}
    return "".join(slide_page(run, run.slides[number], found, dict, SERVED, **{**said, **how}))


def test_the_table_has_each_slide_its_prediction_label_and_error(viewed: Path) -> None:
    run = open_run(viewed)
    page = cohort_page(run, SERVED)
    rows = re.findall(r"<tr data-number=.*?</tr>", page, re.DOTALL)
    assert len(rows) == 4
    for slide, row in zip(run.slides, rows, strict=True):
        assert unescape(slide.name) in row
        assert (f'href="s/{slide.number}/"' in row) is (slide.folder is not None)
        assert f'data-class="{slide.row["predicted"]}"' in row
        kinds = re.findall(r'data-kinds="(.*?)"', row)[0].split()
        assert ("wrong" in kinds) is bool(slide.wrong)
        assert slide.row["status"] in kinds
    ranks = [float(rank) for rank in re.findall(r'data-rank="(.*?)"', page)]
    wrong = [ranks[one.number] for one in run.slides if one.wrong]
    others = [ranks[one.number] for one in run.slides if not one.wrong]
    assert min(wrong, default=9) > max(others), "what is wrong comes first"
    assert unescape(rows[3]).count(str(run.slides[3].row["error"])) == 2, "why it failed, in full where it is cut"


def test_on_top_the_table_says_how_good_the_model_is_and_that_it_is_for_research(viewed: Path) -> None:
    def top(**changes: Any) -> str:
        """What stands above the table, as text."""
        run = open_run(viewed)
        page = cohort_page(replace(run, run={**run.run, **changes}), SERVED)
        return unescape(re.sub("<[^>]*>", "", page[: page.index("<table")]))

    found = Quality("yes", "", "test", 40, 30, 0.91, 0.83, 0.96)
    assert found.in_words() in top(quality=found.to_json())
    assert UNKNOWN in top()
    assert UNKNOWN in top(quality=None)
    assert "good" not in top(quality={"of": "a later version"})
    assert NOTICE in top()


def test_patches_have_their_numbers_and_the_gallery_the_strongest(viewed: Path) -> None:
    run = open_run(viewed)
    samples = find(run.slides[0]).samples
    assert samples is not None
    told = data_in(page_of(run, 0))
    column = samples.names.index(told["told"])
    for i, patch in enumerate(told["patches"]):
        assert patch["box"] == samples.boxes[i].tolist()
        assert patch["attention"] == pytest.approx(samples.attention[i])
        assert patch["weight"] == pytest.approx(samples.weights[i])
        assert patch["contribution"] == pytest.approx(samples.contributions[i, column])
        assert patch["picture"] == f"s/0/patch/{i}.jpg"
    said = samples.contributions[:, column]
    sure = np.abs(said) > samples.half_widths[:, column]
    for row, sign in enumerate((1, -1)):
        best = [i for i in np.argsort(-sign * said, kind="stable") if sure[i] and sign * said[i] > 0][:12]
        assert told["gallery"][row] == best


def test_hostile_names_are_text(run: Path) -> None:
    found = hostile(run)
    pages = [cohort_page(found, SERVED), page_of(found, 0, notes=[HOSTILE])]
    for page in pages:
        assert "<script>alert" not in page
        for script in re.findall(r"<script([^>]*)>", page):  # ours lie in files of their own, or hold data
            assert re.fullmatch(r' src="[^"]*" defer| type="application/json" id="data"', script)
        assert page.count("</script>") == len(re.findall(r"<script", page))
        for value in re.findall(r'="([^"]*)"', page):
            assert "<" not in value
    assert "$name ${name}" in pages[1], "a name is no place holder"
    shown = unescape(re.sub(r"<[^>]*>", " ", pages[0]))
    assert shown.count('<script>alert("x")</script>') >= 6, "and they are shown as they are"


def test_data_in_a_page_cannot_end_its_element() -> None:
    told = {"name": "</script><script>alert(1)</script><!--", "more": "a&b\u2028", "nan": float("nan")}
    text = in_page(told)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == told | {"nan": None}


def test_what_makes_a_prediction_doubtful_stands_below_it_on_the_slide_s_page(run: Path) -> None:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0]["warnings"] = "it looks unlike the <slides> of the training"
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    viewer = Viewer(open_run(run))
    doubted, plain = (viewer.page(viewer.run.slides[i], Links(served=False)) for i in (0, 1))
    assert '<p class="doubt">It looks unlike the &lt;slides&gt; of the training</p>' in doubted
    assert doubted.index("doubt") < doubted.index('id="overlay"')
    assert 'class="doubt"' not in plain
