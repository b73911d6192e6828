"""The report: everything about a run on one page that needs nothing but its own folder."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from reports import HOSTILE, JPEG, Page

from pipeline.report import embedded
from pipeline.report.figures import MISSING
from pipeline.report.report import write_report
from pipeline.report.slides import PAGE, error_of

NAMES = ["plain", HOSTILE.replace("/", "_"), "組織 1", "../up"]
ENDS = {"": 0.0, "_low": -0.05, "_high": 0.05}


def row(name: str, classes: list[str], **changes: Any) -> dict[str, Any]:
    share = 1 / len(classes)
    chances = {f"prob_{c}{end}": share + d for c in classes for end, d in (("", 0.0), ("_low", -0.1), ("_high", 0.125))}
    plain = {"slide_id": name, "path": f"/cohort/{name}.svs", "status": "ok", "error": "", "predicted": classes[-1]}
    cost = {
        "patches_read": 40,
        "cells": 800,
        "fraction_read": 0.05,
        "bytes_read": 1_500_000,
        "seconds": 2.0,
        "key": "k",
    }
    return {**plain, **chances, **cost, **changes}


def failed(name: str, error: str) -> dict[str, Any]:
    return {"slide_id": name, "path": f"/cohort/{name}", "status": "failed", "error": error, "seconds": 0.1}


def run(classes: list[str], **changes: Any) -> dict[str, Any]:
    plain = {
        "command": ["saccade", "run", "my slides", "--model", "m.safetensors"],
        "settings": {"model": "/models/m.safetensors", "samples": None, "seed": 0},
        "classes": classes,
        "started": "2030-01-02T03:04:05+00:00",
        "ended": "2030-01-02T03:06:10+00:00",
        "reused": 1,
        "bytes_read": 6_000_000,
        "slide_bytes": 600_000_000,
        "metrics": {},
    }
    return {**plain, **changes}


def report(folder: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> Page:
    write_report(folder / "report.html", rows, about)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("classes", [["normal", "tumour"], ["a", "b", "<c> & d"]])
def test_every_link_leads_to_a_file_of_the_run(tmp_path: Path, classes: list[str]) -> None:
    names = NAMES[:3]
    for name in names:
        folder = tmp_path / "slides" / name
        folder.mkdir(parents=True)
        for file in ("overlay.jpg", "evidence.jpg", "gallery.jpg", "overlay.geojson", "slide.html"):
            (folder / file).write_bytes(b"")
        if name != "plain":  # which is of an earlier version
            (folder / "preview.jpg").write_bytes(JPEG)
    for name in ("predictions.csv", "run.json"):
        (tmp_path / name).write_bytes(b"")
    page = report(tmp_path, [row(name, classes) for name in names], run(classes))
    links = [a["href"] for a in page.all("a")] + [i["src"] for i in page.all("img")]
    held = [link for link in links if (link or "").startswith("data:")]
    assert held == [f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"] * 2
    links = [link for link in links if link not in held]
    assert len(links) == 6 * len(names) - len(held) + 2
    for link in links:
        parts = urlsplit(link or "")
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        assert (tmp_path / unquote(parts.path)).is_file(), link
    assert all(image["alt"] for image in page.all("img"))


def test_hostile_names_and_errors_are_text_only(tmp_path: Path) -> None:
    classes = ["normal", HOSTILE]
    rows = [row(name, classes) for name in NAMES] + [failed(HOSTILE, HOSTILE)]
    plain = report(tmp_path, [row("x", ["n", "t"]) for _ in NAMES] + [failed("x", "y")], run(["n", "t"]))
    about = run(classes, command=[HOSTILE], settings={HOSTILE: HOSTILE}, metrics={HOSTILE: {"value": 0.5}})
    page = report(tmp_path, rows, about)
    assert len(page.all("script")) == 1
    assert page.text.count(HOSTILE) >= 6
    allowed = {name for _, attributes in plain.tags for name in attributes} | {"hidden"}
    assert {name for _, attributes in page.tags for name in attributes} <= allowed  # no onclick, no style
    # a name cannot climb out of the run's folder
    assert not any(".." in (link["href"] or "").split("/") for link in page.all("a"))


def test_nothing_but_its_own_style_script_and_pictures_may_load(tmp_path: Path) -> None:
    page = report(tmp_path, [row("x", ["n", "t"])], run(["n", "t"]))
    [policy] = [m["content"] or "" for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "'self' file: data:"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inline[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|url\(|@import", source)


def test_says_what_the_run_did(tmp_path: Path) -> None:
    metrics = {"slides": 4, "patients": 3, "auroc": {"value": 0.97, "low": 0.9, "high": None}, "f1": {"value": None}}
    rows = [
        row("one", ["n", "t"], fraction_read=0.02),
        row("two", ["n", "t"], fraction_read=0.04),
        failed("bad", "torn"),
    ]
    text = report(tmp_path, rows, run(["n", "t"], metrics=metrics)).text
    for said in (
        "2 of 3 1 reused",
        "slides failed 1",
        "1 slide failed",
        "bad /cohort/bad torn",
        "80 of 1,600 with tissue",
        "3.0% 2.0% to 4.0%",
        "6 MB 1.0% of the slides' 600 MB",
        "2 min 5 s",
        "probability of t",
        "0.50 [0.40, 0.62]",
        "4 slides, 3 patients",
        "AUROC 0.970",
        "saccade run 'my slides' --model m.safetensors",
        "/models/m.safetensors",
    ):
        assert said in text, said


def test_what_was_not_tried_is_not_said_to_have_failed(tmp_path: Path) -> None:
    """As in the report of a run that is going on, or was stopped."""
    waiting = [{**failed(name, why), "status": "waiting"} for name, why in (("a", ""), ("b", "failed before: torn"))]
    text = report(tmp_path, [row("one", ["n", "t"]), *waiting], run(["n", "t"])).text
    for said in (
        "1 of 3 1 reused, 2 not tried",
        "slides failed 0",
        "2 slides not tried",
        "b /cohort/b failed before: torn",
    ):
        assert said in text, said
    assert "no reason" not in text


def test_bars_show_value_and_interval_to_scale(tmp_path: Path) -> None:
    changes = {"prob_t": 0.25, "prob_t_low": 0.0, "prob_t_high": 1.0}
    page = report(tmp_path, [row("x", ["n", "t"], **changes)], run(["n", "t"]))
    [track] = [r for r in page.all("rect") if r["class"] == "track"]
    [band] = [r for r in page.all("rect") if r["class"] == "band"]
    [point] = [r for r in page.all("rect") if r["class"] == "point"]
    assert (float(band["x"] or 0), float(band["width"] or 0)) == (float(track["x"] or 0), float(track["width"] or 0))
    centre = float(point["x"] or 0) + float(point["width"] or 0) / 2
    assert centre == pytest.approx(float(track["x"] or 0) + 0.25 * float(track["width"] or 0), abs=0.06)
    assert page.all("svg")[0]["aria-label"] == "probability of t: 0.25 [<0.0001, >0.9999]"


def test_missing_numbers_read_as_missing(tmp_path: Path) -> None:
    """As in rows read back from a table: empty cells and NaN, or a run that says nothing of itself."""
    blank = {key: "" for key in row("x", ["n", "t"]) if key not in ("slide_id", "path", "status", "predicted")}
    rows = [row("x", ["n", "t"], **blank), row("y", ["n", "t"], prob_t=math.nan, fraction_read=math.nan)]
    text = report(tmp_path, rows, run(["n", "t"])).text
    assert "nan" not in text.lower()
    assert "\N{EN DASH}" in text
    assert "0 of 0" in report(tmp_path, [], {}).text
    assert "0 of 1" in report(tmp_path, [failed("x", "")], {}).text


def test_names_that_are_not_valid_text_do_not_stop_the_report(tmp_path: Path) -> None:
    page = report(tmp_path, [row("bad\udcff", ["n", "t"])], run(["n", "t"]))
    assert page.all("img")[0]["src"] == "slides/bad%FF/overlay.jpg"


def test_a_class_called_value_is_no_metric(tmp_path: Path) -> None:
    classes = ["low", "value"]
    metrics = {"slides": 2, "slides_per_class": {"low": 1, "value": 1}, "auroc": {"value": 0.5, "low": 0, "high": 1}}
    write_report(tmp_path / "report.html", [row("s", classes)], run(classes, metrics=metrics))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "AUROC" in text
    assert "slides per class" not in text


def test_wrong_predictions_are_counted_named_and_sorted_first(tmp_path: Path) -> None:
    """Slides that the metrics leave out are labelled, too, and are not among the counted."""
    rows = [
        row("right", ["n", "t"], label="t"),
        row("missed", ["n", "t"], label="t", predicted="n"),
        row("own", ["n", "t"], label="n", not_counted="trained on"),
        row("unknown", ["n", "t"]),
    ]
    page = report(tmp_path, rows, run(["n", "t"]))
    assert "The most probable class is the label of 1 of 2 slides ; wrong: 1 of 2 t predicted n." in page.text
    assert {body["data-kinds"] for body in page.all("tbody") if "missed" in (body.get("data-text") or "")} == {"wrong"}
    keys = [json.loads(body["data-by"] or "")[1] for body in page.all("tbody") if "data-by" in body]
    assert sorted(key[3] for key in keys) == ["0 n", "0 t", "1 t", "2"]
    assert [option["value"] for option in page.all("option")] == ["", "wrong", "", "0", "1"]
    assert "Against the labels" not in report(tmp_path, rows[3:], run(["n", "t"])).text


def test_slides_that_look_unlike_the_training_are_named_on_top(tmp_path: Path) -> None:
    rows = [row(HOSTILE, ["n", "t"], out_of_distribution=1.004), row("plain", ["n", "t"], out_of_distribution=0.3)]
    text = report(tmp_path, rows, run(["n", "t"])).text
    top = text[: text.index("slides predicted")]
    assert f"1 slide looks unlike those of the training {HOSTILE} (1.004); the limit is 1." in top
    assert "plain" not in top


def test_words_stand_in_a_row_as_wide_as_the_table(tmp_path: Path) -> None:
    """Without how good the model is, which is said once, above."""
    words = {"what": "it is t", "how_good": "good enough"}
    changes = {"label": "t", "decision": "t above", "decided_at": 0.5, "risk": 0.01, "call": "t", "call_why": ""}
    for more in ({}, changes):
        page = report(tmp_path, [row("x", ["n", "t"], words=words, **more)], run(["n", "t"]))
        [wide] = [cell for cell in page.all("td") if "colspan" in cell]
        assert wide["colspan"] == str(len([head for head in page.all("th") if head.get("scope") == "col"]))
        assert "it is t" in page.text
        assert "good enough" not in page.text
    assert "settled: P(t) above 0.5 risk 0.01" in page.text


def test_says_of_what_by_which_model_how_and_that_it_is_for_research(tmp_path: Path) -> None:
    about = run(
        ["n", "t"], cohort="c.csv", model="m", effective={"patches a slide": "20"}, versions={"torch": "2", "x": None}
    )
    text = report(tmp_path, [row("x", ["n", "t"])], about).text
    assert text.count("c.csv, predicted by the model 'm'") == 2
    assert "patches a slide 20" in text
    assert "versions torch 2 " in text
    assert "not a medical device" in text


def test_more_bytes_than_the_slides_have_are_explained(tmp_path: Path) -> None:
    for read, told in ((6_000_000, False), (600_000_000, False), (900_000_000, True)):
        text = report(tmp_path, [row("x", ["n", "t"])], run(["n", "t"], bytes_read=read)).text
        assert ("a tile counts each time that it is read" in text) is told


def test_label_sets_against_labels_stand_in_a_table(tmp_path: Path) -> None:
    share = {"value": 0.75, "low": 0.5, "high": 0.875}
    one = {"slides": 4, "patients": 4, "coverage": share, "referred": share, "wrong": share}
    refer = {
        "about": "Type `saccade run`.",
        "calls": {"x": 1},
        "abstention": [],
        "stated_error": 0.1,
        "not_counted": 0,
        "too_sure": 0,
        "unlike": 0,
        "found": {**one, "error_of_called": share, "sites": {"<here>": one}},
    }
    page = report(tmp_path, [row("a", ["x", "y"])], run(["x", "y"], quality=None, refer=refer))
    assert "`" not in page.text
    assert "saccade run" in page.texts
    cells = "4 75.0% 50.0% to 87.5% 75.0%"
    at = page.text.index("wrong, of the called")
    assert page.text[at:].startswith(f"wrong, of the called all {cells} 75.0% <here> {cells} {MISSING}")


def test_memory_is_told_in_its_unit(tmp_path: Path) -> None:
    write_report(
        tmp_path / "r.html",
        [row("s", ["a", "b"])],
        {"classes": ["a", "b"], "settings": {"memory": 4_000_000_000, "seed": 3}},
    )
    text = Page((tmp_path / "r.html").read_text()).text
    assert "memory 4 GB" in text
    assert "4000000000" not in text


def test_survival_tells_its_chances_by_name_and_what_a_risk_means(tmp_path: Path) -> None:
    told = {"risk_score": -0.1, "survival_2": 0.9, "survival_5": 0.625}
    rows = [
        {
            **{key: value for key, value in row("s", ["a"]).items() if not key.startswith("prob_")},
            "predicted": -0.1,
            **{f"{name}{end}": value + by for name, value in told.items() for end, by in ENDS.items()},
        }
    ]
    run = {"task": "discrete_survival", "classes": ["risk_score"], "times": [2, 5]}
    write_report(tmp_path / "r.html", rows, run)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "risk_score -0.1 [-0.15, -0.05]" in text
    assert re.search(r"survival_5 probability of survival_5: 0?\.62\d* \[", text), text
    assert "survival_t is the chance to be without the event until time t" in text
    write_report(tmp_path / "r.html", rows, {"task": "survival", "classes": ["risk_score"]})
    text = Page((tmp_path / "r.html").read_text()).text
    assert "0.69 more is twice the hazard" in text
    assert "survival_5" not in text


def held_rows(source: str) -> list[Any]:
    """What the page's script holds of rows that do not stand in the table."""
    [text] = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', source, re.DOTALL)
    rows: list[Any] = json.loads(text)
    return rows


def test_of_many_rows_the_first_stand_in_the_page_and_its_script_holds_the_others(tmp_path: Path) -> None:
    hostile = "</script><!--<script>alert(1)</script>"
    rows = [row(f"s{i}", ["n", "t"], label="t" if i % 3 else "n", path=hostile) for i in range(PAGE + 7)]
    page = report(tmp_path, rows, run(["n", "t"]))
    standing = [body["data-text"] or "" for body in page.all("tbody") if "data-text" in body]
    held = held_rows((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [text.split()[0] for text in standing] == [f"s{i}" for i in range(PAGE)]
    assert [text.split()[0] for _, text, *_ in held] == [f"s{i}" for i in range(PAGE, PAGE + 7)]
    assert len(page.all("script")) == 2
    assert "The first 100 slides stand here; 7 more show where scripts may run." in page.text
    inner = Page(f"<table><tbody>{held[0][0]}</tbody></table>")
    assert not inner.all("script")
    assert hostile in inner.text
    one = next(json.loads(body["data-by"] or "") for body in page.all("tbody") if "data-by" in body)
    assert len(held[0][3][1]) == len(one[1])  # a key for each column


def test_pictures_that_matter_most_are_in_the_page_and_the_others_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        (tmp_path / "slides" / f"s{i}").mkdir(parents=True)
        (tmp_path / "slides" / f"s{i}" / "preview.jpg").write_bytes(JPEG)
    size = len(f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}")
    monkeypatch.setattr(embedded, "BUDGET", 2 * size + 1)
    found = embedded.previews(tmp_path, ["s4", "gone", "../s1", "s0", "s5", "s1"])
    assert list(found) == ["s4", "s0", "s5", "s1"]
    assert [one.startswith("data:") for one in found.values()] == [True, True, False, False]
    assert found["s5"] == "slides/s5/preview.jpg"


def test_the_page_says_which_pictures_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"s{i}", ["n", "t"], label="n" if i == 3 else "t") for i in range(5)]
    for one in rows:
        (tmp_path / "slides" / one["slide_id"]).mkdir(parents=True)
        (tmp_path / "slides" / one["slide_id"] / "preview.jpg").write_bytes(JPEG)
    assert "pictures of" not in report(tmp_path, rows, run(["n", "t"])).text
    monkeypatch.setattr(embedded, "BUDGET", 2 * len(JPEG))
    page = report(tmp_path, rows, run(["n", "t"]))
    assert "The pictures of 1 slide are in this page" in page.text
    [inside] = [image for image in page.all("img") if (image["src"] or "").startswith("data:")]
    assert (inside["alt"] or "").startswith("s3:")  # which is wrong


def test_errors_come_first_where_that_is_asked_for() -> None:
    """By how little probability the label had; of numbers by their distance; none without a label."""
    wrong = row("w", ["n", "t"], label="n", prob_n=0.4)
    right = row("r", ["n", "t"], label="t", prob_t=0.6)
    surely_wrong = row("s", ["n", "t"], label="n", prob_n=0.1)
    assert error_of(surely_wrong) > error_of(wrong) > 1 > error_of(right) > 0
    assert error_of(row("x", ["n", "t"])) == -1
    assert error_of({"label": "3.5", "agrees": None, "predicted": 5.0}) == 1.5
    assert error_of({"label": "3 (event)", "agrees": None, "predicted": 5.0}) == -1
    assert error_of({"label": "a, b", "agrees": False, "predicted": "a"}) == 1


def test_a_seed_of_0_is_a_setting_and_so_is_the_encoder(tmp_path: Path) -> None:
    card = {
        "name": "lite0",
        "source": "pypi:x",
        "revision": "1",
        "licence": "Apache-2.0",
        "digest": "c" * 64,
        "doubts": [],
    }
    text = report(tmp_path, [row("x", ["n", "t"])], run(["n", "t"], encoder=card, quality=None)).text
    assert "seed 0" in text
    assert f"encoder lite0, from pypi:x, revision 1, licence Apache-2.0, digest {'c' * 64}" in text
