"""`saccade conformalize`, then `saccade run --refer`: what is called, what is said of it, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from makers import names, tissue_pixels, write_slide
from models import save_untrained
from safetensors import safe_open

import pipeline.commands
from pipeline.cli.assembly import app
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.refer.label_set import BETWEEN, REFER, UNLIKE, percent
from pipeline.refer.measure import run_in_lines
from pipeline.refer.referral import Referral, referral
from stages.appearance import CohortAppearance, appearance
from stages.prediction.conformal import conformalize


def command(*words: object) -> tuple[int, str, str]:
    """The command in this process: its exit code, and what it printed."""
    said, told = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(told):
        code = app([str(word) for word in words], standalone_mode=False)
    return code or 0, said.getvalue(), told.getvalue()


@dataclass(frozen=True)
class Calibrated:
    """What is on the disk, and what the command said."""

    folder: Path
    table: Path
    untouched: Path
    model: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    """Twelve slides of ten patients, eight of them (seven patients) to calibrate on and four for a run."""
    folder = tmp_path_factory.mktemp("calls ü")
    with (folder / "cohort.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "patient", "label", "split", "site"])
        for i in range(12):
            image = tissue_pixels(520 + 20 * i, 500, margin=0.05)
            if i % 2:
                image[100:400, 100:400:2] //= 3
            write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
            patient = "p0" if i == 2 else f"p{i}"  # of one class, too
            writer.writerow(
                [f"s{i}.tif", patient, ("normal", "tumour")[i % 2], "val" if i < 8 else "test", f"h{i % 3}"]
            )
    model, out = save_untrained(folder / "untrained.safetensors"), folder / "calibrated"
    code, said, told = command("conformalize", model, folder / "cohort.csv", "--out", out, "--split", "val")
    assert code == 0, told
    return Calibrated(folder, folder / "cohort.csv", model, out, said, told)


@pytest.fixture(scope="module")
def finished(calibrated: Calibrated) -> Path:
    """A run that calls at a stated error of 0.3."""
    out = calibrated.folder / "run"
    options = ("--model", calibrated.model, "--out", out, "--refer", "--error", "0.3")
    code, said, told = command("run", calibrated.table, *options)
    assert code == 0, told
    (out / "stdout.txt").write_text(said)
    return out


def test_the_command_says_of_whom_and_which_errors_can_be_stated(calibrated: Calibrated) -> None:
    assert "8 slides of 7 patients (3 normal, 4 tumour)" in calibrated.stderr
    assert "smallest error to state 0.13; by class 0.25 for normal, 0.2 for tumour" in calibrated.stderr
    assert "calibrated on 8 slides of 7 patients, 0 left out" in calibrated.stdout


def test_who_the_patients_are_does_not_travel_with_the_model(calibrated: Calibrated) -> None:
    with safe_open(calibrated.model / "model.safetensors", framework="pt") as file:
        told = file.metadata()["label_calibration"]
    assert not any(f'"{name}{i}"' in told for name in ("p", "s") for i in range(8))
    assert sorted(Counter(json.loads(told)["patients"]).values()) == [1, 1, 1, 1, 1, 1, 2]


def test_every_record_of_a_run_says_what_is_called(calibrated: Calibrated, finished: Path) -> None:
    with (finished / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    model = load_model(calibrated.model)
    assert model.label_calibration is not None
    limits = model.label_calibration.conformal.thresholds(0.3, budgets=(16,))
    for row in rows:
        p = np.array([float(row["prob_normal"]), float(row["prob_tumour"])])
        chosen = [name for name, inside in zip(model.spec.classes, 1 - p <= limits + 1e-6, strict=True) if inside]
        assert row["label_set"] == BETWEEN.join(chosen)
        assert row["call"] == (chosen[0] if len(chosen) == 1 else REFER)
        own = "were fitted to this slide" in row["call_why"]
        assert bool(row["call_why"]) == (row["call"] == REFER or own)
        assert row["stated_error"] == ("" if own else "0.3")
        record = json.loads((finished / "slides" / row["slide_id"] / "prediction.json").read_text(encoding="utf-8"))
        assert record["label_set"]["classes"] == chosen
        assert record["label_set"]["by_class"] is False
    told = json.loads((finished / "run.json").read_text(encoding="utf-8"))["refer"]
    assert sum(told["calls"].values()) == 12
    assert told["budgets"] == [16]
    assert told["not_counted"] == 0  # the val part is no part of the metrics to begin with
    assert told["found"]["patients"] == 4
    assert set(told["found"]["classes"]) == {"normal", "tumour"}
    assert set(told["found"]["sites"]) == {"h0", "h1", "h2"}
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert "Calls are about the label, not about reading" in report
    assert "for at most 30 % of slides of patients like those of the calibration, the true class is missing" in report
    assert ">call</button>" in report
    assert "Calls are about the label" in (finished / "stdout.txt").read_text()
    with (finished / "abstention.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert {"stated_error", "referred", "error_of_called"} <= set(curve[0])


def test_a_run_that_does_not_call_leaves_no_curve_of_an_earlier_one(calibrated: Calibrated, finished: Path) -> None:
    out = calibrated.folder / "again"
    slide = calibrated.folder / "s9.tif"
    options: dict[str, Any] = {"out": out, "device": "cpu"}
    assert pipeline.commands.run(slide, calibrated.model, **options, refer=0.3).refer is not None
    assert "abstention.csv" in names(out)
    assert pipeline.commands.run(slide, calibrated.model, **options, refer=0.3).reused == 1
    assert pipeline.commands.run(slide, calibrated.model, **options, refer=0.4).reused == 0
    summary = pipeline.commands.run(slide, calibrated.model, **options)
    assert (summary.refer, summary.reused) == (None, 0)
    assert "abstention.csv" not in names(out)


def test_slides_of_the_calibration_prove_nothing(calibrated: Calibrated, tmp_path: Path) -> None:
    """Where the table gives them no split, they are counted by the metrics, but not by the coverage."""
    table = tmp_path / "table.csv"
    table.write_text(
        "slide,label\n" + "".join(f"{calibrated.folder}/s{i}.tif,{('normal', 'tumour')[i % 2]}\n" for i in (0, 1, 8))
    )
    summary = pipeline.commands.run(table, calibrated.model, out=tmp_path / "out", refer=0.3)
    assert summary.refer is not None
    assert (summary.refer["not_counted"], summary.refer["found"]["slides"], summary.metrics["slides"]) == (2, 1, 3)
    assert any(
        line.startswith("No error is stated of 2 slides that the model, or its calls, were fitted to")
        for line in run_in_lines(summary.refer)
    )


def test_a_prediction_shows_its_call(calibrated: Calibrated) -> None:
    prediction = pipeline.commands.predict(calibrated.folder / "s9.tif", calibrated.model, refer=0.3)
    assert prediction.label_set is not None
    assert f"call: {prediction.label_set.call}" in repr(prediction)
    assert f"call: {prediction.label_set.call}" in prediction._repr_html_()
    assert pipeline.commands.predict(calibrated.folder / "s9.tif", calibrated.model).label_set is None


@pytest.mark.parametrize(
    ("p", "call", "why"),
    [(0.9, "tumour", ""), (0.5, REFER, "both are possible: normal | tumour"), (0.75, REFER, "no class is as probable")],
)
def test_a_set_of_one_class_is_called_and_others_say_why_not(
    calibrated: Calibrated, p: float, call: str, why: str
) -> None:
    known = load_model(calibrated.model).label_calibration
    assert known is not None
    limit = {0.9: 0.2, 0.5: 0.6, 0.75: 0.2}[p]
    scores = np.full((9, 1, 2), limit)
    rule = referral_with(replace(known, conformal=conformalize({16: scores}, [0, 1] * 4 + [0], list(range(9)))))
    found = rule.of({"normal": 1 - p, "tumour": p}, fingerprint="new")
    assert found.call == call
    assert found.why.startswith(why)
    assert bool(found.why) == bool(why)


def test_of_a_slide_that_it_was_fitted_to_nothing_is_stated_and_one_unlike_the_calibrations_is_referred(
    calibrated: Calibrated,
) -> None:
    model = load_model(calibrated.model)
    rule = referral(model, 0.3)
    seen = {"normal": 0.999, "tumour": 0.001}
    new = rule.of(seen, fingerprint="new")
    assert (new.error, new.why) == (0.3, "")
    assert model.label_calibration is not None
    for own in [*model.label_calibration.slides, *model.trained_on][:3]:
        found = rule.of(seen, fingerprint=own)
        assert (found.classes, found.call, found.error) == (new.classes, new.call, None)
        assert "were fitted to this slide" in found.why
        assert found.columns()["stated_error"] is None
    look = np.full((60, 60, 3), 240, np.uint8)
    look[20:40, 20:40] = 150  # dark on bright, while all of those are bright on dark
    strange = replace(rule, calibration=replace(rule.calibration, appearance=CohortAppearance({"dark field": 9}, {})))
    doubt = strange.doubt(appearance(look, look[..., 0] < 200))
    assert "it is a bag, which does not show whether it looks like" in str(strange.doubt(None))
    found = strange.of(seen, fingerprint="new", doubt=doubt)
    assert (found.call, found.classes) == (REFER, new.classes)
    assert found.why.startswith(UNLIKE)


@pytest.mark.parametrize(("share", "words"), [(0.1, "10 %"), (1 / 3, "33.3 %"), (0.999999, "99.9999 %"), (1, "100 %")])
def test_a_share_is_not_rounded_to_nothing_or_all(share: float, words: str) -> None:
    assert percent(share) == words


def test_by_class_a_referral_says_whose_patients_each_class_fell_short_of(calibrated: Calibrated) -> None:
    """All labels together would have let it pass: the threshold of a class is of that class's patients alone."""
    known = load_model(calibrated.model).label_calibration
    assert known is not None
    scores = np.array([0.4] * 20 + [0.1] * 12)[:, None, None].repeat(2, 2)
    found = replace(known, conformal=conformalize({16: scores}, [0] * 20 + [1] * 12, list(range(32))))
    seen = {"normal": 0.3, "tumour": 0.7}
    assert referral_with(found).of(seen, fingerprint="new").call == "tumour"
    own = referral_with(found, by_class=True).of(seen, fingerprint="new")
    assert (own.classes, own.call) == ((), REFER)
    assert own.why == (
        "no class is as probable as it was itself for 90 % of the calibration's patients of that class: 'normal' (20), "
        "'tumour' (12)"
    )


def referral_with(known: Any, *, by_class: bool = False) -> Referral:
    limits = known.conformal.thresholds(0.1, budgets=(16,), by_class=by_class)
    return Referral(0.1, by_class, (16,), limits, known)


def test_reading_on_takes_the_widest_of_all_budgets_on_the_way(calibrated: Calibrated) -> None:
    model = load_model(calibrated.model)
    assert model.label_calibration is not None
    fixed = {n: referral(model, 0.3, samples=n) for n in (16, 32, 64, 128, 256)}
    on = referral(model, 0.3, reads_on=True)
    assert on.budgets == (16, 32, 64, 128, 256)
    assert on.thresholds.tolist() == np.max([one.thresholds for one in fixed.values()], axis=0).tolist()
    assert referral(model, 0.3, samples=40, reads_on=True).budgets == (16, 32, 64)
    assert referral(model, 0.3, samples=40).budgets == (32, 64)


@pytest.mark.parametrize(
    ("how", "doubt"),
    [
        ({}, None),
        ({"samples": 32}, None),
        ({"reads_on": True}, "how many patches that takes is not fixed: .*, 16 to 256, .* is no theorem"),
        ({"reads_on": True, "samples": 16}, "is no theorem"),
        ({"samples": 40}, "not calibrated for 40 patches and go by 32 and 64: .*conformalize --samples 40` makes it"),
        ({"samples": 1000}, "not calibrated for 1,000 patches and go by 256"),
    ],
)
def test_what_no_theorem_covers_is_doubted_wherever_it_is_stated(
    calibrated: Calibrated, how: dict[str, Any], doubt: str | None
) -> None:
    model = load_model(calibrated.model)
    told = referral(model, 0.3, **how).to_json(model.spec.classes)
    if doubt is None:
        assert told["calibration"]["doubt"] is None
        assert "theorem" not in told["about"]
        return
    assert re.search(doubt, told["calibration"]["doubt"])
    assert told["about"].endswith(f"; {told['calibration']['doubt']}.")
    model.label_calibration = replace(model.label_calibration, doubt="it was so before")
    assert "; it was so before; " in referral(model, 0.3, **how).in_words()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"error": 0.1}, "needs 9 patients to calibrate on, the model has 7: state 0.13 or more"),
        (
            {"error": 0.22, "by_class": True},
            "needs 4 patients of 'normal' to calibrate on, the model has 3: state 0.25",
        ),
        ({"error": 1.0}, "between 0 and 1, found 1; such as 0.1"),
        ({"error": 0.3, "scheme": "gumbel"}, "calibrated for systematic draws, found --scheme gumbel"),
        ({"error": 0.3, "prior": True}, "leave --prior out, or --refer"),
    ],
)
def test_what_cannot_be_stated_is_refused(calibrated: Calibrated, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        referral(load_model(calibrated.model), **options)


def test_a_prediction_by_a_given_map_is_not_called(calibrated: Calibrated, tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.ones((4, 4)))
    with pytest.raises(UsageError, match="leave --prior out, or --refer"):
        pipeline.commands.predict(calibrated.folder / "s9.tif", calibrated.model, refer=0.3, prior=tmp_path / "map.npy")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--refer",), "saccade conformalize MODEL TABLE --out MODEL2"),
        (("--error", "0.1"), "--error says how slides are called: give --refer, too"),
        (("--by-class",), "--by-class says how slides are called: give --refer, too"),
        (("--refer", "--error", "1"), "expected a number from"),
    ],
)
def test_a_run_that_cannot_call_is_refused_before_it_starts(
    calibrated: Calibrated, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    with pytest.raises((UsageError, typer.BadParameter), match=re.escape(expected)):
        command("run", calibrated.table, "--model", calibrated.untouched, "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_names_that_calls_could_not_be_told_from_are_refused(calibrated: Calibrated) -> None:
    model = load_model(calibrated.model)
    for classes, words in ((("normal", "refer"), "a class is called 'refer'"), (("a | b", "c"), "parts the classes")):
        model.spec = replace(model.spec, classes=classes)
        with pytest.raises(UsageError, match=words):
            referral(model, 0.3)


def test_a_slide_unlike_those_of_the_calibration_is_warned_of(calibrated: Calibrated) -> None:
    model = load_model(calibrated.model)
    assert model.label_calibration is not None
    there = model.label_calibration.appearance
    assert there is not None
    known = there.known["brightfield"]
    far = replace(known, centre=tuple(value + 9 for value in known.centre))
    model.label_calibration = replace(model.label_calibration, appearance=replace(there, known={"brightfield": far}))
    found = pipeline.commands.predict(calibrated.folder / "s9.tif", model, refer=0.3)
    assert any("unlike the slides that calls were calibrated on" in warning for warning in found.warnings)
    save_model(model, calibrated.folder / "far.safetensors")
    again = load_model(calibrated.folder / "far.safetensors").label_calibration
    assert again is not None
    assert again.to_json() == model.label_calibration.to_json()


def test_the_run_tells_what_the_calibration_came_to_at_its_error(finished: Path) -> None:
    told = json.loads((finished / "run.json").read_text(encoding="utf-8"))["refer"]
    (row,) = (row for row in told["abstention"] if row["stated_error"] == 0.3)
    assert f"{100 * row['referred']:.3g} % are referred at this error" in (finished / "stdout.txt").read_text()
