"""A slide's sheet holds all that is said of it, needs nothing beside it, and never takes a text for markup."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from reports import HOSTILE, JPEG, Page

from pipeline.model.quality import Quality
from pipeline.report.slide_sheet import write_slide_sheet


def commit(**changes: Any) -> dict[str, Any]:
    row = {
        "predicted": "t",
        "prob_n": 0.0,
        "prob_n_low": 0.0,
        "prob_n_high": 0.125,
        "prob_t": 1.0,
        "prob_t_low": 0.875,
        "prob_t_high": 1.0,
        "patches_read": 24,
        "cells": 1392,
        "fraction_read": 0.062,
        "bytes_read": 522_866,
        "seconds": 2.5,
        "out_of_distribution": None,
        "warnings": [],
    }
    return {
        "row": {**row, **changes.pop("row", {})},
        "words": {"evidence": "then", "what": "first"},
        "made_of": {"model": "a" * 64, "samples": 24, "scheme": "systematic", "seed": 0, "mpp": None, "version": 6},
        "read_by": {"saccade": "0.1.0", "zarr": None},
        "mpp": [0.25, 0.5],
        "path": "/cohort/s.svs",
        "fingerprint": "f" * 64,
        "key": "k" * 64,
        "written": "2030-01-02T03:04:05+00:00",
        **changes,
    }


def sheet(folder: Path, told: dict[str, Any]) -> Page:
    folder.mkdir(exist_ok=True)
    write_slide_sheet(folder / "slide.html", told, [("overlay.jpg", "where it looked", JPEG)])
    return Page((folder / "slide.html").read_text(encoding="utf-8"))


def test_it_says_what_was_found_how_sure_that_is_and_what_it_was_made_with(tmp_path: Path) -> None:
    card = {"name": "lite0", "source": "pypi:x", "licence": "Apache-2.0", "digest": "e" * 64}
    text = sheet(tmp_path / "s1", commit(encoder=card)).text
    for said in (
        "s1 For research only: Saccade is not a medical device. first then",
        "probability of n <0.0001 <0.0001 to 0.12",
        "probability of t >0.9999 0.88 to >0.9999",
        "patches read 24 of 1,392 with tissue",
        "share of the tissue 6.2%",
        "level 0 0.25 x 0.5 µm/px",
        f"model's digest {'a' * 64}",
        "encoder lite0 (pypi:x; licence: Apache-2.0)",
        "settings samples 24, scheme systematic, seed 0",
        "versions saccade 0.1.0",
        f"key of the result {'k' * 64}",
    ):
        assert said in text, said
    assert "Warnings" not in text


def test_its_pictures_are_in_it_and_nothing_may_run_or_load(tmp_path: Path) -> None:
    page = sheet(tmp_path / "s1", commit())
    [image] = page.all("img")
    assert base64.b64decode((image["src"] or "").removeprefix("data:image/jpeg;base64,")) == JPEG
    assert page.all("script") == []
    [policy] = [m["content"] or "" for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "script-src 'none'" in policy
    assert "default-src 'none'" in policy


def test_what_is_doubtful_stands_on_top(tmp_path: Path) -> None:
    told = commit(row={"warnings": ["patches at an edge"]}, quality=Quality("no", "at chance").to_json())
    text = sheet(tmp_path / "s1", told).text
    assert text.index("this model has not learned to tell its classes apart: at chance") < text.index("first")
    assert text.index("patches at an edge") < text.index("first")


def test_hostile_texts_are_text_and_change_no_address(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "_")
    plain = sheet(tmp_path / "plain", commit(patient="p", words={"what": "w"}, row={"warnings": ["w"]}))
    told = commit(
        path=HOSTILE, words={"what": HOSTILE}, patient=HOSTILE, row={"warnings": [HOSTILE], "predicted": HOSTILE}
    )
    page = sheet(tmp_path / name, told)
    assert page.text.count(HOSTILE) >= 4
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert [a["href"] for a in page.all("a")] == [a["href"] for a in plain.all("a")]


@pytest.mark.parametrize("missing", ["read_by", "fingerprint", "written", "path", "encoder", "quality"])
def test_what_an_earlier_version_did_not_record_is_left_out(tmp_path: Path, missing: str) -> None:
    told = commit()
    told.pop(missing, None)
    text = sheet(tmp_path / "s1", json.loads(json.dumps(told))).text
    assert "first then" in text
    assert "None" not in text


def test_numbers_are_told_where_there_are_no_probabilities(tmp_path: Path) -> None:
    row = {"predicted": 3.25, "age": 3.25, "age_low": 2.5, "age_high": 4.0}
    told = commit()
    told["row"] = {key: value for key, value in told["row"].items() if not key.startswith("prob_")} | row
    page = sheet(tmp_path / "s1", told)
    assert "age 3.25 2.5 to 4" in page.text
    assert page.all("svg") == []
