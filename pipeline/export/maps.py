"""Formats that hold a slide's maps: what a run found of it, as each of their writers takes it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.export.slide_result import SlideResult
from pipeline.output.slide_folder import COMMIT, THUMBNAIL
from pipeline.version import saccade_version
from pipeline.view.run_folder import inner
from pipeline.view.thumbnail import thumbnail_place
from stages.geometry import Raster

_HALF_WIDTH = "half-width of "


def dicom(found: SlideResult, places: Sequence[Path]) -> None:
    """See `stages.exports.dicom.write_dicom`."""
    from stages.exports.dicom import write_dicom
    from stages.exports.dicom_annotations import Measurement
    from stages.exports.dicom_identity import Identity
    from stages.exports.dicom_map import SlideMap

    [folder], (_, *evidence) = places, _maps(found).values()
    maps = [
        SlideMap(f"evidence-{c}", f"Evidence for {found.classes[c]}", found.unit, values)
        for c, values in zip(found.told_classes, evidence, strict=bool(evidence))
    ]
    commit = found.commit
    write_dicom(
        folder,
        found.open().facts,
        found.attention,
        found.raster,
        found.samples.boxes,
        name=found.slide_id,
        mpp=found.mpp,
        cells=found.cells,
        maps=maps,
        measurements=[Measurement(*one) for one in _measurements(found)],
        identity=Identity(
            (str(commit.get("fingerprint")), str(commit["key"])),
            saccade_version(),
            _written(found),
        ),
    )


def _maps(found: SlideResult) -> dict[str, NDArray[np.floating]]:
    """The maps of a slide by what they show, attention first.

    Raises:
        ValueError: there is no number in some cell.
    """
    from stages.overlay.attention_map import times_uniform

    maps: dict[str, NDArray[np.floating]] = {"attention, times uniform": times_uniform(found.attention, found.cells)}
    if found.evidence is not None:
        maps |= {f"evidence for {found.classes[c]}, {found.unit}": found.evidence[c] for c in found.told_classes}
    for name, values in maps.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} is not a number somewhere: the model's output is not to be exported")
    return maps


def _measurements(found: SlideResult) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    """What is known of each patch: its name, its unit, "" where it has none, and the values."""
    samples, unit = found.samples, found.unit
    yield "attention", "", samples.attention
    yield "weight", "", samples.weights
    for c in found.told_classes:
        name = f"contribution to {found.classes[c]}"
        yield name, unit, samples.contributions[:, c]
        yield f"{_HALF_WIDTH}{name}", unit, samples.half_widths[:, c]


def _by_name(found: SlideResult) -> dict[str, NDArray[np.float64]]:
    """The same for formats that hold no units: the name says it, but for half-widths, which are of what is named before
    them."""
    return {
        f"{name}, {unit}" if unit and not name.startswith(_HALF_WIDTH) else name: values
        for name, unit, values in _measurements(found)
    }


def heat_map(found: SlideResult, places: Sequence[Path]) -> None:
    """See `stages.exports.heat_map`."""
    from stages.exports.heat_map import write_colours, write_ome_tiff

    maps, (floats, colours) = _maps(found), places
    write_ome_tiff(floats, maps, found.raster, size=found.size, mpp=found.mpp, name=found.slide_id)
    write_colours(colours, next(iter(maps.values())), found.raster, size=found.size, mpp=found.mpp)


def label_image(found: SlideResult, places: Sequence[Path]) -> None:
    """See `stages.exports.label_image.write_label_image`."""
    from stages.exports.label_image import write_label_image

    maps, [folder] = _maps(found), places
    write_label_image(
        folder,
        maps,
        found.raster,
        mpp=found.mpp,
        name=found.slide_id,
        multiple=next(iter(maps.values())),
        patch_cells=found.patch_cells,
        measurements=_by_name(found),
    )


def spatial(found: SlideResult, places: Sequence[Path]) -> None:
    """See `stages.exports.spatial.write_spatialdata`."""
    from stages.exports.spatial import write_spatialdata

    maps, [folder], row = _maps(found), places, found.slide.row
    write_spatialdata(
        folder,
        maps,
        found.raster,
        found.samples.boxes,
        mpp=found.mpp,
        multiple=next(iter(maps.values())),
        told=found.told,
        patch_cells=found.patch_cells,
        measurements=_by_name(found),
        features=found.features,
        thumbnail=_thumbnail(found),
        facts={
            "slide": found.slide_id,
            "mpp": [found.mpp.x, found.mpp.y],
            "size": list(found.size),
            "prediction": {name: str(value) for name, value in row.items()},
            "saccade": saccade_version(),
        },
    )


def _thumbnail(found: SlideResult) -> tuple[NDArray[np.uint8], Raster] | None:
    """The thumbnail that the run kept of a slide, and its place."""
    from PIL import Image

    folder = found.slide.folder
    assert folder is not None
    place = thumbnail_place(folder, inner(found.commit, "pictures"))
    if place is None:
        return None
    with Image.open(folder / THUMBNAIL, formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB")), place


def _written(found: SlideResult) -> datetime.datetime:
    """When a slide was predicted; earlier versions did not say, so that the time of the file does."""
    if "written" in found.commit:
        return datetime.datetime.fromisoformat(str(found.commit["written"]))
    assert found.slide.folder is not None
    return datetime.datetime.fromtimestamp((found.slide.folder / COMMIT).stat().st_mtime, datetime.UTC)
