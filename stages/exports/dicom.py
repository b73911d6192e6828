"""What a run found of a slide as DICOM: parametric maps, and patches and regions as bulk annotations."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.exports.dicom_annotations import Measurement, bulk_annotations
from stages.exports.dicom_identity import Identity
from stages.exports.dicom_map import SlideMap, parametric_map
from stages.exports.dicom_source import source_levels
from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import times_uniform
from stages.overlay.geojson import REGION_MULTIPLE
from stages.overlay.outlines import regions
from stages.slide.dicom_header import quiet
from stages.slide.facts import SlideFacts

if TYPE_CHECKING:
    from pydicom import Dataset

FIRST_SERIES = 1001
"""Number of the first series of ours in the study."""


def write_dicom(
    folder: Path,
    facts: SlideFacts,
    attention: NDArray[np.floating],
    raster: Raster,
    boxes_level0: NDArray[np.floating],
    *,
    name: str,
    mpp: Mpp,
    cells: int,
    maps: Sequence[SlideMap],
    measurements: Sequence[Measurement],
    identity: Identity,
) -> None:
    """Fill a folder: ``attention-<level>.dcm`` in multiples of uniform attention and ``<map>-<level>.dcm`` of other
    maps, each a pyramid in a series of its own, and ``annotations.dcm`` where there are patches or regions. All are of
    the slide's study and frame of reference.

    Args:
        folder: an empty one.
        facts: what the slide is.
        attention: (rows, cols), 0 off the tissue.
        raster: of the cells.
        boxes_level0: (N, 4) x, y, width, height of the patches that were read.
        name: of the slide.
        mpp: µm per level-0 pixel, for slides that are not DICOM.
        cells: see `times_uniform`.
        maps: others.
        measurements: of the patches.
        identity: of the results.

    Raises:
        SlideError: it is a DICOM slide whose files are not to be found.
    """
    multiple = times_uniform(attention, cells)
    first = SlideMap("attention", f"Attention, times uniform: 1/{cells} a cell", "", multiple)
    found = list(regions(multiple >= REGION_MULTIPLE))
    share = [float(attention[one.cells].sum()) for one in found]
    highest = [float(multiple[one.cells].max()) for one in found]
    of_regions = [
        Measurement("attention", "", share),
        Measurement("highest attention, times uniform", "", highest),
    ]
    rings = [[raster.to_level0(ring) for ring in one.rings] for one in found]
    with quiet, warnings.catch_warnings():  # pydicom and highdicom warn of what de-identified slides hold and lack
        warnings.simplefilter("ignore")
        levels = source_levels(facts, name=name, mpp=mpp)
        for number, one in enumerate((first, *maps), FIRST_SERIES):
            for at, instance in enumerate(parametric_map(one, raster, levels, identity, number=number)):
                _save(instance, folder / f"{one.name}-{at}.dcm")
        if len(boxes_level0) or rings:  # a file without any would be none of DICOM's
            number = FIRST_SERIES + 1 + len(maps)
            annotations = bulk_annotations(
                boxes_level0, measurements, rings, of_regions, levels[0], identity, number=number
            )
            _save(annotations, folder / "annotations.dcm")


def _save(instance: Dataset, path: Path) -> None:
    data = io.BytesIO()
    instance.save_as(data, enforce_file_format=True)
    path.write_bytes(data.getbuffer())  # what the disk says would reach us from pydicom without its number
