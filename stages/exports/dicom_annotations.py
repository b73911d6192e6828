"""Patches and regions of a slide as DICOM microscopy bulk simple annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.exports.dicom_identity import Identity, our_code, stamp, unit_code
from stages.exports.dicom_source import SourceLevel
from stages.overlay.geojson import REGION_MULTIPLE

if TYPE_CHECKING:
    from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number for each of some annotations.

    Attributes:
        name: of at most 64 characters.
        unit: "" where it has none.
        values: NaN where there is none.
    """

    name: str
    unit: str
    values: ArrayLike


def bulk_annotations(
    boxes_level0: NDArray[np.floating],
    measurements: Sequence[Measurement],
    regions: Sequence[Sequence[NDArray[np.floating]]],
    region_measurements: Sequence[Measurement],
    source: SourceLevel,
    identity: Identity,
    *,
    number: int,
) -> MicroscopyBulkSimpleAnnotations:
    """Groups of annotations: the patches, the regions, and the holes in these, if any.

    Coordinates are (column, row) in the total pixel matrix of level 0, 0, 0 being the outer corner of its first pixel:
    they are level-0 pixels. DICOM's polygons have no holes, so that these are a group of their own: what is inside one
    belongs to no region.

    Args:
        boxes_level0: (N, 4) x, y, width, height of the patches.
        measurements: of the patches, (N,) each.
        regions: closed rings (n, 2) of each: the outer one, then holes.
        region_measurements: one of each a region.
        source: level 0.
        identity: of the results.
        number: of the series.
    """
    from highdicom.ann import MicroscopyBulkSimpleAnnotations

    boxes = np.asarray(boxes_level0, np.float64).reshape(-1, 4)
    corners = [np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]) for x, y, w, h in boxes]
    outer = [rings[0][:-1] for rings in regions]
    holes = [ring[:-1] for rings in regions for ring in rings[1:]]
    said = f"Attention at least {REGION_MULTIPLE:g} times uniform"
    groups = [
        ("patch", "Patches that were read", corners, measurements),
        ("region", said, outer, region_measurements),
        ("hole", f"Holes in: {said}", holes, ()),
    ]
    found = [group for group in groups if group[2]]
    instance = MicroscopyBulkSimpleAnnotations(
        [source.header],
        "2D",
        [_group(at, *group, identity) for at, group in enumerate(found, 1)],
        series_instance_uid=identity.uid("annotations", "series"),
        series_number=number,
        sop_instance_uid=identity.uid("annotations"),
        instance_number=1,
        content_label="SACCADE",
        content_description="Patches that were read and regions of high attention",
        series_description="Patches that were read and regions of high attention",
        **identity.equipment,
    )
    stamp(instance, identity)
    return instance


def _group(
    number: int,
    kind: str,
    label: str,
    graphics: Sequence[NDArray[np.float64]],
    measurements: Sequence[Measurement],
    identity: Identity,
) -> AnnotationGroup:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.ann import AnnotationGroup
    from pydicom.sr.coding import Code

    family = Code("123109", "DCM", "Artificial Intelligence")
    return AnnotationGroup(
        number,
        identity.uid("annotations", kind),
        label,
        Code("309825002", "SCT", "Spatial and Relational Concept"),
        our_code(kind, label),
        "POLYGON",  # for rectangles, too: wsidicom opens no others
        list(graphics),
        "AUTOMATIC",
        AlgorithmIdentificationSequence("Saccade", family, identity.version),
        measurements=list(_measurements(measurements)),
    )


def _measurements(found: Sequence[Measurement]) -> Iterator[Measurements]:
    from highdicom.ann import Measurements

    for number, one in enumerate(found):
        values = np.asarray(one.values, np.float64)
        yield Measurements(our_code(f"measurement-{number}", one.name), values, unit_code(one.unit))
