"""`saccade train` on bags, without slides or an encoder: every task, the comparison, what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bags import DIM, PX, corners_of, features_of, write_bag, write_cohort
from makers import tissue_pixels, write_slide

import saccade
from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.task.classes import Classes
from pipeline.task.survival import Survival
from pipeline.task.task import Task
from pipeline.train.baselines import baselines
from pipeline.train.spec import refuse_settings
from pipeline.train.train import train_cohort
from stages.encoder.registry import UNNAMED
from stages.slide.facts import SlideError

FAST = [
    *("model.kind=exhaustive", "model.head=mean", "attention.components=12", "training.members=2"),
    *("training.epochs=6", "training.learning_rate=0.1", "training.device=cpu", "sampling.samples=8"),
]


def config(folder: Path, *more: str, cohort: str = "") -> Config:
    path = folder / "config.yaml"
    path.write_text(f"cohort: {{table: cohort.csv, bags: bags{cohort}}}\n")
    return load_config(path, [*FAST, *more])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of CLAM's bags, and a model of them in ``model``."""
    folder = tmp_path_factory.mktemp("trained")
    write_cohort(folder, kind="clam")
    lines: list[str] = []
    train_cohort(config(folder), folder / "model", say=lines.append)
    (folder / "lines.txt").write_text("\n".join(lines))
    return folder


def test_it_learns_what_the_bags_hold(trained: Path) -> None:
    metrics = json.loads((trained / "model" / "metrics.json").read_text())
    assert metrics["test"]["auroc"]["value"] == 1
    said = (trained / "lines.txt").read_text()
    assert "most of tiles of 128 px at 1 µm/px with features of length 12 by an unnamed encoder" in said
    assert "fewer than" not in said
    assert len(table(trained / "model" / "predictions.csv")) > 5


@pytest.mark.slow
def test_every_head_is_compared_on_the_same_splits(tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=18)
    train_cohort(config(tmp_path, "training.compare=true"), tmp_path / "model", say=lambda line: None)
    rows = {row["way"]: row for row in table(tmp_path / "model" / "comparison.csv")}
    heads = ["all cells, evidence", "all cells, gated MIL", "all cells, TransMIL"]
    assert list(rows) == ["this model", *heads, "8 at random"]
    assert rows["all cells, evidence"]["patches_per_slide"] == rows["this model"]["patches_per_slide"]
    assert {row["slides"] for row in rows.values()} == {"6"}
    assert float(rows["8 at random"]["bytes_per_slide"]) == 8 * DIM * 4


def test_a_model_of_bags_is_compared_with_every_other_head(trained: Path) -> None:
    spec = load_model(trained / "model" / "model.safetensors").spec
    assert [(one.head, one.rule, one.cells) for one in baselines(spec, 8)] == [
        *(("evidence", "all", None), ("gated", "all", None), ("transmil", "all", None), ("gated", "random", 8))
    ]
    assert "evidence" not in {one.head for one in baselines(replace(spec, head="evidence"), 8)}


def test_a_model_says_what_it_learnt_from(trained: Path) -> None:
    spec = load_model(trained / "model" / "model.safetensors").spec
    assert (spec.bags, spec.encoder, spec.dim, spec.patch_px, spec.patch_mpp) == ("", UNNAMED, DIM, PX, 1.0)
    assert spec.cell_px * spec.attention_mpp == pytest.approx(PX)


def test_bags_are_predicted_and_slides_are_refused_for_want_of_their_encoder(trained: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "in" / "new.h5", corners_of(20), features_of(20, positive=1, seed=99), "trident")
    write_bag(tmp_path / "in" / "other.h5", corners_of(20), features_of(20, positive=1, seed=9, dim=7))
    summary = saccade.run(tmp_path / "in", model=trained / "model", out=tmp_path / "out", workers=0)
    rows = {row["slide_id"]: row for row in table(tmp_path / "out" / "predictions.csv")}
    assert rows["new"]["predicted"] == "tumour"
    assert rows["new"]["patches_read"] == "20"
    assert "features of length 7, the model takes 12" in rows["other"]["error"]
    assert summary.failed == 1
    made = {path.name for path in (tmp_path / "out" / "slides" / "new").iterdir()}
    assert {"samples.h5", "overlay.jpg", "evidence.jpg", "attention.zarr", "prediction.json"} <= made
    assert "gallery.jpg" not in made
    assert "no pixels, no gallery" in (tmp_path / "out" / "report.html").read_text()
    with h5py.File(tmp_path / "out" / "slides" / "new" / "samples.h5") as file:
        assert sorted(map(tuple, file["coords"][()])) == sorted(map(tuple, corners_of(20)))
    again = saccade.run(tmp_path / "in", model=trained / "model", out=tmp_path / "out", workers=0)
    assert again.reused == 1
    # what a run wrote of a bag is a bag
    samples = tmp_path / "out" / "slides" / "new" / "samples.h5"
    assert saccade.predict(samples, trained / "model").probabilities == pytest.approx(
        saccade.predict(tmp_path / "in" / "new.h5", trained / "model").probabilities, abs=1e-6
    )
    slide = write_slide(tmp_path / "s.tif", tissue_pixels(900, 900, margin=0.1))
    with pytest.raises(SlideError, match="an encoder that nobody named: give bags"):
        saccade.predict(slide, trained / "model")


def test_a_model_of_classes_knows_their_column(tmp_path: Path) -> None:
    """A run counts them without being told; a model of before, which did not say the column, stands as it is."""
    write_cohort(tmp_path, label=lambda i, positive: {"verdict": "tumour" if positive else "normal"})
    told = config(tmp_path, "training.epochs=1", cohort=", label: verdict")
    model = tmp_path / "model" / "model.safetensors"
    train_cohort(told, model.parent, say=lambda line: None)
    assert load_model(model).spec.labels == ("verdict",)
    (tmp_path / "bags" / "cohort.csv").write_text((tmp_path / "cohort.csv").read_text().replace(".svs", ".h5"))
    run = saccade.run(tmp_path / "bags" / "cohort.csv", model, out=tmp_path / "run", workers=0, split="test")
    assert run.metrics["slides"] == 5
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["slides"]["counted"] == 5
    before = load_model(model)
    before.spec = replace(before.spec, labels=())
    save_model(before, model)
    lines: list[str] = []
    train_cohort(told, model.parent, say=lines.append)
    assert load_model(model).spec.labels == (), "it was trained again"


def test_lines_of_folds_say_of_which_and_sites_that_choose_are_named(tmp_path: Path) -> None:
    def label(i: int, positive: float) -> dict[str, Any]:
        return {"label": "tumour" if positive else "normal", "site": "ABCD"[i % 8 // 2]}

    write_cohort(tmp_path, slides=24, label=label)
    lines: list[str] = []
    sited = ("training.folds=2", "training.inner_val=0.25", "training.inner_val_by=site")
    metrics = train_cohort(config(tmp_path, *sited), tmp_path / "model", say=lines.append)
    assert not any("first guess" in line for line in lines), "no patch of a bag is encoded"
    for what in ("label sets: calibrated on ", "calibrating label sets: "):
        told = [line for line in lines if what in line]
        assert [line.removesuffix(line[line.index(what) :]) for line in told] == ["fold-0: ", "fold-1: ", ""]
    with (tmp_path / "cohort.csv").open() as file:
        site_of = {row["slide"].split(".")[0]: row["site"] for row in csv.DictReader(file)}
    page = (tmp_path / "model" / "report.html").read_text()
    for name, folder in (("fold-0", "fold-0"), ("fold-1", "fold-1"), ("the model", ".")):
        made = json.loads((tmp_path / "model" / folder / "training.json").read_text())["made_of"]["slides"]
        chose = sorted({site_of[slide] for slide, told in made.items() if told["role"] == "val"})
        assert chose
        assert metrics["inner_val"][name] == chose
        assert f"{name}: its epoch is chosen on {', '.join(chose)}, which training.inner_val takes" in "\n".join(lines)
        assert f'<th scope="row">{name}</th><td>{", ".join(chose)}</td>' in page


TASKS: list[tuple[str, Callable[[int, float], dict[str, Any]], str]] = [
    ("ordinal", lambda i, positive: {"label": int(positive) + (i % 4 == 3)}, ", task: ordinal"),
    ("regression", lambda i, positive: {"label": round(positive + i / 100, 2)}, ", task: regression"),
    ("multilabel", lambda i, positive: {"a": int(positive), "b": int(i % 4 < 2)}, ", labels: [a, b]"),
    ("survival", lambda i, positive: {"t": 10 - 5 * positive + i / 10, "e": 1}, ", time: t, event: e"),
    ("discrete_survival", lambda i, p: {"t": 10 - 5 * p + i / 10, "e": 1}, ", time: t, event: e, times: [6, 9]"),
]


@pytest.mark.parametrize(("task", "label", "told"), TASKS, ids=[one[0] for one in TASKS])
def test_every_task_is_learnt(task: str, label: Any, told: str, tmp_path: Path) -> None:
    write_cohort(tmp_path, label=label)
    # pixels of slides would be kept there
    cached = f"reading.cache={tmp_path / 'cache'}"
    metrics = train_cohort(
        config(tmp_path, cached, "training.epochs=1", cohort=told), tmp_path / "model", say=lambda line: None
    )
    assert metrics["task"] == task
    assert metrics["test"]["slides"] == 5
    found = saccade.predict(tmp_path / "bags" / "s1.h5", tmp_path / "model")
    assert all(
        low == value == high for value, (low, high) in zip(found.values.values(), found.intervals.values(), strict=True)
    )


def test_bags_that_differ_are_left_out_and_say_why(tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=18)
    bags = tmp_path / "bags"
    write_bag(bags / "s0.h5", corners_of(20), features_of(20, positive=0, seed=0, dim=DIM + 1))
    write_bag(
        bags / "s1.h5", corners_of(20), features_of(20, positive=1, seed=1), told={"patch_size": 256, "downsample": 1}
    )
    write_bag(bags / "s2.h5", corners_of(20), np.full((20, DIM), np.nan))
    write_bag(bags / "s3.h5", corners_of(20), features_of(20, positive=1, seed=3), encoder="uni_v1")
    (bags / "s4.h5").unlink()
    (bags / "s5.h5").write_text("no")
    metrics = train_cohort(config(tmp_path), tmp_path / "model", say=lambda line: None)
    why = metrics["excluded"]
    assert sorted(why) == ["s0", "s1", "s2", "s4", "s5"]  # nobody else says what made its features
    assert "features of length 13" in why["s0"]
    assert "has tiles of 256 px" in why["s1"]
    assert "NaN" in why["s2"]
    assert "no bag" in why["s4"]
    assert "cannot be read as HDF5" in why["s5"]


def test_an_encoder_that_the_bags_name_is_the_models(tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=12)
    for i in range(12):
        write_bag(
            tmp_path / "bags" / f"s{i}.h5",
            corners_of(20),
            features_of(20, positive=float(i % 2), seed=i),
            encoder="conch_v15" if i == 3 else "uni_v1",
        )
    with pytest.raises(UsageError, match=r"encoder\.name is 'virchow2', and the bags say that 'uni_v1' made them"):
        train_cohort(config(tmp_path, "encoder.name=virchow2"), tmp_path / "m", say=lambda line: None)
    metrics = train_cohort(config(tmp_path, "encoder.name=uni"), tmp_path / "m", say=lambda line: None)
    assert "made by 'conch_v15', the model takes those of 'uni_v1'" in metrics["excluded"]["s3"]
    spec = load_model(tmp_path / "m" / "model.safetensors").spec
    assert (spec.encoder, spec.bags) == ("uni", "uni_v1")


def test_a_table_may_name_bags_but_not_bags_and_slides(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    text = (tmp_path / "cohort.csv").read_text().replace(".svs", ".h5")
    (tmp_path / "bags" / "cohort.csv").write_text(text)
    told = tmp_path / "config.yaml"
    told.write_text("cohort: {table: bags/cohort.csv}\n")
    metrics = train_cohort(load_config(told, FAST), tmp_path / "model", say=lambda line: None)
    assert metrics["test"]["auroc"]["value"] == 1
    with pytest.raises(UsageError, match=r"set model\.kind: exhaustive"):
        train_cohort(load_config(told), tmp_path / "other", say=lambda line: None)
    write_slide(tmp_path / "bags" / "s0.tif", tissue_pixels(300, 300))
    (tmp_path / "bags" / "cohort.csv").write_text(text.replace("s0.h5", "s0.tif"))
    with pytest.raises(UsageError, match="15 of 16 slides are bags of features"):
        train_cohort(load_config(told, FAST), tmp_path / "other", say=lambda line: None)


def test_a_cohort_without_a_usable_bag_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    for path in (tmp_path / "bags").iterdir():
        with h5py.File(path, "r+") as file:
            del file["coords"]
    with pytest.raises(UsageError, match=r"none of 16 bags can be used: s0: .* has no dataset 'coords'"):
        train_cohort(config(tmp_path), tmp_path / "model", say=lambda line: None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["model.kind=sampled", "model.head=evidence"], "use model.kind: exhaustive"),
        (["view.patch_px=256"], "view.patch_px has no effect with cohort.bags"),
        (["cohort.bags=nowhere"], "cohort.bags: no folder"),
    ],
)
def test_settings_that_do_not_go_with_bags_are_refused(more: list[str], said: str, tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=2)
    with pytest.raises(UsageError, match=said):
        config(tmp_path, *more)


@pytest.mark.parametrize(
    ("task", "said"), [(Classes(("a", "b", "c")), "3 classes"), (Survival(labels=("t", "e")), "a risk")]
)
def test_a_threshold_is_of_two_classes(task: Task, said: str, tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=2)
    told = config(tmp_path, "training.threshold_sensitivity=0.9")
    with pytest.raises(UsageError, match=f"threshold_sensitivity is of two classes, and the label is {said}"):
        refuse_settings(told, task)
    refuse_settings(told, Classes(("a", "b")))
