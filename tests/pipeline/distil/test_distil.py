"""`saccade distil` on a small cohort: bags on the model's grid and off it, a teacher given and one trained."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from backbones import DIM, tiny
from makers import tissue_pixels, write_slide
from models import FROZEN, tiny_backbone
from torch import Tensor

from pipeline.config import load_distil_config
from pipeline.distil.bags import bag_view
from pipeline.distil.distil import distil_cohort
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model
from pipeline.model.distilled_model import DistilledModel
from pipeline.model.look import look
from pipeline.predict import predict_slide
from stages.bags.bag import BagError, read_bag
from stages.geometry import patch_rasters
from stages.mil.sizes import TeacherSizes
from stages.pyramid.open import open_pyramid
from stages.slide.render import render_many

__all__ = ["tiny"]  # a fixture
SIDE, PX, MPP = 64, 32, 1.0
"""Of a tile: level-0 pixels, its own, and their µm."""


def write_bag(slide: Path, folder: Path, *, start: int) -> None:
    """A bag in TRIDENT's layout, of tiles from ``start`` on: 0 is the model's own grid."""
    opened, backbone = open_pyramid(slide), tiny_backbone(dim=DIM)
    full = opened.facts.levels[0]
    corners = [
        (x, y)
        for y in range(start, full.height - SIDE, SIDE)
        for x in range(start, full.width - SIDE, SIDE)
        if 60 < x < full.width - 120 and 60 < y < full.height - 120
    ]
    rasters = patch_rasters(np.array(corners) + SIDE / 2, opened.facts.require_mpp(), PX, MPP)
    features = backbone(torch.from_numpy(render_many(opened, rasters))).numpy()
    with h5py.File(folder / f"{slide.stem}.h5", "w") as file:
        file["features"], file["coords"] = features, np.array(corners)
        file["coords"].attrs.update({"patch_size": PX, "patch_size_level0": SIDE, "target_magnification": 10})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients; the tissue of the positives is finely striped; every fourth bag lies off the model's grid."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "bags").mkdir()
    lines = ["slide,patient,label,split,mpp"]
    for i in range(12):
        image = tissue_pixels(520, 520, margin=0.1)
        if i % 2:
            image[100:300, 100:300:2] //= 3
        write_slide(folder / f"s{i}.tif", image, levels=2, factor=4)
        write_bag(folder / f"s{i}.tif", folder / "bags", start=0 if i % 4 else 9)
        lines.append(f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < 8 else 'test'},0.5")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(
        "cohort: {table: cohort.csv}\nbags: {folder: bags}\nteacher: {members: 2, epochs: 3}\n"
        "student: {components: 8, samples: 6, epochs: 2, members: 2}\nreading: {features: features}\n"
    )
    return folder


def clam(path: Path, *, classes: int = 2, dim: int = DIM) -> Path:
    generator = torch.Generator().manual_seed(0)

    def layer(name: str, out: int, inputs: int) -> dict[str, Tensor]:
        weight = torch.randn(out, inputs, generator=generator)
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(out)}

    net = "attention_net.3.attention_"
    state = layer("attention_net.0", 5, dim) | layer(f"{net}a.0", 4, 5) | layer(f"{net}b.0", 4, 5)
    torch.save(state | layer(f"{net}c", 1, 4) | layer("classifiers", classes, 5), path)
    return path


@pytest.mark.parametrize("given", [True, False], ids=["given", "trained"])
def test_what_is_distilled_runs_like_any_other_model(given: bool, cohort: Path, tmp_path: Path, tiny: object) -> None:
    lines: list[str] = []
    more = [f"teacher.weights={clam(tmp_path / 'teacher.pt')}"] if given else []
    metrics = distil_cohort(load_distil_config(cohort / "config.yaml", more), tmp_path / "out", say=lines.append)
    assert metrics["excluded"] == {}
    rows = list(csv.DictReader((tmp_path / "out" / "fidelity.csv").read_text().splitlines()))
    assert {"samples", "difference_low", "mean_abs_dp", "agreement", "coverage"} <= rows[0].keys()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["tiles"] == {"px": PX, "mpp": MPP}
    model = load_model(tmp_path / "out" / "model.safetensors")
    assert isinstance(model, DistilledModel)
    assert model.calibration is not None
    slide = open_pyramid(cohort / "s9.tif")
    whole = predict_slide(slide, model, samples=10_000)
    few = predict_slide(slide, model)
    assert few.patches_read <= 6
    assert whole.exact
    low, high = few.intervals["b"]
    assert low <= few.probabilities["b"] <= high
    cells = look(cohort / "s9.tif", model).view
    features = model.encode(cells, np.flatnonzero(cells.tissue))
    wanted = model.teacher.logits(features).softmax(0)
    assert list(whole.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", ["s9", "s8"], ids=["on the grid", "off it"])
def test_a_view_of_a_bag_shows_its_tiles(name: str, cohort: Path) -> None:
    sizes = TeacherSizes(members=1, dim=DIM, hidden=5, gates=4, branches=1, classes=2, gated=True)
    spec = replace(FROZEN, classes=("a", "b"), patch_px=PX, patch_mpp=MPP, context=(), members=1, teacher=sizes)
    model = DistilledModel(spec, backbone=tiny_backbone(dim=DIM))
    bag = read_bag(cohort / "bags" / f"{name}.h5")
    found = bag_view(look(cohort / f"{name}.tif", model), bag)
    assert sorted(found.rows.tolist()) == list(range(len(bag)))
    again = model.encode(found.view, np.flatnonzero(found.view.tissue))
    np.testing.assert_allclose(again.numpy(), bag.features[found.rows], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": 3}, "the teacher has 3 classes, the table 2, a, b"),
        ({"dim": DIM + 1}, f"takes features of length {DIM + 1}, the bags have {DIM}"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    change: dict[str, Any], told: str, cohort: Path, tmp_path: Path, tiny: object
) -> None:
    more = [f"teacher.weights={clam(tmp_path / 'teacher.pt', **change)}"]
    with pytest.raises(UsageError, match=told):
        distil_cohort(load_distil_config(cohort / "config.yaml", more), tmp_path / "out", say=lambda line: None)


def test_bags_that_cannot_be_used_cost_their_slides_only(cohort: Path, tmp_path: Path, tiny: object) -> None:
    bags = tmp_path / "bags"
    bags.mkdir()
    for path in sorted((cohort / "bags").glob("*.h5")):
        (bags / path.name).write_bytes(path.read_bytes())
    (bags / "s0.h5").unlink()
    with h5py.File(bags / "s1.h5", "r+") as file:
        file["coords"][:] += 1000
    with h5py.File(bags / "s2.h5", "r+") as file:
        file["features"][:] = np.random.default_rng(0).standard_normal(file["features"].shape)
    with h5py.File(bags / "s3.h5", "r+") as file:
        file["coords"].attrs["patch_size_level0"] = 2 * SIDE
    config = load_distil_config(cohort / "config.yaml", [f"bags.folder={bags}"])
    excluded = distil_cohort(config, tmp_path / "out", say=lambda line: None)["excluded"]
    assert excluded.keys() == {"s0", "s1", "s2", "s3"}
    for name, told in (
        ("s0", "there is no bag"),
        ("s1", "tiles lie outside the slide of 520 x 520 px"),
        ("s2", "its features are not those of tiny"),
        ("s3", "most others 32 px at 1 µm/px"),
    ):
        assert told in excluded[name]
        assert "\n" not in excluded[name]


def test_a_configuration_that_is_wrong_says_where(cohort: Path) -> None:
    with pytest.raises(UsageError, match=r"bags.folder: no folder .*; correct the path"):
        load_distil_config(cohort / "config.yaml", ["bags.folder=nowhere"])
    with pytest.raises(UsageError, match=r"did you mean 'student\.samples'"):
        load_distil_config(cohort / "config.yaml", ["student.sampels=3"])
    with pytest.raises(BagError, match="has features only"):
        read_bag(cohort / "bags" / "s0.pt")
