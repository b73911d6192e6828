"""The paper's images as the product's model on a frozen encoder sees them, and that model trained on them.

An image is a slide all of which is tissue. Its cells are seen at two scales: fine patches about their centres, and the
same patches at half the resolution. What the encoder makes of them is kept, so that folds and repeats share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.paper.config import Frozen, Sight, Training
from benchmarks.paper.views import corners_of, padded, shrunk, train_sampler, window_reader
from pipeline.model.build import backbone_of
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from pipeline.train.bagging import OutOfBag, draw_bags, settle
from pipeline.train.slides import TrainingSlides
from stages.encoder.feature_store import FeatureKey, FeatureStore

COARSE = 2
"""Pixels of an image along one at the coarse scale."""
CELL_PX = 2
"""Pixels of the low view along a cell: it is shown to nothing that learns here."""


class FrozenViews:
    """The images one by one. None is augmented: a frozen encoder sees each patch once.

    Args:
        images: (n, S, S, 3) uint8.
        frozen: cells and patches.
    """

    def __init__(self, images: Tensor, frozen: Frozen) -> None:
        low_px = CELL_PX * frozen.cells
        self.sight = Sight(low_px=low_px, cell_px=CELL_PX, patch_px=frozen.patch_px)
        self.cells, self.scale = frozen.cells, images.shape[1] / low_px
        self._low = [shrunk(image, low_px) for image in images.numpy()]
        self._framed = [padded(image, frozen.patch_px) for image in images.numpy()]
        self._fingerprints = [hashlib.sha256(image.tobytes()).hexdigest() for image in images.numpy()]

    def __call__(self, index: int, generator: torch.Generator | None = None) -> View:
        """An image by number."""
        px = self.sight.patch_px
        read = window_reader(self._framed[index], px)

        def patches(cells: NDArray[np.int64]) -> NDArray[np.uint8]:
            return read(self._corners(cells))

        def coarse(cells: NDArray[np.int64]) -> NDArray[np.uint8]:
            fine = patches(cells).reshape(len(cells), px // COARSE, COARSE, px // COARSE, COARSE, 3)
            means: NDArray[np.uint8] = np.rint(fine.mean((2, 4))).astype(np.uint8)
            return means

        def key(encoder: str, dim: int, scale: int) -> FeatureKey:
            place = ("cells of an image", CELL_PX * self.scale)
            return FeatureKey(self._fingerprints[index], encoder, dim, float(scale), px // scale, place)

        return View(
            rgb=self._low[index],
            tissue=np.ones((self.cells, self.cells), bool),
            patches=patches,
            coarse=coarse,
            key=partial(key, scale=1),
            coarse_key=partial(key, scale=COARSE),
        )

    def centres(self) -> NDArray[np.float64]:
        """Centres of all cells' patches (K, 2), as (y, x) in pixels of the image."""
        centres: NDArray[np.float64] = self._corners(np.arange(self.cells**2)).astype(np.float64)
        return centres + self.sight.patch_px / 2

    def _corners(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        return corners_of(np.stack(np.divmod(cells, self.cells), -1), self.sight, (self.scale,) * 2)


def build_frozen(frozen: Frozen, *, scale: float, samples: int, store: FeatureStore | None) -> EvidenceModel:
    """The product's model on its frozen encoder, of two classes; untrained ones are all alike.

    Args:
        scale: pixels of an image along one of its low view.
    """
    enlarge = frozen.shown_px / frozen.patch_px
    spec = ModelSpec(
        classes=("0", "1"),
        attention_mpp=scale,
        patch_mpp=1.0,
        patch_px=frozen.patch_px,
        attention="encoder",
        encoder=frozen.encoder,
        dim=0,
        scheme="systematic",
        samples=max(2, samples),
        coarse_mpp=float(COARSE),
        enlarge=COARSE * enlarge,
        context=frozen.context,
        components=frozen.components,
        fine_components=frozen.fine_components,
        members=frozen.members,
        uniform=frozen.uniform,
        against=("slide",) if frozen.standardise else ("cohort",),
    )
    backbone = backbone_of(frozen.encoder, None, "float32").enlarged(frozen.patch_px, enlarge)
    return EvidenceModel(spec, backbone=backbone, store=store)


def train_frozen(
    model: EvidenceModel,
    views: FrozenViews,
    items: Sequence[int],
    labels: Sequence[int],
    training: Training,
    *,
    samples: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[float, OutOfBag]:
    """Train in place by the product's own training on images ``items``, as `train_sampler`.

    Returns:
        The mean cross-entropy of the last epoch, and what members say of those of ``items`` that they did not see.
    """
    images = [str(item) for item in items]  # each another patient's
    bags = draw_bags(images, labels, model.spec.members, seed=seed)
    loss = train_sampler(model, views, items, labels, training, samples=samples, seed=seed, say=say, bags=bags)
    model.eval()
    seen = TrainingSlides(len(items), lambda index: views(items[index]))
    return loss, settle(model, seen, torch.as_tensor(labels), images, bags, samples=samples, seed=seed)
