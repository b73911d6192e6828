"""What a file is by its first bytes, and why it is no slide: the reason that is true, and what to do."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from stages.disk import SpecialFileError, open_regular, reading, refusal
from stages.passing import TOO_MANY_FILES, UnreadableError
from stages.slide.facts import SlideError
from stages.slide.tiff import MAX_PAGES, describe_cut, open_tiff_file, quiet

_PICTURE = "a {} picture: convert it to a tiled TIFF that says its resolution"
_WEB_PAGE = "a web page, as a download that failed leaves: download it again"
_BEGINS = {
    b"\x89PNG\r\n": _PICTURE.format("PNG"),
    b"\xff\xd8\xff": _PICTURE.format("JPEG"),
    b"GIF8": _PICTURE.format("GIF"),
    b"BM": _PICTURE.format("BMP"),
    b"\0\0\0\x0cjP": _PICTURE.format("JPEG 2000"),
    b"%PDF": "a PDF document: name the scanner's own file",
    b"PK\x03\x04": "a ZIP archive, as workbooks and documents are too: unpack it and name the slide inside",
    b"\x1f\x8b": "a gzip archive: unpack it and name the slide inside",
    b"7z\xbc\xaf": "a 7z archive: unpack it and name the slide inside",
    b"Rar!": "a RAR archive: unpack it and name the slide inside",
    b"\x89HDF": "an HDF5 file: name the scanner's own file",
    b"\xd0\xcf\x11\xe0": "an OLE document, as old office files and some microscopes' are: export it as OME-TIFF",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    b"<!DOCTYPE html": _WEB_PAGE,
    b"<html": _WEB_PAGE,
}
"""How files begin that are taken for slides, and what they are instead."""
_NO_SLIDE = "not a whole-slide image, but "
_FOLDER = _NO_SLIDE + "a folder: name the file inside it"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF or BigTIFF, in either byte order."""
    return first_bytes(path).startswith(_TIFF)


def first_bytes(path: Path) -> bytes:
    """Of a file, as many as tell what it is.

    Raises:
        SlideError: there is no such file, it is a folder, or it cannot be read.
    """
    try:
        with reading(path), open_regular(path) as file:
            return file.read(1024)
    except FileNotFoundError as exc:
        raise SlideError("no such file: check the path, or the cohort table's folder") from exc
    except (IsADirectoryError, NotADirectoryError) as exc:
        raise SlideError(_FOLDER) from exc
    except UnreadableError as exc:
        if os.path.isdir(path):  # what Windows forbids to open
            raise SlideError(_FOLDER) from exc
        raise SlideError(str(exc)) from exc
    except SpecialFileError as exc:
        raise SlideError(f"{exc.strerror}: give a file") from exc
    except OSError as exc:
        raise SlideError(f"cannot be read: {refusal(exc, path, writing=False)}") from exc


def says(said: str, *codes: int) -> bool:
    """Whether a library passes on one of these answers of the system."""
    return any(os.strerror(code) in said for code in codes)


def why_no_slide(path: Path) -> str:
    """What a file is that no reader knows, and what to do."""
    data, is_mrxs = first_bytes(path), path.suffix.lower() == ".mrxs"
    if is_mrxs and not path.with_suffix("").is_dir():
        return f"the folder {path.stem!r} beside it, which holds its pixels, is missing: copy that too"
    what = None if is_mrxs else _what(path, data)  # an MRXS is a JPEG picture, and a slide all the same
    if what is None:
        return "not a whole-slide image in any format that is read: convert it to OME-TIFF, or copy it again"
    return f"{_NO_SLIDE}{what}"


def why_unopened(path: Path, said: str) -> str:
    """Why a slide of a known format cannot be opened, where OpenSlide says so much, and what to do."""
    if said.startswith("Unsupported"):
        return f"{said}; export it from the scanner's program as OME-TIFF, or copy it again"
    if says(said, *TOO_MANY_FILES):
        return f"{said}: raise the limit (ulimit -n)"
    return describe_cut(path) or f"{said}; the file is damaged: copy it again"


def _what(path: Path, data: bytes) -> str | None:
    for begin, what in _BEGINS.items():
        if data.lower().startswith(begin.lower()):
            return what
    if not data:
        return "an empty file: copy it again"
    if not data.strip(b"\0"):
        return "a file of zeros, as a copy that broke off leaves: copy it again"
    if data[128:132] == b"DICM":
        return "DICOM that is no VL Whole Slide Microscopy, or is damaged: export it as OME-TIFF, or copy it again"
    if is_tiff(path):
        return _damage(path)
    return "a text file, whatever its name: name the slide itself, or take this one out" if _is_text(data) else None


def _damage(path: Path) -> str:
    """What is wrong with a TIFF that is stored as any other."""
    size = path.stat().st_size
    try:
        with quiet(), open_tiff_file(path) as tiff:
            pages = [page.aspage() for page in islice(tiff.pages, MAX_PAGES)]
            ends = [o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    except UnreadableError:
        raise
    except Exception:  # tifffile's own types, and whatever damage makes of values
        ends = []
    if max(ends, default=0) > size:
        return f"a TIFF that is cut off: it ends after {size} bytes, its tiles after {max(ends)}: copy it again"
    return "a TIFF whose list of pages is damaged: copy or write it again"


def _is_text(data: bytes) -> bool:
    try:
        text = data[:500].decode()
    except UnicodeDecodeError as exc:
        if exc.start < len(data[:500]) - 4:  # else a letter that is cut
            return False
        text = data[: exc.start].decode()
    return all(char.isprintable() or char.isspace() for char in text)
