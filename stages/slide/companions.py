"""The files that a slide is, the fingerprint of what is in them, and their state."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stages.disk import open_regular, reading
from stages.passing import patiently
from stages.slide.revision import Revision, revision_of

_NAMES_A_FILE = re.compile(r"hamamatsu\.(ImageFile.*|MapFile|OptimisationFile)")
_SAMPLES, _SAMPLE = 16, 2**16
"""Pieces that a fingerprint takes of a slide's files, and one of each end; bytes of a piece."""


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


def fingerprint_of(path: Path, properties: Mapping[str, str], others: Sequence[Path] | None = None) -> str:
    """SHA-256 over sizes, OpenSlide's quick hash and samples of the content: cheap however large the files are.

    Files may have any name; whichever of a slide's files it is opened by, it is the same slide. Of a file beyond a
    megabyte (of several files less, `_whole_below`) it misses what changes between samples; see `state_of`.

    Args:
        path: the slide's file.
        properties: as OpenSlide has them.
        others: its `companions`, where they are known already.
    """
    files = [path, *(companions(path, properties) if others is None else others)]
    sizes = [patiently(file.stat).st_size for file in files]
    quickhash = properties.get("openslide.quickhash-1", "")
    pieces = _pieces(len(files))
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


def state_of(path: Path, properties: Mapping[str, str], others: Sequence[Path]) -> Revision:
    """The state of a slide's files, which are its own and its `companions`."""
    vendor = properties.get("openslide.vendor")
    # a fingerprint does not tell which of several files has which name: of DICOM alone that says nothing
    seen = (vendor == "dicom" or not others) and all(
        patiently(file.stat).st_size <= _whole_below(1 + len(others)) for file in (path, *others)
    )
    # a file that is added to these folders may be of the slide as well
    members = [path.with_suffix("")] if vendor == "mirax" and others else others
    return revision_of(path, members, listed=vendor == "dicom", seen=seen)


def _pieces(files: int) -> int:
    """Samples of each file of a slide of so many, beside that of its end."""
    return max(2, _SAMPLES // files)


def _whole_below(files: int) -> int:
    """Bytes up to which a file of a slide of so many is looked at whole."""
    return _pieces(files) * _SAMPLE


def _samples(path: Path, size: int, pieces: int) -> Iterator[bytes]:
    with reading(path), open_regular(path) as file:
        for offset in sorted({*(int(size * k / pieces) for k in range(pieces)), max(0, size - _SAMPLE)}):
            file.seek(offset)
            yield file.read(_SAMPLE)
