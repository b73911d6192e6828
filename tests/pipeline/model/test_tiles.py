"""A bag as a model sees it: the same prediction as of the slide that it was made of; other bags are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from bags import DIM, PX, SIDE, corners_of, features_of, write_bag
from makers import tissue_pixels, write_slide
from models import EXHAUSTIVE, TINY, exhaustive_model, random_lite0

from pipeline.model.build import build_model
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.look import look, look_at
from pipeline.model.spec import ModelSpec
from pipeline.model.tiles import doubts_of, same_encoder
from pipeline.predict import predict_slide
from stages.bags.bag_slide import BagSlide, open_bag
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError

SPEC = replace(EXHAUSTIVE, patch_px=PX, patch_mpp=1.0)


def bag(folder: Path, dim: int = DIM, **more: Any) -> BagSlide:
    return open_bag(
        write_bag(folder / "b" / "s.h5", corners_of(20), features_of(20, positive=1, seed=0, dim=dim), **more)
    )


@pytest.mark.parametrize("head", ["evidence", "transmil"])
def test_a_slide_and_its_bag_are_predicted_alike(head: str, tmp_path: Path) -> None:
    """Whatever order the bag's tiles are in; heads that see neighbours see the same ones."""
    slide = write_slide(tmp_path / "s.tif", tissue_pixels(500, 430, margin=0.1), levels=2, factor=4)
    model = exhaustive_model(head)
    whole = predict_slide(open_pyramid(slide), model)
    shown = look(slide, model)
    cells = np.flatnonzero(shown.tissue)
    order = np.random.default_rng(0).permutation(len(cells))
    boxes = shown.reader.boxes_level0(cells)
    # a cell at the slide's edge has its patch moved inside: the bag has the tile where its cell is
    corners = shown.cells.centres_level0(cells) - boxes[:, 2:] / 2
    path = tmp_path / "bags" / "s.h5"
    told = {"patch_size": 32, "patch_size_level0": boxes[0, 2], "target_mpp": 0.5}
    write_bag(path, corners[order], model.encode(shown.view, cells).numpy()[order], told=told, encoder="tiny")
    of_bag = predict_slide(open_pyramid(path), model)
    assert of_bag.probabilities == pytest.approx(whole.probabilities, abs=1e-6)
    assert of_bag.warnings == ()
    assert (of_bag.patches_read, of_bag.out_of_distribution) == (len(cells), None)
    assert of_bag.fraction_read == pytest.approx(1)
    assert sorted(map(tuple, of_bag.patch_boxes_level0.round().tolist())) == sorted(
        map(tuple, np.c_[corners, boxes[:, 2:]].round().tolist())
    )
    assert np.sort(of_bag.attention[of_bag.attention > 0]) == pytest.approx(
        np.sort(whole.attention[whole.attention > 0]), rel=1e-4
    )


def test_each_cell_has_its_own_tile_and_features(tmp_path: Path) -> None:
    """Also where tiles share a place in the grid, and are in no order."""
    rng = np.random.default_rng(1)
    corners = np.concatenate([corners_of(20), corners_of(8, columns=2) + 77 + 3 * SIDE])[rng.permutation(28)]
    features = features_of(28, positive=0, seed=2)
    opened = open_bag(write_bag(tmp_path / "b" / "s.h5", corners, features))
    model = exhaustive_model("mean")
    model.spec = SPEC
    found = look_at(opened, model)
    cells = np.flatnonzero(found.tissue)
    boxes, given = found.reader.boxes_level0(cells), found.view.features
    assert given is not None
    where = {tuple(corner): row for row, corner in enumerate(corners.tolist())}
    rows = [where[tuple(box[:2])] for box in boxes.tolist()]
    assert sorted(rows) == list(range(28))
    assert np.array_equal(given(cells), features[rows])
    assert found.count(cells, np.empty(0, np.int64)).bytes == features.nbytes
    assert found.thumbnail.rgb.shape[:2] == found.mask.shape == found.thumbnail.raster.shape
    assert found.at_rest().view.features is not None


@pytest.mark.parametrize(
    ("spec", "dim", "told", "said"),
    [
        (TINY, DIM, {}, "it is a bag, which has features and no pixels"),
        (SPEC, 7, {}, "features of length 12, the model takes 7: they are of another encoder; give bags of tiny"),
        (SPEC, DIM, {"encoder": "uni_v1"}, "made by 'uni_v1', the model takes those of 'tiny'"),
        (replace(SPEC, bags="virchow"), DIM, {"encoder": "virchow2"}, "takes those of 'virchow'"),
        (replace(SPEC, patch_px=256, patch_mpp=0.5), DIM, {}, "of 128 px at 1 µm/px, the model takes 256 px at 0.5"),
        (replace(SPEC, patch_mpp=0.5), DIM, {}, "the model takes 128 px at 0.5 µm/px"),
    ],
)
def test_a_bag_of_another_kind_is_refused(
    spec: ModelSpec, dim: int, told: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SlideError, match=said):
        doubts_of(bag(tmp_path, **told), spec, dim)


def test_what_is_near_is_doubted_and_spellings_are_one(tmp_path: Path) -> None:
    assert doubts_of(bag(tmp_path, encoder="uni_v1"), replace(SPEC, bags="UNI"), DIM) == ()
    assert doubts_of(bag(tmp_path), replace(SPEC, bags=""), DIM) == ()
    assert doubts_of(bag(tmp_path), SPEC, DIM) == (
        "the bag does not say what made its features: they are taken for those of tiny",
    )
    (far,) = doubts_of(bag(tmp_path, encoder="tiny"), replace(SPEC, patch_mpp=0.93), DIM)
    assert far == "its tiles are at 1 µm/px, the model's at 0.93 µm/px"


def test_a_bag_that_breaks_after_it_was_looked_at_fails_its_slide(tmp_path: Path) -> None:
    opened = bag(tmp_path)
    model = exhaustive_model("mean")
    model.spec = SPEC
    found = look_at(opened, model)
    with h5py.File(opened.facts.file, "r+") as file:
        del file["features"]
    with pytest.raises(SlideError, match="the file is no longer the one that was opened"):
        model.encode_all(found.view)


def test_a_model_of_bags_whose_encoder_is_here_predicts_a_slide_as_it_does_its_bag(tmp_path: Path) -> None:
    """Once it is asked for pixels it is an exhaustive model like any other, which is doubted."""
    slide = write_slide(tmp_path / "s.tif", tissue_pixels(500, 430, margin=0.1), levels=2, factor=4)
    weights = random_lite0(tmp_path / "w.safetensors")
    spec = replace(EXHAUSTIVE, head="mean", patch_px=64, patch_mpp=1.0, encoder="lite0", dim=1280, bags="", context=())
    model = build_model(spec, encoder_weights=weights).eval()
    model.whitening.mean.normal_()
    model.whitening.basis.normal_()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    save_model(model, tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors", device="cpu", encoder_weights=weights)
    whole = predict_slide(open_pyramid(slide), model)
    assert any("whether lite0 makes the same features of pixels here was not compared" in w for w in whole.warnings)
    told = {"patch_size": 64, "patch_size_level0": 128, "target_mpp": 1.0}
    boxes = whole.attention_raster.centres_level0(whole.patch_cells) - 64
    bag = open_bag(write_bag(tmp_path / "b" / "s.h5", boxes, whole.patch_features, told=told))
    assert predict_slide(bag, model).probabilities == pytest.approx(whole.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        *(("UNI", "uni_v1", True), ("conch_v15", "conch-v1.5", True), ("virchow", "virchow2", False)),
        *(("timm:a", "uni", True), ("timm:a", "timm:b", False), ("H-optimus-0", "hoptimus0", True)),
    ],
)
def test_which_names_may_be_one_encoder(one: str, other: str, same: bool) -> None:
    assert same_encoder(one, other) is same_encoder(other, one) is same
