"""DICOM whole-slide images that the tests make for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import simplejpeg
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, encapsulate_extended

SERIES = "1.2.826.0.1.3680043.8.498.1"


def write_dicom(
    folder: Path, image: NDArray[np.uint8], *, tile: int = 256, levels: int = 2, table: str = "basic"
) -> Path:
    """Write ``image`` as a DICOM whole-slide image, a file a level, and return the finest level's.

    Args:
        table: of offsets: `basic`, `extended` or `none`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for level in range(levels):
        shrink = 2**level
        spacing = 0.0005 * shrink
        h, w = image.shape[0] // shrink, image.shape[1] // shrink
        part = image[: h * shrink, : w * shrink].reshape(h, shrink, w, shrink, 3).mean((1, 3)).round().astype(np.uint8)
        whole = np.pad(part, ((0, -h % tile), (0, -w % tile), (0, 0)), mode="edge")
        frames = []
        for y, x in np.ndindex(whole.shape[0] // tile, whole.shape[1] // tile):
            frame = whole[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
            frames.append(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=90, colorsubsampling="420"))
        slide = pydicom.Dataset()
        slide.file_meta = pydicom.FileMetaDataset()
        slide.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        slide.SOPClassUID = pydicom.uid.VLWholeSlideMicroscopyImageStorage
        slide.SOPInstanceUID = f"{SERIES}.{level}"
        slide.Modality = "SM"
        slide.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"]
        slide.StudyInstanceUID = slide.SeriesInstanceUID = slide.FrameOfReferenceUID = SERIES
        slide.DimensionOrganizationType = "TILED_FULL"
        slide.TotalPixelMatrixColumns, slide.TotalPixelMatrixRows = w, h
        slide.ImagedVolumeWidth, slide.ImagedVolumeHeight, slide.ImagedVolumeDepth = w * spacing, h * spacing, 1.0
        slide.Columns = slide.Rows = tile
        slide.NumberOfFrames = len(frames)
        slide.NumberOfOpticalPaths = slide.TotalPixelMatrixFocalPlanes = 1
        slide.SamplesPerPixel, slide.PhotometricInterpretation, slide.PlanarConfiguration = 3, "YBR_FULL_422", 0
        slide.BitsAllocated = slide.BitsStored = 8
        slide.HighBit, slide.PixelRepresentation = 7, 0
        measures, shared = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing = [spacing] * 2
        shared.PixelMeasuresSequence = [measures]
        slide.SharedFunctionalGroupsSequence = [shared]
        if table == "extended":
            pixels, slide.ExtendedOffsetTable, slide.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        else:
            pixels = encapsulate(frames, has_bot=table == "basic")
        slide.add(pydicom.DataElement("PixelData", "OB", pixels, is_undefined_length=True))
        slide.save_as(folder / f"{level}.dcm", enforce_file_format=True)
    return folder / "0.dcm"
