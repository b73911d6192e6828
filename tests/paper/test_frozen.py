"""The paper's images on the product's model with a frozen encoder: two scales, what is kept, what is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.paper.colon_folds import Trainer
from benchmarks.paper.colon_images import KINDS, Colon
from benchmarks.paper.config import ColonTask, Frozen, Networks, Row, Sight, Training
from benchmarks.paper.frozen import FrozenViews, build_frozen

SEEN = Frozen(cells=3, patch_px=20, shown_px=32, context=(1,), components=4, fine_components=2, members=8)


def noise(n: int, side: int = 60) -> torch.Tensor:
    return torch.randint(256, (n, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_patches_tile_the_image_and_coarse_ones_are_their_means() -> None:
    images = noise(2)
    view = FrozenViews(images, SEEN)(1)
    assert view.coarse is not None
    fine = view.patches(np.arange(9))
    whole = fine.reshape(3, 3, 20, 20, 3).swapaxes(1, 2).reshape(60, 60, 3)
    np.testing.assert_array_equal(whole, images[1].numpy())
    means = fine.reshape(9, 10, 2, 10, 2, 3).mean((2, 4))
    np.testing.assert_allclose(view.coarse(np.arange(9)), means, atol=0.5)


def test_features_are_kept_by_image_scale_and_cells() -> None:
    images = noise(2)
    keys = set()
    for frozen in (SEEN, SEEN.model_copy(update={"cells": 4})):
        for index in range(2):
            view = FrozenViews(images, frozen)(index)
            assert view.key is not None
            assert view.coarse_key is not None
            keys |= {view.key("encoder", 8).digest, view.coarse_key("encoder", 8).digest}
    assert len(keys) == 8
    again = FrozenViews(images, SEEN)(0)
    assert again.key is not None
    assert again.key("encoder", 8).digest in keys


@pytest.mark.parametrize("standardise", [True, False])
def test_what_is_everywhere_on_an_image_shows_only_beside_the_other_images(standardise: bool) -> None:
    """The mean over the cells of what is looked at is 0 for each image, or for all of them together."""
    images = noise(2)
    images[1] //= 2
    views = FrozenViews(images, SEEN)
    frozen = SEEN.model_copy(update={"standardise": standardise})
    model = build_frozen(frozen, scale=views.scale, samples=0, store=None)
    model.coarse_whitening.fit([model.encode_coarse(views(i)) for i in range(2)], within=True)
    dark, bright = (model.survey(views(i)).context[0].mean(0) for i in (1, 0))
    torch.testing.assert_close(dark + bright, torch.zeros(4), atol=1e-3, rtol=0)
    assert bool(dark.abs().max() < 1e-3) == standardise


@pytest.mark.parametrize(("options", "reads"), [({"samples": 2, "draws": 2}, 2), ({"exact": True}, 0), ({}, 9)])
def test_a_fold_is_trained_predicted_and_judged_out_of_bag(options: dict[str, object], reads: int) -> None:
    images = noise(16)
    images[1::2, 20:40, 20:40] = torch.tensor([80, 50, 140], dtype=torch.uint8)
    nuclei = tuple({kind: np.array([[30.0, 30.0]] * (i % 2)).reshape(-1, 2) for kind in KINDS} for i in range(16))
    colon = Colon(tuple(f"img{i}" for i in range(16)), images, torch.arange(16) % 2, nuclei)
    task = ColonTask(
        folds=2,
        sight=Sight(low_px=12, cell_px=2, patch_px=10),
        networks=Networks(widths=(4, 4, 4), patch_px=27, grid_stride=16),
        training=Training(epochs=1, batch_size=4),
        rows={"frozen": Row.model_validate({"title": "", "kind": "frozen", "frozen": SEEN, **options})},
    )
    record = Trainer(colon, task).train("frozen", 0, 0)
    assert record["reads"] == reads
    assert 0 <= record["out_of_bag"] <= 1
    assert all(0 < p < 1 for p in record["probabilities"])
    assert record["focus"].keys() == {name for name, y in zip(record["images"], record["labels"], strict=True) if y}
