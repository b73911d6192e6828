"""The bags of a cohort's slides as the model sees slides: tiles for cells, and features that need no encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.model.distilled_model import DistilledModel
from pipeline.model.frozen import frozen_features
from pipeline.model.look import Look
from pipeline.model.values import View
from stages.bags.bag import Bag, BagError
from stages.encoder.feature_store import FeatureKey
from stages.geometry import patch_rasters
from stages.sampling.walk import hilbert_position
from stages.slide.render import render_many

LIKE = 0.5
"""Of the variance of a bag's features, what the same tiles encoded again must explain: another encoder's explain none,
and one that resizes otherwise nearly all."""
CHECKED = 8
"""Tiles of a bag that are encoded again."""
READ = 32
"""Tiles that are read together."""
ALIKE = 0.02
"""By how much bags of a cohort may differ in a tile's µm per pixel: scanners do."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideBag:
    """A slide whose cells are the tiles of its bag.

    Attributes:
        view: of these.
        rows: which of the bag's tiles each tissue cell is, in row-major order, (n,).
    """

    view: View
    rows: NDArray[np.int64]


def bag_view(look: Look, bag: Bag) -> SlideBag:
    """Lay a view's cells on a bag's tiles: those of the slide's own grid where they lie on it, to a hundredth of their
    side, else the tiles in a row, in the order of a Hilbert curve over the slide.

    Raises:
        BagError: tiles lie outside the slide.
    """
    full, mpp = look.slide.facts.levels[0], look.slide.facts.require_mpp()
    centres = bag.centres_level0(mpp)
    outside = int(((centres < 0) | (centres > (full.width, full.height))).any(1).sum())
    if outside:
        raise BagError(
            f"{bag.path}: {outside} of {len(bag)} tiles lie outside the slide of {full.width} x {full.height} px: the "
            "bag is another slide's, or its coordinates are of another level; write it anew"
        )
    rows, columns = look.cells.shape
    uv = np.floor(look.cells.from_level0(centres)).astype(np.int64).clip(0, (columns - 1, rows - 1))
    flat = uv[:, 1] * columns + uv[:, 0]
    side = 2 * float((centres - bag.coords).mean())
    apart = np.abs(look.reader.boxes_level0(flat)[:, :2] - bag.coords).max()
    if apart <= max(1.0, side / 100) and len(np.unique(flat)) == len(flat):
        tissue = np.zeros(look.cells.shape, bool)
        tissue.ravel()[flat] = True
        return SlideBag(replace(look.view, tissue=tissue, prior=None), np.argsort(flat))
    order = np.argsort(hilbert_position(rows, columns, flat), kind="stable")
    return SlideBag(_in_a_row(look, centres[order]), order)


def _in_a_row(look: Look, centres: NDArray[np.float64]) -> View:
    assert look.surveyor is not None
    slide = look.slide
    mpp = slide.facts.require_mpp()
    digest = hashlib.blake2b(np.rint(centres).astype(np.int64).tobytes(), digest_size=16).hexdigest()

    def at(
        px: int, patch_mpp: float
    ) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.uint8]], Callable[..., FeatureKey]]:
        def read(cells: NDArray[np.int64]) -> NDArray[np.uint8]:
            rasters = patch_rasters(centres[cells], mpp, px, patch_mpp)
            parts = [render_many(slide, rasters[i : i + READ]) for i in range(0, len(rasters), READ)]
            return np.concatenate(parts)

        def key(encoder: str, dim: int) -> FeatureKey:
            place = ("tiles", digest, mpp.x, mpp.y)
            return FeatureKey(slide.facts.content, encoder, dim, patch_mpp, px, place)

        return read, key

    patches, key = at(look.reader.patch_px, look.reader.patch_mpp)
    coarse, coarse_key = at(look.surveyor.patch_px, look.surveyor.patch_mpp)
    tissue = np.ones((1, len(centres)), bool)
    return View(look.thumbnail.rgb, tissue, patches, coarse=coarse, key=key, coarse_key=coarse_key)


def refuse_other_encoder(model: DistilledModel, found: SlideBag, bag: Bag) -> float:
    """Encode a few of a bag's tiles again; the share of the features' variance that they explain, 1 where they are the
    same.

    Raises:
        BagError: it is below `LIKE`, or features are of another length.
        SlideError: the slide cannot be read there.
    """
    name = model.backbone.card.name
    if bag.features.shape[1] != model.feature_dim:
        raise BagError(
            f"{bag.path} has features of length {bag.features.shape[1]}, {name} gives {model.feature_dim}: name the "
            "encoder that made them, encoder.name"
        )
    cells = np.flatnonzero(found.view.tissue)
    some = np.unique(np.linspace(0, len(cells) - 1, CHECKED).round().astype(np.int64))
    options = {"key": found.view.key, "store": model.store}
    again = frozen_features(model.backbone, cells[some], found.view.patches, device=model.device, **options)  # type: ignore[arg-type]
    theirs = bag.features[found.rows]
    apart = np.square(again.cpu().numpy() - theirs[some]).sum(1).mean()
    spread = np.square(theirs - theirs.mean(0)).sum(1).mean()
    like = 1 - float(apart / max(spread, 1e-12))
    if not like >= LIKE:
        raise BagError(
            f"{bag.path}: its features are not those of {name} ({model.backbone.card.digest[:12]}) at its tiles: "
            f"{len(some)} tiles encoded again explain {max(like, 0):.0%} of their variance; give the encoder, and the "
            "size of the tiles, that they were made with"
        )
    return like
