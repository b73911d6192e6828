"""A slide's pictures, drawn from what lies in its folder: another colour draws them anew without reading the slide."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.output.attention_map import read_attention_zarr, read_evidence_zarr
from pipeline.output.bags import read_boxes_level0
from pipeline.output.slide_folder import GALLERY, PREVIEW, SHEET, THUMBNAIL
from pipeline.report.slide_sheet import warned_of, write_slide_sheet
from stages.disk import new_file
from stages.geometry import Mpp, Raster
from stages.heap import give_back
from stages.overlay import evidence_picture, jpeg, page, picture
from stages.overlay.attention_map import times_uniform
from stages.overlay.evidence_picture import LOG_ODDS, evidence_page
from stages.overlay.gallery import close_up, close_up_told
from stages.overlay.jpeg import write_jpeg
from stages.overlay.page import PICTURE_PX, paged, preview
from stages.overlay.picture import overlay_page
from stages.prediction.kinds import INTERPOLATED
from stages.tissue.thumbnail import Thumbnail

if TYPE_CHECKING:
    from pipeline.predict import SlidePrediction

OVERLAY, EVIDENCE = "overlay.jpg", "evidence.jpg"
PICTURES = frozenset({OVERLAY, EVIDENCE, PREVIEW, SHEET})
SMALL = 6_000
"""Bytes that a preview may have, for a report holds those of many slides."""
ON_SHEET = {OVERLAY: (1400, 110_000), EVIDENCE: (940, 60_000), GALLERY: (1300, 100_000)}
"""Pixels that pictures of a sheet are wide at most, and bytes that they may have."""
SHOWS = {
    OVERLAY: "Where the model looked: colour is how likely a place was to be read. Squares: what was read.",
    GALLERY: "The patches that say most; their numbers stand on the maps.",
    EVIDENCE: "Orange speaks for {name}, blue against it: what a place by itself adds.",
}
PICTURES_VERSION = 6
"""Raised when a change to how they are drawn, other than of `drawn_by`, changes pictures."""


def drawn_by() -> str:
    """What pictures depend on beside the data, as a digest: equal ones look alike."""
    settings = [
        *(PICTURES_VERSION, picture.COLOURS, picture.OPACITY, page.PICTURE_PX, jpeg.BYTES_PER_PIXEL),
        *(evidence_picture.FOR, evidence_picture.AGAINST, evidence_picture.OPACITY, evidence_picture.LEAST),
        evidence_picture.LEAST_ELSE,
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def scale_of(found: Collection[SlidePrediction], shown: str) -> dict[str, float] | None:
    """The strongest attention, in multiples of the uniform, and the strongest evidence for or against the class
    ``shown`` on any of a patient's slides, by which pictures of all of them are coloured; None of a single slide, whose
    pictures have its own scale."""
    if len(found) < 2:
        return None
    said = [one.attribution.cells[:, one.task.statistics.index(shown)] for one in found]
    return {
        "attention": max(float(times_uniform(one.attention, one.patient_cells).max(initial=0.0)) for one in found),
        "evidence": max(float(np.abs(one).max(initial=0.0)) for one in said),
    }


def told_in_pictures(
    slide_id: str, found: SlidePrediction, shown: str, scale: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """What the commit mark keeps for pictures, beside the data: titles, the class whose evidence is ``shown``, and
    where the thumbnail lies (x, y, scale_x, scale_y, width, height); of how many cells attention is, and the ``scale``
    (`scale_of`), where these are not the slide's own."""
    return {
        "overlay": found.in_words(slide_id),
        "evidence": found.in_words(slide_id, of=shown),
        "class": shown,
        "column": found.task.statistics.index(shown),
        "unit": found.task.unit,
        "thumbnail": list(astuple(found.thumbnail.raster)),
        **({} if found.patient_cells is None else {"of_cells": found.patient_cells}),
        **({} if scale is None else {"scale": scale}),
    }


def draw_pictures(folder: Path, commit: Mapping[str, Any]) -> None:
    """Draw all pictures of a slide from its folder and its commit mark, which is not there yet or is to be replaced.

    Raises:
        OSError, ValueError, KeyError, UsageError: something of it is missing or damaged.
    """
    give_back()  # what predicting the slide and writing its data took
    told, mpp, warned = commit["pictures"], Mpp(*commit["mpp"]), warned_of(commit)
    scale: Mapping[str, float] = told.get("scale", {})
    thumbnail = _thumbnail(folder / THUMBNAIL, Raster(*told["thumbnail"]), mpp)
    give_back()
    boxes = read_boxes_level0(folder / "samples.h5")
    attention, cells = read_attention_zarr(folder / "attention.zarr")
    maps, origin, evidence_cells = read_evidence_zarr(folder / "evidence.zarr")
    gallery = _gallery(folder, commit)
    shown = commit["evidence"]["gallery"] or ()
    insets = [] if gallery is None else close_up(gallery, shown)
    overlay = overlay_page(
        thumbnail,
        attention,
        cells,
        boxes,
        title=told["overlay"],
        mpp_level0=mpp,
        cells=told.get("of_cells"),
        top=scale.get("attention"),
        insets=insets,
        insets_told=close_up_told(told["class"], told.get("unit", LOG_ODDS), others=len(insets) < len(shown)),
        alone=commit["evidence"]["gallery"] is None,
        warned=warned,
    )
    evidence = evidence_page(
        thumbnail,
        maps[told["column"]],
        evidence_cells,
        boxes,
        name=told["class"],
        interpolated=bool((origin == INTERPOLATED).any()),
        title=told["evidence"],
        mpp_level0=mpp,
        unit=told.get("unit", LOG_ODDS),
        top=scale.get("evidence"),
        insets=insets,
        warned=warned,
    )
    both = preview((overlay, evidence))
    for name, image, most in ((OVERLAY, overlay.image, None), (EVIDENCE, evidence.image, None), (PREVIEW, both, SMALL)):
        with new_file(folder / name) as temporary:
            write_jpeg(temporary, image, most)
    pictures = {OVERLAY: overlay.above_notes, GALLERY: gallery, EVIDENCE: evidence.above_notes}
    held = [
        (name, SHOWS[name].replace("{name}", told["class"]), _on_sheet(name, image))
        for name, image in pictures.items()
        if image is not None
    ]
    with new_file(folder / SHEET) as temporary:
        write_slide_sheet(temporary, commit, held)


def _on_sheet(name: str, picture: Image.Image) -> bytes:
    """A picture as a sheet holds it, as JPEG."""
    width, most = ON_SHEET[name]
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.HAMMING)
    return jpeg.encode(picture, most, best=75)


def _gallery(folder: Path, commit: Mapping[str, Any]) -> Image.Image | None:
    """The slide's gallery; none of a bag, which has no pixels, or where nothing is shown."""
    if not commit["evidence"]["gallery"]:
        return None
    with Image.open(folder / GALLERY) as gallery:
        return gallery.convert("RGB")


def _thumbnail(path: Path, raster: Raster, mpp_level0: Mpp) -> Thumbnail:
    """The slide's thumbnail, as large as pages show it."""
    with Image.open(path) as image:
        share = min(1.0, PICTURE_PX[1] / max(image.size))
        image.draft("RGB", (math.ceil(image.width * share), math.ceil(image.height * share)))  # a large one, by halves
        step = round(max(raster.shape) / max(image.size))
        shown, there = paged(image, raster.pooled(step, step / 2, *image.size), mpp_level0)
    return Thumbnail(np.asarray(shown), there, there.scale_x * mpp_level0.x)
