"""What a run writes for a predicted slide: the draw, attention and evidence as data, and the patches that say most.

Pictures of them are drawn from what is written here: see `pipeline.run.pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.output.attention_map import write_attention_zarr, write_evidence_zarr
from pipeline.output.bags import write_samples_h5
from pipeline.output.documents import write_compact_json
from pipeline.output.slide_folder import GALLERY, THUMBNAIL, write_thumbnail
from pipeline.stopwatch import stage
from stages.bags.bag_slide import BagSlide
from stages.disk import new_file
from stages.overlay.gallery import choose, render_gallery
from stages.overlay.geojson import geojson
from stages.overlay.jpeg import write_jpeg

if TYPE_CHECKING:
    from pipeline.predict import SlidePrediction

DATA = frozenset({THUMBNAIL, "attention.zarr", "samples.h5", "overlay.geojson", "evidence.zarr", GALLERY})
"""What there is of a predicted slide beside its commit mark and its `PICTURES`, which are drawn from it."""


def data_of(commit: Mapping[str, Any]) -> frozenset[str]:
    """Which of `DATA` a finished slide has: there is no gallery of a bag, which has no pixels."""
    return DATA - {GALLERY} if commit["evidence"]["gallery"] is None else DATA


def write_artefacts(folder: Path, slide_id: str, found: SlidePrediction) -> list[dict[str, Any]] | None:
    """Write everything of a slide but its pictures and its commit mark; which patches the gallery shows, and where, is
    returned; None of a bag, which has no pixels to show."""
    facts, spec, boxes = found.slide.facts, found.spec, found.patch_boxes_level0
    mpp = facts.require_mpp()
    with stage("thumbnail"):
        write_thumbnail(folder / THUMBNAIL, found.thumbnail.rgb)
    write_attention_zarr(folder / "attention.zarr", found.attention, found.attention_raster, mpp=mpp)
    write_samples_h5(
        folder / "samples.h5",
        slide_id=slide_id,
        facts=facts,
        patch_px=spec.patch_px,
        patch_mpp=spec.patch_mpp,
        boxes_level0=boxes,
        cells=found.patch_cells,
        features=found.patch_features,
        attention=found.patch_attention,
        weights=found.patch_weights,
        attribution=found.attribution,
        names=found.task.statistics,
        unit=found.task.unit,
        encoder=spec.features_by,
    )
    outlines = geojson(
        found.attention,
        found.attention_raster,
        boxes,
        attention_at=found.patch_attention,
        weights=found.patch_weights,
        origin=facts.origin,
        contributions=_by_name(found),
        cells=found.patient_cells,
        unit=found.task.unit,
    )
    write_compact_json(folder / "overlay.geojson", outlines)
    return write_evidence(folder, slide_id, found)


def _by_name(found: SlidePrediction) -> dict[str, tuple[Any, Any]]:
    """Contributions to what each statistic speaks for: of two classes, which mirror each other, the second."""
    said, names = found.attribution, found.task.statistics
    told = [1] if found.task.kind == "classification" and len(names) == 2 else range(len(names))
    return {names[c]: (said.patches[:, c], said.patch_half_widths[:, c]) for c in told}


def told_name(found: SlidePrediction) -> str:
    """What the evidence is shown for: the second of two classes, else the predicted one; of a number, more of it."""
    task = found.task
    return task.statistics[task.column_of(found.predicted)]


def evidence_of(found: SlidePrediction) -> dict[str, Any]:
    """What each statistic is made of; ``constant + patches + unread``."""
    said, task = found.attribution, found.task

    def by_name(values: Any) -> dict[str, float | None]:
        return {name: float(v) if np.isfinite(v) else None for name, v in zip(task.statistics, values, strict=True)}

    return {
        "unit": task.unit,
        "log_odds" if task.unit == "log-odds" else "statistic": by_name(said.statistics),
        "half_width": by_name(said.half_widths),
        "constant": by_name(said.constant),
        "patches": by_name(said.patches.sum(0)),
        "unread": by_name(said.unread),
    }


def write_evidence(folder: Path, slide_id: str, found: SlidePrediction) -> list[dict[str, Any]] | None:
    """Write the map of what speaks for and against each class, or for more and for less, and the gallery of the one
    that is told; say which patches the gallery shows, None where there are no pixels to show."""
    said, names, shape = found.attribution, found.task.statistics, found.attention.shape
    mpp = found.slide.facts.require_mpp()
    told = said.told.reshape(shape)
    maps = said.cells.T.reshape(len(names), *shape)
    write_evidence_zarr(folder / "evidence.zarr", maps, told, found.attention_raster, classes=names, mpp=mpp)
    if isinstance(found.slide, BagSlide):
        return None
    name = told_name(found)
    column = names.index(name)
    shown = choose(said.patches[:, column], said.patch_half_widths[:, column])
    picture = render_gallery(
        found.slide,
        found.patch_boxes_level0,
        shown,
        name=name,
        title=found.in_words(slide_id, of=name),
        tissue=found.patch_tissue,
        mpp=mpp,
        seen_mpp=found.spec.patch_mpp,
        unit=found.task.unit,
        warned=found.warned,
    )
    with new_file(folder / GALLERY) as temporary:
        write_jpeg(temporary, picture)
    return [
        {
            "class": name,
            "cell": int(found.patch_cells[one.number]),
            "box_level0": found.patch_boxes_level0[one.number].tolist(),
            "width_um": float(found.patch_boxes_level0[one.number, 2] * mpp.x),
            "tissue": float(found.patch_tissue[one.number]),
            "contribution": one.contribution,
            "half_width": one.half_width if np.isfinite(one.half_width) else None,
            "row": one.row,
            "column": one.column,
        }
        for one in shown
    ]
