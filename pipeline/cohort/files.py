"""Slides on disk: which files under a folder are slides, and what a slide is called."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UsageError, printable
from pipeline.output.folder import is_output
from stages.bags.bag import BAG_SUFFIXES
from stages.object_store import UNLISTED, children
from stages.passing import UnreadableError
from stages.place import Place, Url, place, refusal_of
from stages.pyramid.multiscales import METADATA, is_slide
from stages.pyramid.record import has_record
from stages.slide.facts import SlideError

SLIDE_SUFFIXES = (
    *(".bif", ".czi", ".dcm", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu"),
)
"""What OpenSlide opens, by name; a file that is named outright is tried whatever its suffix."""
PYRAMID_SUFFIX = ".zarr"
NAMED_SUFFIXES = (*SLIDE_SUFFIXES, PYRAMID_SUFFIX, *BAG_SUFFIXES)
"""What is no part of a slide's name."""
_NOT_THERE = (
    "of what lies in a store OME-Zarr is read, and this is of another format: copy it to a disk, or put a pyramid of "
    "it there, `saccade cache SLIDE --out URL`"
)

QUIET_SECONDS = 5
"""After which a search for slides says how far it is."""

_log = logging.getLogger(__name__)

_MAX_NAME_BYTES = 120  # leaves room for what gets appended, within the 255 bytes that file systems allow
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)


def find_slides(
    folder: Path, *, told: Callable[[str], None] = _log.warning, suffixes: Sequence[str] = SLIDE_SUFFIXES
) -> list[Path]:
    """Every slide under a folder, absolute and sorted; each file once, whatever links lead to it.

    Hidden names are skipped; `.zarr` folders are never entered (one that holds an OME-Zarr image is a slide), nor are
    the output folders of earlier runs. Files of one DICOM series are the levels of one slide: the first by name stands
    for it, and OpenSlide finds the others. With other ``suffixes`` files of those are found instead.

    A folder below it that cannot be read, as `lost+found`, is told of, else in the log, and left out; so are pyramids
    of ours that stand beside the slides that they were made of.

    Raises:
        UsageError: the folder itself cannot be listed.
    """
    slides: dict[str, Path] = {}
    entered: set[str] = set()
    pending = [folder.absolute()]
    while pending:
        here = pending.pop()
        real = os.path.realpath(here)
        if real in entered:  # a link back up, or to a folder that was searched already
            continue
        entered.add(real)
        try:
            with os.scandir(here) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as exc:
            if real != os.path.realpath(folder):
                why = "no permission to search" if isinstance(exc, PermissionError) else f"{exc.strerror}, searching"
                told(f"{why} {printable(str(here))}: slides in it, if there are any, are left out")
                continue
            raise UsageError(f"cannot search {here}: {exc.strerror}; make it readable or name another folder") from exc
        files = []
        for entry in entries:
            path = Path(entry.path)
            suffix = path.suffix.lower()
            if _is_folder(entry):
                if suffix == PYRAMID_SUFFIX:
                    files += [path] if is_slide(path) else []
                elif not _holds_results(path):
                    pending.append(path)
            # what has a slide's name and is none, as a dead link or a pipe, stays in, so that it fails visibly
            elif suffix in suffixes:
                files.append(path)
        for path in _without_copies(_one_per_series(files)):
            # of what is no link only the folder has to be looked at, which was
            slides.setdefault(os.path.realpath(path) if path.is_symlink() else os.path.join(real, path.name), path)
    return sorted(slides.values())


def find_slides_at(url: Url, *, told: Callable[[str], None] = _log.warning) -> list[Url]:
    """Every OME-Zarr image below a URL, or at it, sorted: what is read from a store of objects.

    Hidden names are skipped, and `.zarr` is never entered. Other slides are told of, and left out.

    Raises:
        UsageError: the URL is of a form that is not taken, nothing is there, or its store does not answer.
    """
    if (why := refusal_of(url)) is not None:
        raise UsageError(f"{url}: {why}")
    if url.suffix.lower() == PYRAMID_SUFFIX:
        return [url]  # what is wrong with it, it says itself
    if url.suffix.lower() in SLIDE_SUFFIXES:
        raise UsageError(f"{url}: {_NOT_THERE}")
    slides: list[Url] = []
    others: list[Url] = []
    try:
        if url.kind in UNLISTED:
            return [url]
        pending = [url]
        while pending:
            here = pending.pop()
            inside = [entry for entry in children(here.text) if not entry[0].startswith(".")]
            if here == url and {name for name, _ in inside} & {*METADATA}:
                return [url]  # an image, whatever its name
            for name, deeper in inside:
                suffix = (here / name).suffix.lower()
                if deeper and suffix == PYRAMID_SUFFIX:
                    slides += [here / name] if is_slide(here / name) else []
                elif deeper:
                    pending.append(here / name)
                elif suffix in SLIDE_SUFFIXES:
                    others.append(here / name)
    except FileNotFoundError as exc:
        raise UsageError(f"there is nothing at {url}: correct the URL") from exc
    except (UnreadableError, SlideError) as exc:
        raise UsageError(str(exc)) from exc
    if others:
        told(f"{others[0]}{f' and {len(others) - 1} more' if len(others) > 1 else ''}: left out, {_NOT_THERE}")
    return sorted(slides)


def slide_stem(path: Place) -> str:
    """A slide's file name without its format: `a.ome.tiff` and `a.ome.zarr` are `a`, `TCGA-1.2f6b` stays whole."""
    if path.suffix.lower() not in NAMED_SUFFIXES:
        return path.name
    return path.stem[:-4] if path.stem.lower().endswith(".ome") and len(path.stem) > 4 else path.stem


def folder_name(name: str) -> str:
    """A name that can be a folder on any system: unsafe characters percent-encoded, long names cut and hashed.

    Letters of every script stay as they are, and different names stay different.
    """
    text = unicodedata.normalize("NFC", name)

    def unsafe(index: int) -> bool:
        char = text[index]
        at_end = index in (0, len(text) - 1)
        formula = not index and char in "=+@-"  # spreadsheets would compute it, and commands take it for an option
        return char in '<>:"/\\|?*%' or not char.isprintable() or (at_end and char in ". ") or formula

    safe = "".join(_percent(char) if unsafe(i) else char for i, char in enumerate(text))
    if _DEVICE_NAME.fullmatch(safe):
        safe = _percent(safe[0]) + safe[1:]
    raw = safe.encode()
    if len(raw) <= _MAX_NAME_BYTES:
        return safe
    return raw[: _MAX_NAME_BYTES - 17].decode(errors="ignore") + "~" + hashlib.sha256(raw).hexdigest()[:16]


def as_file_systems_see(name: str) -> str:
    """A name as any file system tells it from others."""
    return unicodedata.normalize("NFC", name.casefold())  # some of them fold case


def finder(root: Path) -> Callable[[str, str], tuple[Place, str | None]]:
    """A function from a slide's name in a row to its path and, where it cannot be found, why and what to do."""
    by_stem: dict[Path, dict[str, list[Path]]] = {}  # of every folder that had to be searched

    def find(name: str, where: str) -> tuple[Place, str | None]:
        url = place(name)
        if isinstance(url, Url):
            why = refusal_of(url) or (_NOT_THERE if url.suffix.lower() in SLIDE_SUFFIXES else None)
            return url, None if why is None else f"{where}: {why}"
        path = Path(os.path.abspath(root / url.expanduser()))
        if "\\" in name and not os.path.exists(path):  # a table that was written on Windows
            path = Path(os.path.abspath(root / Path(name.replace("\\", "/")).expanduser()))
        if os.path.isdir(path) and path.suffix.lower() != PYRAMID_SUFFIX:
            inside = find_slides(path)
            if len(inside) == 1:
                return inside[0], None
            return path, f"{where}: {path} is a folder with {len(inside)} slides; name one slide"
        if os.path.exists(path):
            return path, None
        pyramid = path.with_name(f"{slide_stem(path)}.ome.zarr")
        if path.suffix.lower() in SLIDE_SUFFIXES and pyramid.is_dir():  # what `saccade cache` wrote stands in its place
            return pyramid, None
        missing = f"{where}: no slide {path}; correct the path or the folder that paths start from ({root})"
        if os.path.isdir(path.parent) and os.access(path.parent, os.R_OK):
            near = next((name for name in os.listdir(path.parent) if name.casefold() == path.name.casefold()), None)
            missing += f"; there is {near!r}" if near else ""
        if path.suffix.lower() in NAMED_SUFFIXES or not os.path.isdir(path.parent):
            return path, missing
        if path.parent not in by_stem:
            by_stem[path.parent] = {}
            for slide in find_slides(path.parent) or find_slides(path.parent, suffixes=BAG_SUFFIXES):
                by_stem[path.parent].setdefault(slide_stem(slide), []).append(slide)
        fits = by_stem[path.parent].get(path.name, [])
        if len(fits) > 1:
            names = ", ".join(str(fit.relative_to(path.parent)) for fit in fits[:3])
            return path, f"{where}: {name!r} fits {len(fits)} slides ({names}); name one with its folder and suffix"
        return (fits[0], None) if fits else (path, missing)

    return find


def _percent(char: str) -> str:
    # surrogatepass: file names that are not valid Unicode reach Python as lone surrogates
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _holds_results(path: Path) -> bool:
    try:
        return is_output(path)
    except OSError:  # told of when it is searched
        return False


def _without_copies(files: Sequence[Path]) -> list[Path]:
    """Files without the pyramids that `saccade cache` made of them: the slide itself is read where both are there."""
    own = {slide_stem(path) for path in files if path.suffix.lower() != PYRAMID_SUFFIX}
    copies = [p for p in files if p.suffix.lower() == PYRAMID_SUFFIX and slide_stem(p) in own and has_record(p)]
    if copies:
        _log.warning(
            "%d pyramids in %s are left out, as their slides are beside them: give pyramids a folder of their own to "
            "read them",
            len(copies),
            printable(str(copies[0].parent)),
        )
    return [path for path in files if path not in set(copies)]


def _one_per_series(files: Sequence[Path]) -> list[Path]:
    """Keep the first file of every DICOM series; files that name none stay, to fail where they are run."""
    if sum(path.suffix.lower() == ".dcm" for path in files) < 2:
        return list(files)
    from stages.slide.dicom_header import series_of  # pydicom: only folders of DICOM files need it

    kept: list[Path] = []
    seen: set[str] = set()
    told = time.monotonic()
    for number, path in enumerate(files):
        series = ""
        if path.suffix.lower() == ".dcm" and os.path.isfile(path):
            with suppress(OSError, UnreadableError):
                series = series_of(path)
        if not series or series not in seen:
            kept.append(path)
            seen.add(series)
        if time.monotonic() - told > QUIET_SECONDS:
            told = time.monotonic()
            _log.warning("%s: looked at %d of %d files", printable(str(path.parent)), number + 1, len(files))
    return kept
