"""Export: a slide as OME-Zarr 0.4 on zarr v2, for QuPath and whatever else reads nothing newer.

It shows the slide's scanned part, as QuPath shows the slide: objects that fit the one fit the other.

One file a chunk, planar and deflated, axes t, c, z, y, x: what Bio-Formats' reader takes without native libraries. Our
own commands read it as they read anybody's. It is made as a portable pyramid is, see `stages.pyramid.cache`.

Formats: https://ngff.openmicroscopy.org/0.4/ and https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.budget import Room
from stages.disk import holds_only, new_file
from stages.place import Place, local
from stages.pyramid.cache import WRITERS
from stages.pyramid.format import Progress
from stages.pyramid.layout import LevelLayout, fill_value, ome_metadata
from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import Plan, portable_plan
from stages.pyramid.record import FORMAT, origin_of, refuse_another, write_json
from stages.pyramid.scanned import scanned, scanned_box
from stages.pyramid.task import Task
from stages.pyramid.transaction import build
from stages.slide.facts import SlideFacts
from stages.slide.protocol import Slide
from stages.slide.revision import Revision

SUFFIX = ".ngff04.ome.zarr"

_LEVEL = 1
_FRAME = "level0_box"
"""What our record calls the part of the slide's level-0 frame that the image shows."""


def export_ngff04(
    slide: Slide,
    out: Path | str,
    *,
    everything: bool = False,
    progress: Progress | None = None,
    writers: int = WRITERS,
    room: Room | None = None,
    wait: bool = True,
) -> Path:
    """Write a slide as an OME-Zarr 0.4 image at ``out`` and return that path; at once where it is there already.

    Args:
        slide: what to copy; where tissue is on it is judged by its µm/px.
        out: the image's folder.
        everything: keep all chunks; by default the finest levels hold the surroundings of tissue.
        progress: called from this thread.
        writers: regions copied at once.
        room: what of the disk may be taken; None: all.
        wait: for another process that is making it; else see below.

    Raises:
        BusyError: another process is making it, or has reserved what it may not take in the end.
        FullDiskError: there is no room; nor will there be for another slide.
        DiskBudgetError: it may take more than there is room for.
        SlideError: the slide cannot be read, or the image not be written.
    """
    task = export_task(slide, everything=everything)
    return build(
        task.source,
        Path(out),
        task.form,
        plan=task.plan,
        is_current=task.is_current,
        progress=progress,
        writers=writers,
        room=room,
        wait=wait,
    )


def export_task(slide: Slide, *, everything: bool = False) -> Task:
    """What `export_ngff04` has to do for these arguments; nothing is written.

    Raises:
        SlideError: the slide cannot be read.
    """
    whole = open_pyramid(slide.facts.path)
    source, size = scanned(whole), whole.facts.levels[0]

    def missing(where: Place) -> str | None:
        folder = local(where, "exports are written to disks")
        # an export that does not say where it lies was made of all of the slide
        record = {_FRAME: [0, 0, size.width, size.height], **_read_record(folder)}
        if "format" not in record:
            return "what is there is damaged, or no export" if os.path.lexists(folder) else ""
        if record.get("fingerprint") != source.facts.fingerprint:
            refuse_another(folder, record.get("origin"), source.facts.path)
            return "its slide has changed"
        # earlier versions recorded no revision
        if record.get("revision") and not source.facts.unchanged(Revision.recorded(record["revision"])):
            refuse_another(folder, record.get("origin"), source.facts.path)
            return "its slide has changed"
        if (record["format"], record[_FRAME]) != (FORMAT, _frame(whole.facts)):
            return "an earlier version made it"
        return None if record.get("kept") == "all" or not everything else "it holds tissue only, and all is wanted"

    return Task(source, _Export(), missing, lambda: portable_plan(source, seen=slide, everything=everything))


class _Export:
    """How it is stored, see `stages.pyramid.format.Format`."""

    name = "ngff04"

    def start(self, plan: Plan) -> None:
        for layout in plan.layouts:
            for row in range(-(-layout.size[0] // layout.chunk[0])):
                _chunk_path(layout, row, 0).parent.mkdir(parents=True, exist_ok=True)
            write_json(layout.folder / ".zarray", _array_metadata(layout, plan.facts))
            write_json(layout.folder / ".zattrs", {"_ARRAY_DIMENSIONS": list("tczyx")})  # as xarray names axes of v2

    def is_whole(self, layout: LevelLayout, row: int, column: int, wanted: Sequence[bool]) -> bool:
        places = layout.chunks_in(row, column)
        try:
            for place in (place for place, want in zip(places, wanted, strict=True) if place and want):
                zlib.decompress(_chunk_path(layout, *place).read_bytes())
        except (OSError, zlib.error):
            return False
        return True

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        return zlib.compress(np.moveaxis(pixels, -1, 0).tobytes(), _LEVEL)

    def write(self, layout: LevelLayout, row: int, column: int, chunks: Sequence[bytes | None]) -> int:
        for place, chunk in zip(layout.chunks_in(row, column), chunks, strict=True):
            if place is not None and chunk is not None:
                with new_file(_chunk_path(layout, *place), durable=False) as beside:
                    beside.write_bytes(chunk)
        return sum(len(chunk) for chunk in chunks if chunk is not None)

    def finish(self, plan: Plan, source: SlideFacts) -> None:
        record = {
            "format": FORMAT,
            "fingerprint": source.fingerprint,
            "origin": origin_of(source.path),
            "revision": source.revision and asdict(source.revision),
            "kept": plan.kept,
            _FRAME: _frame(source),
        }
        write_json(plan.facts.path / ".zgroup", {"zarr_format": 2})
        write_json(plan.facts.path / ".zattrs", {**_attributes(plan.facts, source.path.name), "saccade": record})

    def is_ours(self, folder: Path) -> bool:
        return bool(_read_record(folder)) and holds_only(folder, (".zgroup", ".zattrs", ".zarray"))


def _frame(facts: SlideFacts) -> list[int]:
    """x, y, width, height in level-0 pixels of what is exported."""
    box = scanned_box(facts)
    return [box.x, box.y, box.width, box.height]


def _chunk_path(layout: LevelLayout, row: int, column: int) -> Path:
    return local(layout.folder, "exports are written to disks") / "0" / "0" / "0" / str(row) / str(column)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / ".zattrs").read_bytes())["saccade"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _array_metadata(layout: LevelLayout, facts: SlideFacts) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": [1, 3, 1, *layout.size],
        "chunks": [1, 3, 1, *layout.chunk],
        "dtype": "|u1",
        "compressor": {"id": "zlib", "level": _LEVEL},
        "fill_value": fill_value(facts.background),
        "filters": None,
        "order": "C",
        "dimension_separator": "/",
    }


def _attributes(facts: SlideFacts, name: str) -> dict[str, Any]:
    """OME-NGFF 0.4 metadata: that of 0.5 with axes for time and depth, and the versions where 0.4 has them."""
    newer = ome_metadata(facts, name)
    (image,) = newer["multiscales"]
    channel, y, x = image["axes"]
    axes = [{"name": "t", "type": "time"}, channel, {**y, "name": "z"}, y, x]
    # of each transformation (scale, translation) the values of the added axes: nothing moves along them
    added = {"scale": 1.0, "translation": 0.0}
    datasets = []
    for dataset in image["datasets"]:
        steps = []
        for step in dataset["coordinateTransformations"]:
            kind = step["type"]
            c, *plane = step[kind]
            steps.append({"type": kind, kind: [added[kind], c, added[kind], *plane]})
        datasets.append({**dataset, "coordinateTransformations": steps})
    multiscale = {**image, "version": "0.4", "axes": axes, "datasets": datasets}
    omero = {**newer["omero"], "version": "0.4", "name": name, "rdefs": {"model": "color"}}
    return {"multiscales": [multiscale], "omero": omero}
