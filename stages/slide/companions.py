"""The files that a slide is, and the fingerprint of what is in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from stages.disk import open_regular, reading
from stages.passing import patiently

_NAMES_A_FILE = re.compile(r"hamamatsu\.(ImageFile.*|MapFile|OptimisationFile)")
_SAMPLES = 16
"""Pieces of 64 KB that a fingerprint takes of a slide's files, and one of each end."""


def companions(path: Path, properties: Mapping[str, str]) -> list[Path]:
    """The other files that a slide's pixels are in, sorted by name."""
    beside: Iterable[Path] = ()
    match properties.get("openslide.vendor"):
        case "mirax":
            folder = path.with_suffix("")
            beside = folder.iterdir() if folder.is_dir() else ()
        case "hamamatsu":  # VMS and VMU name them, NDPI has none
            named = [value for key, value in properties.items() if _NAMES_A_FILE.fullmatch(key)]
            beside = (path.parent / name for name in named)
        case "dicom":
            from stages.slide.dicom_header import (
                series_files,
            )  # pydicom is as much as all of this room: for its files only

            beside = series_files(path)
    return sorted(file for file in beside if file.is_file() and file != path)


def fingerprint_of(path: Path, properties: Mapping[str, str]) -> str:
    """SHA-256 over sizes, OpenSlide's quick hash and samples of the content: cheap however large the files are.

    Files may have any name; whichever of a slide's files it is opened by, it is the same slide.
    """
    files = [path, *companions(path, properties)]
    sizes = [patiently(file.stat).st_size for file in files]
    quickhash = properties.get("openslide.quickhash-1", "")
    pieces = max(2, _SAMPLES // len(files))
    if len(files) == 1:
        digest = hashlib.sha256(repr(([("", sizes[0])], quickhash)).encode())
        for piece in _samples(path, sizes[0], pieces):
            digest.update(piece)
        return digest.hexdigest()
    contents = []
    for file, size in zip(files, sizes, strict=True):
        own = hashlib.sha256()
        for piece in _samples(file, size, pieces):
            own.update(piece)
        contents.append((size, own.hexdigest()))
    return hashlib.sha256(repr((sorted(contents), quickhash)).encode()).hexdigest()


def _samples(path: Path, size: int, pieces: int) -> Iterator[bytes]:
    with reading(path), open_regular(path) as file:
        for offset in sorted({*(int(size * k / pieces) for k in range(pieces)), max(0, size - 65536)}):
            file.seek(offset)
            yield file.read(65536)
