"""What is read of a DICOM file before its pixels, within bounds; and which files are of one series."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from stages.disk import open_regular, reading, refusal
from stages.passing import UnreadableError, is_passing

SERIES_WITHIN = 2**18
"""Bytes in which a file names its series: it stands before all that is long."""

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

    Other files are parsed only where the series' identifier stands in their first bytes, so that an archive in one
    folder costs little more than listing it.
    """
    series = _series_of(path)
    if not series:
        return []
    wanted = series.encode()
    found = []
    for file in sorted(entry for entry in path.parent.iterdir() if entry.is_file()):
        try:
            with open_regular(file) as opened:
                near = wanted in opened.read(SERIES_WITHIN)
        except OSError as exc:
            if is_passing(exc):  # else a slide would lose a level, or its fingerprint change
                raise UnreadableError(refusal(exc, file, writing=False), passing=True) from exc
            continue
        if near and (file == path or _series_of(file) == series):
            found.append(file)
    return found


def _series_of(path: Path) -> str:
    try:
        with reading(path), open_regular(path) as file, quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bounded = cast(BinaryIO, Bounded(file, size=MAX_HEADER, reads=MAX_READS))
            return str(read_partial(bounded, _after_series, specific_tags=[Tag("SeriesInstanceUID")]).SeriesInstanceUID)
    except UnreadableError:
        raise
    except Exception:  # as in `_read_header`
        return ""


def _after_series(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > 0x0020_000E
