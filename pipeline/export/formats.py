"""The formats that a run is exported in: what each holds, what opens it, which files it makes of a slide."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cohort.files import folder_name
from pipeline.errors import UsageError
from pipeline.export.maps import dicom, heat_map, label_image, spatial
from pipeline.export.slide_result import SlideResult

if TYPE_CHECKING:
    from stages.exports.bags import Patches

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        holds: what it holds of a slide, a sentence.
        opened_by: what opens it, and how.
        files: of a slide, in the format's folder, with `names` of it in braces; one that ends in "/" is a folder.
        write: fills the files of a slide at the places that it is given, in the order of ``files``: they lie beside
            what they will be, under other names.
        labelled: how many of ``files``, the last ones, only a slide has whose label is a number, see
            `SlideResult.label_number`: ``write`` is given fewer places of others.
        table: name of a CSV of all slides in the format's folder; None: there is none.
        row: of that table, with the ``slide_id``; None: the slide is none for it.
        needs: modules that it cannot do without.
        extra: of Saccade, that brings them; None: they come with Saccade.
    """

    holds: str
    opened_by: str
    files: tuple[str, ...]
    write: Callable[[SlideResult, Sequence[Path]], None]
    labelled: int = 0
    table: str | None = None
    row: Callable[[SlideResult], Row | None] = lambda found: None
    needs: tuple[str, ...] = ()
    extra: str | None = None


def names(found: SlideResult) -> dict[str, str]:
    """What files are called by: the slide, and as TRIDENT does the patches and their encoder."""
    said = found.patch_attributes
    magnification = float(np.ravel(said["target_magnification"])[0])
    return {
        "slide": found.slide_id,
        "patches": f"{magnification:.4g}x_{int(said['patch_size'])}px_{int(said.get('overlap', 0))}px_overlap",
        "encoder": folder_name(found.encoder or "unknown"),
    }


def _qupath(found: SlideResult, places: Sequence[Path]) -> None:
    from stages.exports.qupath import write_qupath

    [place], samples, told = places, found.samples, found.told_classes
    write_qupath(
        place,
        found.attention,
        found.raster,
        samples.boxes,
        attention_at=samples.attention,
        weights=samples.weights,
        patch_cells=found.patch_cells,
        origin=found.origin,
        evidence={} if found.evidence is None else {found.classes[c]: found.evidence[c] for c in told},
        contributions={found.classes[c]: (samples.contributions[:, c], samples.half_widths[:, c]) for c in told},
        cells=found.cells,
        unit=found.unit,
    )


def _patches(found: SlideResult) -> Patches:
    from stages.exports.bags import Patches

    return Patches(
        slide_id=found.slide_id,
        coords=np.rint(found.samples.boxes[:, :2]).astype(np.int64),
        features=found.features,
        attention=found.samples.attention,
        weight=found.samples.weights,
        said=found.patch_attributes,
        encoder=found.encoder,
    )


def _clam(found: SlideResult, places: Sequence[Path]) -> None:
    from stages.exports.bags import write_clam

    write_clam(places[0], places[1], _patches(found))


def _clam_row(found: SlideResult) -> Row | None:
    label = found.slide.label
    if label is None:  # which CLAM takes for a class that nobody named
        return None
    return {"case_id": found.slide.patient or found.slide_id, "slide_id": found.slide_id, "label": label}


def _trident(found: SlideResult, places: Sequence[Path]) -> None:
    from stages.exports.bags import write_trident

    write_trident(places[0], places[1], _patches(found), folder=f"features_{names(found)['encoder']}")


def _trident_row(found: SlideResult) -> Row:
    file = Path(str(found.commit.get("path") or found.slide_id)).name
    numbered = {"label": found.slide.label, "label_number": found.label_number}
    return {"slide_id": found.slide_id, "wsi": file, "mpp": math.sqrt(found.mpp.x * found.mpp.y), **numbered}


def _torchmil(found: SlideResult, places: Sequence[Path]) -> None:
    from stages.exports.bags import write_torchmil, write_torchmil_label

    write_torchmil(places[0], places[1], _patches(found))
    if found.label_number is not None:
        write_torchmil_label(places[2], found.label_number)


FORMATS = {
    "qupath": Format(
        "Every cell with its attention and evidence, outlines of regions of high attention, the patches read.",
        "QuPath: drag it onto the open slide.",
        ("{slide}.geojson",),
        _qupath,
    ),
    "clam": Format(
        "The patches that were read and their features; slides.csv has the labels.",
        "CLAM: its dataset's data_dir is the folder, csv_path its slides.csv.",
        ("h5_files/{slide}.h5", "pt_files/{slide}.pt"),
        _clam,
        table="slides.csv",
        row=_clam_row,
        needs=("torch",),
    ),
    "trident": Format(
        "The patches that were read, as coordinates, and their features; slides.csv lists slides.",
        "TRIDENT: --job_dir is the folder, --coords_dir the one in it; torchmil: TridentWSIDataset.",
        ("{patches}/patches/{slide}_patches.h5", "{patches}/features_{encoder}/{slide}.h5"),
        _trident,
        table="slides.csv",
        row=_trident_row,
    ),
    "torchmil": Format(
        "The patches that were read, their features, and labels as numbers.",
        'torchmil: ProcessedMILDataset of its folders, with file_ext=".h5".',
        ("features/{slide}.h5", "coords/{slide}.h5", "labels/{slide}.h5"),
        _torchmil,
        labelled=1,
    ),
    "ome-tiff": Format(
        "Attention and evidence as a pyramidal OME-TIFF of floats, and attention's colours as a pyramidal RGB TIFF.",
        "QuPath, Fiji, napari, tifffile, libvips; the colours in OpenSlide, too.",
        ("{slide}.ome.tif", "{slide}.colours.tif"),
        heat_map,
    ),
    "ome-zarr": Format(
        "Attention and evidence as an OME-Zarr image, regions of high attention and the patches read as its labels.",
        "napari, ngio, ngff-zarr, ome-zarr and whatever else reads OME-Zarr 0.5.",
        ("{slide}.ome.zarr/",),
        label_image,
    ),
    "spatialdata": Format(
        "Thumbnail, maps, cells, regions and patches in pixels and in µm, with tables of what is known of each.",
        "spatialdata.read_zarr, and with it squidpy, napari-spatialdata and the rest of scverse.",
        ("{slide}.zarr/",),
        spatial,
        needs=("spatialdata",),
        extra="spatialdata",
    ),
    "dicom": Format(
        "Attention and evidence as parametric maps, the patches read and regions of high attention as annotations.",
        "DICOM viewers and archives, beside a DICOM slide; highdicom, wsidicom.",
        ("{slide}/",),
        dicom,
        needs=("highdicom",),
        extra="dicom",
    ),
}
"""By the name that users type."""


def chosen_formats(names: Sequence[str]) -> dict[str, Format]:
    """Formats by names, each once, in the order that they are given in.

    Raises:
        UsageError: there is none of a name, or none was given.
    """
    if not names:
        raise UsageError(f"no format was given: give one or more of {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"there is no format {name!r}: give one or more of {', '.join(FORMATS)}")
    return {name: FORMATS[name] for name in names}
