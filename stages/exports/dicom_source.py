"""The slide that DICOM results belong to: headers of its levels, the slide's own where it is DICOM, else made up.

What results take from the slide is its patient, study, specimen and frame of reference. Files that were de-identified
lack some of it, and other formats have none. What is missing is filled by these rules, and by nothing else:

- names, dates, numbers and sex that a file lacks, or that DICOM does not allow: empty;
- UIDs: made of the slide's fingerprint (of its series' UID in DICOM), so that the same slide always has the same;
- the container and the specimen: by the slide's name;
- the origin on the glass: 0, 0; the orientation: rows towards -x, columns towards -y, as most scanners have it;
- the size of a pixel: by the size of the imaged volume, else by the µm/px that the run was given; thickness: 1 µm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage
from pydicom.valuerep import DA, TM

from stages.exports.dicom_identity import made_uid, plain
from stages.geometry import Mpp, Raster
from stages.slide.dicom_header import series_files
from stages.slide.facts import SlideError, SlideFacts

TILE = 256
"""Pixels along a side of a frame."""
ORIENTATION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
THICKNESS_MM = 0.001
_EMPTY = ("PatientName", "PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName")
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_SEXES = ("M", "F", "O", "")


@dataclass(frozen=True, slots=True)
class SourceLevel:
    """A level of the slide.

    Attributes:
        header: what DICOM says of it, or would say; whole enough to make results of.
        raster: of its pixels.
    """

    header: Dataset
    raster: Raster


def source_levels(facts: SlideFacts, *, name: str, mpp: Mpp) -> list[SourceLevel]:
    """The slide's levels that have headers, finest first; always the first.

    Args:
        facts: what the slide is.
        name: of the slide.
        mpp: µm per level-0 pixel.

    Raises:
        SlideError: it is a DICOM slide whose files are not to be found.
    """
    if facts.vendor == "dicom":
        levels = list(_own_levels(facts, name, mpp))
        if not levels or levels[0].raster != facts.levels[0]:
            raise SlideError(
                "the DICOM file of its finest level is not beside it, so that nothing tells which study results belong "
                "to: name the slide's DICOM files themselves, in one folder, and run them again"
            )
        return levels
    return [SourceLevel(_made_up(facts, i, name, mpp), raster) for i, raster in enumerate(facts.levels)]


def _own_levels(facts: SlideFacts, name: str, mpp: Mpp) -> Iterator[SourceLevel]:
    found: dict[tuple[int, int], Dataset] = {}
    for file in series_files(facts.path) if isinstance(facts.path, Path) and facts.path.is_file() else []:
        header = dcmread(file, stop_before_pixels=True)
        kinds = header.get("ImageType") or []
        if header.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage and "VOLUME" in kinds:
            found.setdefault((header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows), header)
    for raster in facts.levels:
        own = found.get((raster.width, raster.height))
        if own is not None:
            _fill(own, raster, name, mpp)
            yield SourceLevel(own, raster)


def _fill(header: Dataset, raster: Raster, name: str, mpp: Mpp) -> None:
    """Give a header what results are made of and it lacks, by the module's rules."""
    series = str(header.SeriesInstanceUID)
    for keyword in _EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    for keyword, kind in _DATES.items():
        try:
            kind(header.get(keyword, ""))
            header.setdefault(keyword, "")
        except ValueError:
            setattr(header, keyword, "")
    if header.get("PatientSex", None) not in _SEXES:
        header.PatientSex = ""
    for keyword, part in (("StudyInstanceUID", "study"), ("FrameOfReferenceUID", "frame")):
        if not header.get(keyword):
            setattr(header, keyword, made_uid(series, part))
    _fill_specimen(header, series, name)
    if not header.get("TotalPixelMatrixOriginSequence"):
        header.TotalPixelMatrixOriginSequence = [_origin()]
    if not header.get("ImageOrientationSlide"):
        header.ImageOrientationSlide = list(ORIENTATION)
    header.setdefault("DimensionOrganizationType", "TILED_FULL")
    shared = header.setdefault("SharedFunctionalGroupsSequence", [Dataset()]).value[0]
    measures = shared.setdefault("PixelMeasuresSequence", [Dataset()]).value[0]
    if not measures.get("PixelSpacing"):
        volume = header.get("ImagedVolumeHeight"), header.get("ImagedVolumeWidth")
        own = mpp.y * raster.scale_y / 1000, mpp.x * raster.scale_x / 1000
        measures.PixelSpacing = [
            side / pixels if side else other for side, pixels, other in zip(volume, raster.shape, own, strict=True)
        ]
    measures.setdefault("SliceThickness", THICKNESS_MM)


def _fill_specimen(header: Dataset, series: str, name: str) -> None:
    if not header.get("SpecimenDescriptionSequence"):
        header.SpecimenDescriptionSequence = [Dataset()]
    for number, specimen in enumerate(header.SpecimenDescriptionSequence):
        if not specimen.get("SpecimenIdentifier"):
            specimen.SpecimenIdentifier = plain(name)
        if not specimen.get("SpecimenUID"):
            specimen.SpecimenUID = made_uid(series, "specimen", str(number))
        for keyword in ("IssuerOfTheSpecimenIdentifierSequence", "SpecimenPreparationSequence"):
            specimen.setdefault(keyword, [])
    if not header.get("ContainerIdentifier"):
        header.ContainerIdentifier = plain(name)
    for keyword in ("IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence"):
        header.setdefault(keyword, [])


def _origin() -> Dataset:
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    return origin


def _made_up(facts: SlideFacts, level: int, name: str, mpp: Mpp) -> Dataset:
    """What a level of a slide of another format would say of itself as DICOM: all that results refer to."""
    raster, made = facts.levels[level], facts.fingerprint
    header = Dataset()
    header.file_meta = _file_meta()
    header.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    header.SOPInstanceUID = made_uid(made, "level", str(level))
    header.SeriesInstanceUID = made_uid(made, "series")
    header.StudyInstanceUID = made_uid(made, "study")
    header.Modality, header.ImageType = "SM", ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"]
    header.Rows = header.Columns = TILE
    header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = raster.width, raster.height
    header.NumberOfFrames = -(-raster.width // TILE) * -(-raster.height // TILE)
    header.NumberOfOpticalPaths = header.TotalPixelMatrixFocalPlanes = 1
    _fill(header, raster, name, mpp)
    return header


def _file_meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta
