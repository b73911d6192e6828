"""`saccade conformalize` refuses what would make its promise untrue, and goes on without what cannot be read."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers import saccade, tissue_pixels, write_slide
from models import TINY, save_untrained

import pipeline.commands
from pipeline.cohort.table import read_table
from pipeline.conformalize import ConformalSummary, conformalize_model
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.quality import Quality
from pipeline.refer.agreement import contradiction, score
from stages.prediction.conformal import Conformal
from stages.prediction.conformal import conformalize as conformalize_scores
from stages.slide.files import open_slide

LABELS = ("normal", "tumour")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides and an untrained model."""
    folder = tmp_path_factory.mktemp("slides")
    for i in range(4):
        write_slide(folder / f"s{i}.tif", tissue_pixels(500 + 20 * i, 480), levels=2, factor=4)
    save_untrained(folder / "model.safetensors")
    return folder


def conformalize(folder: Path, table: Path, out: Path, lines: list[str], **options: str) -> ConformalSummary:
    model = options.pop("model", str(folder / "model.safetensors"))
    return conformalize_model(Path(model), read_table(table), out, say=lines.append, device="cpu", **options)  # type: ignore[arg-type]


def write(folder: Path, path: Path, labels: dict[str, str]) -> Path:
    path.write_text("slide,label\n" + "".join(f"{folder / name}.tif,{label}\n" for name, label in labels.items()))
    return path


def test_a_slide_that_the_model_was_trained_on_is_refused_whatever_its_name(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "model.safetensors")
    model.trained_on = frozenset({open_slide(folder / "s1.tif").facts.fingerprint})
    save_model(model, tmp_path / "model.safetensors")
    shutil.copy(folder / "s1.tif", tmp_path / "other.tif")
    table = write(folder, tmp_path / "t.csv", {"s0": "normal", str(tmp_path / "other"): "tumour", "s2": "tumour"})
    with pytest.raises(UsageError, match=r"trained on 1 of 3 labelled slides .*'other'.*remove them and give others"):
        conformalize(folder, table, tmp_path / "out", [], model=str(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ({"s0": "normal", "s1": "normal"}, {}, "no slide labelled 'tumour' to calibrate on"),
        ({"s0": "", "s1": ""}, {}, "no slide has a label"),
        ({"s0": "normal", "s1": "benign"}, {}, "label 'benign', but .* was trained for normal, tumour"),
        ({"s0": "normal", "s1": "tumour"}, {"split": "val"}, "no slides of split val, found no split column"),
        ({"s0": "normal", "gone": "tumour"}, {}, "'tumour' to calibrate on.*1 slide of it left out, gone: "),
    ],
)
def test_what_calls_cannot_be_calibrated_on_is_refused(
    folder: Path, tmp_path: Path, labels: dict[str, str], options: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        conformalize(folder, write(folder, tmp_path / "t.csv", labels), tmp_path / "out", [], **options)
    assert not (tmp_path / "out").exists()


def test_labels_may_be_in_another_column(folder: Path, tmp_path: Path) -> None:
    table = write(folder, tmp_path / "t.csv", {"s0": "cyst", "s1": "tumour"})
    table.write_text(table.read_text().replace("slide,label", "slide,dx"))
    done = saccade("conformalize", folder / "model.safetensors", table, "--out", tmp_path / "out", "--label", "dx")
    assert done.returncode == 2
    assert "the table has the label 'cyst'" in done.stderr


def test_labels_are_under_the_name_that_the_model_learnt_them_by_or_that_is_given(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "model.safetensors")
    model.spec = replace(model.spec, labels=("diagnosis",))
    save_model(model, tmp_path / "model.safetensors")
    table = tmp_path / "t.csv"
    rows = [("s0", "normal", "x", "tumour"), ("s1", "tumour", "y", "normal"), ("s2", "tumour", "z", "normal")]
    lines = [f"{folder / name}.tif,{','.join(cells)}" for name, *cells in rows]
    table.write_text("\n".join(["slide,Diagnosis,label,second", *lines]) + "\n")

    def counted(**more: str) -> dict[str, int]:
        return pipeline.commands.conformalize(tmp_path, table, out=tmp_path / "out", device="cpu", **more).patients_of

    assert counted() == {"normal": 1, "tumour": 2}
    assert counted(label="second") == {"normal": 2, "tumour": 1}
    (tmp_path / "u.csv").write_text(table.read_text().replace("Diagnosis", "other"))
    with pytest.raises(UsageError, match="the table has the label 'x'"):
        pipeline.commands.conformalize(tmp_path, tmp_path / "u.csv", out=tmp_path / "out", device="cpu")
    (tmp_path / "u.csv").write_text(table.read_text().replace("Diagnosis", "other").replace("label", "more"))
    with pytest.raises(UsageError, match="labels under 'diagnosis' or 'label', or name their column"):
        pipeline.commands.conformalize(tmp_path, tmp_path / "u.csv", out=tmp_path / "out", device="cpu")


def test_one_slide_under_two_names_counts_once_or_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "s1.tif", tmp_path / "twin.tif")
    twin, lines = str(tmp_path / "twin"), list[str]()
    table = write(folder, tmp_path / "t.csv", {"s0": "normal", "s1": "tumour", twin: "tumour"})
    summary = conformalize(folder, table, tmp_path / "out", lines)
    assert (summary.slides, list(summary.excluded)) == (2, ["twin"])
    assert any("twin: it is 's1' by content, which counts once" in line for line in lines)
    with pytest.raises(UsageError, match="labelled 'tumour' and 'normal'"):
        conformalize(
            folder, write(folder, table, {"s0": "normal", "s1": "tumour", twin: "normal"}), tmp_path / "out", []
        )


def test_it_goes_on_without_what_cannot_be_read_and_takes_the_place_of_its_own_only(
    folder: Path, tmp_path: Path
) -> None:
    table = write(folder, tmp_path / "t.csv", {"s0": "normal", "s1": "tumour", "gone": "tumour", "s2": "tumour"})
    summary = conformalize(folder, table, tmp_path / "out", [])
    assert (summary.slides, list(summary.excluded)) == (3, ["gone"])
    assert summary.model == tmp_path / "out" / "model.safetensors"
    first = summary.model.read_bytes()
    assert conformalize(folder, table, tmp_path / "out", []).model.read_bytes() == first
    save_untrained(tmp_path / "other.safetensors", classes=("x", "y", "z"))
    with pytest.raises(UsageError, match="is there and is not the model"):
        conformalize(folder, table, tmp_path / "other.safetensors", [])


def scores_at(right: float, *, each: int) -> Conformal:
    """Of two classes so many patients each, whose label has the probability ``right``, a little more or less."""
    labels = [0] * each + [1] * each
    p = np.array([right, 1 - right])[np.array([[label, 1 - label] for label in labels])]
    noise = np.linspace(-0.05, 0.05, 2 * each)[np.random.default_rng(0).permutation(2 * each)]
    p += np.stack([noise, -noise], 1)
    return conformalize_scores({16: 1 - p[:, None]}, labels, list(range(2 * each)))


FOUND = Quality("yes", "", "test", 40, 40, 1.0, 0.9, 1.0)


@pytest.mark.parametrize(
    ("right", "each", "quality", "words"),
    [
        (0.9, 5, FOUND, None),
        (0.1, 5, FOUND, r"^AUROC 0.00 \[0.00, 0.\d+\] on 10 patients .*found to have AUROC 1.00 .*swapped, .*--label"),
        (0.5, 5, FOUND, "of another task"),
        (0.1, 5, None, "below chance"),
        (0.5, 5, None, None),
        (0.1, 2, None, None),
        (0.9, 5, None, None),
    ],
)
def test_labels_that_contradict_what_the_model_was_found_to_be_are_doubted(
    right: float, each: int, quality: Quality | None, words: str | None
) -> None:
    found = contradiction(score(scores_at(right, each=each), replace(TINY, classes=LABELS, samples=16)), quality)
    assert found is None if words is None else re.search(words, str(found))


def test_a_doubt_of_the_labels_is_warned_of_and_travels_with_the_model(folder: Path, tmp_path: Path) -> None:
    """Labels by what the model says are right of all, and the other way round of none."""
    said = {f"s{i}": pipeline.commands.predict(folder / f"s{i}.tif", folder / "model.safetensors") for i in range(4)}
    ranked = sorted(said, key=lambda name: said[name].probabilities["tumour"])
    model = load_model(folder / "model.safetensors")
    model.quality = FOUND
    save_model(model, tmp_path / "model.safetensors")
    for order, agrees in ((ranked, True), (ranked[::-1], False)):
        lines = list[str]()
        labels = {name: LABELS[place // 2] for place, name in enumerate(order)}
        table = write(folder, tmp_path / f"{agrees}.csv", labels)
        summary = conformalize(folder, table, tmp_path / f"{agrees}", lines, model=str(tmp_path))
        assert any(line.startswith("label sets: on these slides AUROC ") for line in lines)
        assert any(line.startswith("warning: label sets: AUROC ") for line in lines) != agrees
        kept = load_model(summary.model).label_calibration
        assert kept is not None
        assert (kept.doubt is None) == agrees


def test_a_model_predicts_as_before(folder: Path, tmp_path: Path) -> None:
    table = write(folder, tmp_path / "t.csv", {"s0": "normal", "s1": "tumour"})
    found = load_model(conformalize(folder, table, tmp_path / "out.safetensors", []).model)
    before = load_model(folder / "model.safetensors")
    assert found.spec == before.spec
    assert before.label_calibration is None
    assert all(bool((found.state_dict()[name] == value).all()) for name, value in before.state_dict().items())
