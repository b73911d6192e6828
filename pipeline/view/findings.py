"""What a run found of one slide, as far as it is there: maps, patches, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.output.attention_map import read_attention_zarr, read_evidence_zarr
from pipeline.output.slide_folder import read_commit
from pipeline.view.frame import Frame
from pipeline.view.layers import Layer, attention_layer, evidence_layer
from pipeline.view.run_folder import AGAIN, SlideRow, inner
from pipeline.view.samples import Samples, origin_of, read_samples
from pipeline.view.thumbnail import thumbnail_place
from stages.geometry import Mpp, Raster
from stages.given import Ground

_DAMAGED = (OSError, KeyError, ValueError, TypeError, UsageError)


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is to show of a slide.

    Attributes:
        frame: where it lies on the screen.
        mpp: µm per level-0 pixel; None where nobody says.
        ground: what says where maps of others lie on it; None where ``samples`` are not there, which tell it.
        layers: its maps; the first is shown.
        samples: the patches that were read; None where they are not there.
        cells: how many cells attention is over; None where there is no map.
        told: whose evidence is shown, by its place among ``samples.names``.
        thumbnail: place of the picture in its folder; None where there is none.
        words: sentences on it, by name.
        missing: what is not there, in sentences with the remedy.
    """

    frame: Frame
    mpp: Mpp | None
    ground: Ground | None
    layers: Sequence[Layer]
    samples: Samples | None
    cells: int | None
    told: int
    thumbnail: Raster | None
    words: dict[str, str]
    missing: Sequence[str]


def find(
    slide: SlideRow, told: int | str | None = None, *, least: Mapping[str, float] = MappingProxyType({})
) -> Findings:
    """What a run found of a slide.

    Args:
        slide: which has a folder.
        told: whose evidence is shown, by its place or its name; by default, and where there is no such name, that of
            the class that the run's own pictures show.
        least: by the name of a map what its last colour stands for, at least.

    Raises:
        UsageError: nothing of it can be shown.
    """
    assert slide.folder is not None, "a slide without results has no page"
    folder, missing = slide.folder, []
    commit = read_commit(folder)
    if commit is None:
        raise UsageError(f"the result of {slide.name} is not finished, or its prediction.json is damaged: {AGAIN}")
    pictures = inner(commit, "pictures")
    samples: Samples | None = None
    try:
        samples = read_samples(folder / "samples.h5")
    except _DAMAGED:
        missing.append(f"The patches that were read (samples.h5) are missing or damaged: {AGAIN}.")
    names = samples.names if samples is not None else ()
    if isinstance(told, str):
        told = list(names).index(told) if told in names else None
    column = int(pictures.get("column", 0) if told is None else told)
    layers: list[Layer] = []
    many: int | None = None
    try:
        attention, raster = read_attention_zarr(folder / "attention.zarr")
        many = int(pictures.get("of_cells") or np.count_nonzero(attention))
        layers.append(attention_layer(attention, raster, many, least=least.get("attention", 2.0)))
    except _DAMAGED:
        missing.append(f"The attention map (attention.zarr) is missing or damaged: {AGAIN}.")
    if not (folder / "evidence.zarr").exists() and not pictures:
        missing.append(f"An earlier version made this result, which told of no evidence for and against: {AGAIN}.")
    else:
        try:
            maps, _, raster = read_evidence_zarr(folder / "evidence.zarr")
            column = min(max(column, 0), len(maps) - 1)
            name = names[column] if column < len(names) else str(pictures.get("class"))
            unit = str(pictures.get("unit", "log-odds"))
            how: dict[str, Any] = {"name": name, "unit": unit, "least": least.get("evidence", 0.0)}
            layers.append(evidence_layer(maps[column], raster, **how))
        except _DAMAGED:
            missing.append(f"The map of evidence (evidence.zarr) is missing or damaged: {AGAIN}.")
    if samples is not None and column >= len(samples.names):
        column = 0
    thumbnail = thumbnail_place(folder, pictures)
    size = samples.size if samples is not None else _size([layer.raster for layer in layers], thumbnail)
    mpp = Mpp(*map(float, commit["mpp"])) if commit.get("mpp") else samples.mpp if samples is not None else None
    ground = None
    if samples is not None:
        ground = Ground(samples.size, samples.bounds, origin_of(folder, commit, samples.bounds), mpp)
    return Findings(
        frame=Frame.of(*size, mpp),
        mpp=mpp,
        ground=ground,
        layers=layers,
        samples=samples,
        cells=many,
        told=column,
        thumbnail=thumbnail,
        words={str(name): str(line) for name, line in inner(commit, "words").items()},
        missing=missing,
    )


def _size(rasters: Sequence[Raster], thumbnail: Raster | None) -> tuple[int, int]:
    """How large the slide is at least."""
    ends = np.array([r.extent_level0[2:] for r in (*rasters, *([thumbnail] if thumbnail else []))]).reshape(-1, 2)
    if not len(ends):
        raise UsageError(f"nothing of this slide's result is left: {AGAIN}")
    width, height = np.ceil(ends.max(0)).astype(int).tolist()
    return width, height
