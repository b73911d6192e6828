"""What is read of a DICOM file before its pixels, within bounds; and which files are of one series."""

from __future__ import annotations

import os
import threading
import warnings
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from stages.disk import Version, open_regular, reading, version_of
from stages.passing import UnreadableError, patiently

KEPT = 2**16
"""Files whose series a process remembers, some 200 bytes each."""
_PREAMBLE = 128
_BEGINS = bytes(_PREAMBLE) + b"DICM"

MAX_HEADER = 2**24
"""Bytes that are read of a file before its pixels: colour profiles take some millions."""
MAX_READS = 2**17
"""... and in how many pieces, some two an element: to parse so many takes up to a second and 30 MB."""

quiet = threading.Lock()
"""HeldError while warnings are off, which is a matter of the whole process."""


class Bounded:
    """A file that is read up to so many bytes in so many pieces: what it claims costs no more than that.

    pydicom allocates whatever length is stated, inflates what is deflated, and keeps an object for each element.
    """

    def __init__(self, file: BinaryIO, *, size: int, reads: int) -> None:
        self._file, self._size, self._reads = file, size, reads
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1, /) -> bytes:
        self._size, self._reads = self._size - size, self._reads - 1
        if size < 0 or self._size < 0 or self._reads < 0:
            raise ValueError("more than a slide has")
        return self._file.read(size)


def series_files(path: Path) -> list[Path]:
    """The files in a DICOM file's folder that are of its series: a slide is all of them. None where it has no series.

    Each file's header is read once in a process, and again once the file is another.
    """
    series = series_of(path)
    if not series:
        return []
    listed = patiently(lambda: _versions(path.parent))
    return [Path(file) for file, version in listed if _series_beside(file, version) == series]


def series_of(path: Path) -> str:
    """The identifier of a DICOM file's series; none of what is no DICOM, or damaged before it says.

    Raises:
        UnreadableError: the file cannot be read.
    """
    with reading(path):
        return _read_series(str(path), version_of(patiently(path.stat)))


def _versions(folder: Path) -> list[tuple[str, Version]]:
    """The files in a folder, by name."""
    with os.scandir(folder) as listing:
        return sorted((entry.path, version_of(entry.stat())) for entry in listing if entry.is_file())


def _series_beside(file: str, version: Version) -> str:
    """The series of a file that may lie beside a slide and be none of its own."""
    try:
        return _read_series(file, version)
    except UnreadableError as exc:
        if exc.passing:  # else a slide would lose a level, or its fingerprint change
            raise
        return ""


@lru_cache(maxsize=KEPT)
def _read_series(name: str, version: Version) -> str:
    path = Path(name)
    try:
        with reading(path), open_regular(path) as file:
            if file.read(len(_BEGINS))[_PREAMBLE:] != _BEGINS[_PREAMBLE:]:
                return ""
            file.seek(0)
            with quiet, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                bounded = cast(BinaryIO, Bounded(file, size=MAX_HEADER, reads=MAX_READS))
                found = read_partial(bounded, _after_series, specific_tags=[Tag("SeriesInstanceUID")])
                return str(found.SeriesInstanceUID)
    except UnreadableError:
        raise
    except Exception:  # pydicom's own types, and whatever damage makes of values: it is not of any series
        return ""


def _after_series(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > 0x0020_000E
