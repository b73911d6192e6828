"""What a model will read of a slide, and what that costs: counted by the model's own look, timed on a few patches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.check.values import Estimate, Need, SlideCheck
from pipeline.model.frozen import frozen_features
from pipeline.model.look import Look, look_at
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from stages.amounts import size
from stages.attention import Attention, ThumbnailAttention
from stages.pyramid.open import open_pyramid
from stages.slide.protocol import Slide

TIMED = 8
"""Patches whose reading and encoding are timed."""
SLIDE_BYTES, PICTURE_BYTES = 300_000, 0.2
"""That a run keeps of each slide whatever its size, and for each pixel of its thumbnail: pictures and maps."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where and how a model reads: all of it that `pipeline.model.look.look_at` needs, and none of its weights.

    Attributes:
        spec, attention, inner, feature_dim: see `SlideModel`.
        samples: patches a slide; of a model of patients, of one of a patient's slides.
    """

    spec: ModelSpec
    attention: Attention
    inner: ThumbnailAttention | None
    feature_dim: int
    samples: int


def geometry_of(model: SlideModel) -> Geometry:
    """Of a model."""
    return Geometry(model.spec, model.attention, model.inner, model.feature_dim, model.spec.samples)


def need_of(slide: Slide, model: Geometry) -> tuple[Look, Need]:
    """Look at a slide as the model does, and count what it will read of it.

    Raises:
        SlideError, ValueError: as `look_at`.
    """
    started = time.perf_counter()
    look = look_at(slide, cast(SlideModel, model))  # of which it asks for nothing else
    seconds = time.perf_counter() - started
    tissue = np.flatnonzero(look.tissue)
    cells, opened = _spread(look, tissue, model)
    coarse = len(tissue) if look.surveyor is not None else 0
    pixels = math.prod(look.thumbnail.raster.shape)
    count = look.count(cells, opened)
    return look, Need(count.bytes, len(tissue), len(cells), coarse, seconds, pixels)


def _spread(look: Look, tissue: NDArray[np.int64], model: Geometry) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As many cells as the model reads, spread over the tissue, and the regions that they lie in."""
    spec, generator = model.spec, np.random.default_rng(0)
    samples = len(tissue) if spec.exhaustive else min(model.samples, len(tissue))
    if look.insider is None:
        return np.sort(generator.choice(tissue, samples, replace=False)), np.zeros(0, np.int64)
    side, columns = spec.region_cells, look.cells.width
    region = tissue // columns // side * (columns // side) + tissue % columns // side
    opened = generator.permutation(np.unique(region))[: math.ceil(samples / spec.region_samples)]
    inside = tissue[np.isin(region, opened)]
    return np.sort(generator.choice(inside, min(samples, len(inside)), replace=False)), np.sort(opened)


def estimate(slides: Sequence[SlideCheck], model: SlideModel, *, workers: int) -> Estimate | None:
    """About what the model will cost on slides that were checked; None where none of them can be read.

    Args:
        slides: as they were checked.
        model: loaded where it will compute.
        workers: processes that will work.
    """
    usable = [(found, found.need) for found in slides if found.need is not None and found.status != "error"]
    if not usable:
        return None
    needs = [need for _, need in usable]
    typical, _ = sorted(usable, key=lambda pair: pair[1].cells)[len(usable) // 2]
    mpp = typical.mpp[0] if typical.mpp and typical.mpp_source == "override" else None
    look = look_at(open_pyramid(typical.slide.path, mpp=mpp), model)
    fine, coarse = _seconds_a_patch(look, model)
    patches, surveyed = sum(need.patches for need in needs), sum(need.coarse for need in needs)
    seconds = sum(need.look_seconds for need in needs) + patches * fine + surveyed * coarse
    kept = 2 * model.feature_dim * (patches + surveyed) if model.spec.frozen else 0
    pictures = round(sum(SLIDE_BYTES + PICTURE_BYTES * need.thumbnail_pixels for need in needs))
    by = f"{workers} processes" if workers > 1 else "one process"
    also = f" and {1000 * coarse:.1f} ms at its coarse scale" if coarse else ""
    how = (
        f"bytes: of the tiles that the thumbnail{', all tissue at the coarse scale' if coarse else ''} and "
        f"{model.spec.samples or 'all'} patches a {model.spec.unit}, spread over its tissue, touch; time: the "
        f"thumbnails' own, and {1000 * fine:.1f} ms a patch{also}, measured on {typical.slide.slide_id!r} on "
        f"{model.device}, by {by}; disk: features that are kept and, of each slide, {size(SLIDE_BYTES)} and "
        f"{PICTURE_BYTES:g} bytes a thumbnail pixel"
    )
    return Estimate(
        bytes=sum(need.bytes for need in needs),
        patches=(patches, surveyed),
        seconds=seconds / max(1, workers),
        disk_bytes=kept + pictures,
        how=how,
    )


@torch.no_grad()
def _seconds_a_patch(look: Look, model: SlideModel) -> tuple[float, float]:
    """Seconds to read and encode a patch, and one at the coarse scale, 0 where there is none; nothing is kept."""
    view = replace(look.view, key=None, coarse_key=None)
    tissue = np.flatnonzero(look.tissue)
    cells = tissue[:: max(1, len(tissue) // TIMED)][:TIMED]
    seconds = []
    for _ in range(2):  # the first also warms up
        started = time.perf_counter()
        model.encode(view, cells)
        seconds.append((time.perf_counter() - started) / len(cells))
    backbone = getattr(model, "coarse_backbone", None)
    if view.coarse is None or backbone is None:
        return seconds[-1], 0.0
    started = time.perf_counter()
    frozen_features(backbone, cells, view.coarse, key=None, store=None, device=model.device)
    return seconds[-1], (time.perf_counter() - started) / len(cells)
