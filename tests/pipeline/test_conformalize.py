"""`saccade conformalize` refuses what would make its promise untrue, and goes on without what cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from makers import saccade, tissue_pixels, write_slide
from models import save_untrained

from pipeline.cohort.table import read_table
from pipeline.conformalize import ConformalSummary, conformalize_model
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
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
    with pytest.raises(
        UsageError, match=r"trained on 1 of the 3 labelled slides .*'other'.*remove them and give others"
    ):
        conformalize(folder, table, tmp_path / "out", [], model=str(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ({"s0": "normal", "s1": "normal"}, {}, "no slide labelled 'tumour' to calibrate on"),
        ({"s0": "", "s1": ""}, {}, "no slide has a label"),
        ({"s0": "normal", "s1": "benign"}, {}, "label 'benign', but .* was trained for normal, tumour"),
        ({"s0": "normal", "s1": "tumour"}, {"split": "val"}, "no slides of split val, found no split column"),
        ({"s0": "normal", "gone": "tumour"}, {}, "'tumour' to calibrate on.*all 1 are left out, gone: "),
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


def test_a_model_predicts_as_before(folder: Path, tmp_path: Path) -> None:
    table = write(folder, tmp_path / "t.csv", {"s0": "normal", "s1": "tumour"})
    found = load_model(conformalize(folder, table, tmp_path / "out.safetensors", []).model)
    before = load_model(folder / "model.safetensors")
    assert found.spec == before.spec
    assert before.label_calibration is None
    assert all(bool((found.state_dict()[name] == value).all()) for name, value in before.state_dict().items())
