"""A slide's folder: its key, its thumbnail, and the commit mark that comes after everything else in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.output.documents import read_json, write_json
from pipeline.output.run_record import versions
from stages.disk import PREFIX, flush, new_file, remove_unfinished
from stages.heap import give_back
from stages.slide.facts import SlideFacts
from stages.slide.revision import Revision

THUMBNAIL = "thumbnail.jpg"
"""The slide as attention saw it, but for what JPEG loses."""
GALLERY = "gallery.jpg"
"""The patches that say most."""
PREVIEW = "preview.jpg"
"""Its maps side by side, small enough to be held by a report of many slides."""
SHEET = "slide.html"
"""All of it on a page."""
COMMIT = "prediction.json"
"""A slide's commit mark: there, and whole, only when everything else of that slide is."""
FORMER = ("thumbnail.png", "overlay.png", "evidence.png")
"""Files of a slide that are written no more."""


READERS = ("saccade", "openslide-python", "openslide-bin", "zarr", "tifffile", "imagecodecs")
"""Another version of these may read a slide otherwise: then it is opened to see whether its result stands."""


def state_of(facts: SlideFacts, recorded: Revision | None = None) -> dict[str, Any]:
    """What a commit mark says of the slide's files, so that a rerun need not open them: their state, with the digest
    that was recorded of the same bytes; and what read them."""
    now = facts.revision
    if now is not None and now.digest is None and recorded is not None:
        now = replace(now, digest=recorded.digest)
    return {"revision": now and asdict(now), "doubt": facts.mpp_doubt, "read_by": readers()}


@lru_cache
def readers() -> dict[str, str | None]:
    """Versions of what reads slides."""
    return {name: version for name, version in versions().items() if name in READERS}


def slide_key(fingerprint: str, parts: Mapping[str, Any]) -> str:
    """SHA-256 over a slide's content and everything that its results depend on: equal keys, equal results.

    Raises:
        ValueError: a part is NaN or infinite, which equals nothing.
        TypeError: a part has no JSON form.
    """
    text = json.dumps([fingerprint, parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def begin_slide(folder: Path) -> None:
    """Make a slide's folder and take back its commit mark, before any artefact in it is replaced; what only earlier
    versions wrote, and what killed processes left unfinished, goes, too.

    With the mark still there, a crash between two artefacts would leave a mixture that counts as done by its old key.
    """
    folder.mkdir(exist_ok=True)
    (folder / COMMIT).unlink(missing_ok=True)
    for name in FORMER:
        (folder / name).unlink(missing_ok=True)
    remove_unfinished(folder)
    flush(folder)


def write_commit(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a slide's commit mark, after everything else of that slide.

    Raises:
        ValueError: the record lacks its "key".
    """
    if not isinstance(record.get("key"), str):
        raise ValueError(f"a commit record needs a 'key', found {sorted(record)}")
    write_json(folder / COMMIT, record)


def read_commit(folder: Path) -> dict[str, Any] | None:
    """A slide's commit record, or None where there is none that is whole."""
    record = read_json(folder / COMMIT)
    return record if record is not None and isinstance(record.get("key"), str) else None


def sizes_of(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Bytes of each file that these names have in a slide's folder, or that lies in a folder of theirs, by its path
    from there: what its commit mark records, see `altered`."""
    found = (file for name in sorted(names) for file in (folder / name, *sorted((folder / name).rglob("*"))))
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in found if file.is_file()}


def altered(folder: Path, record: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether something that a commit mark vouches for is gone, or has another size than was recorded, at a microsecond
    a file; earlier versions recorded none.

    Args:
        folder: the slide's.
        record: its commit record.
        names: of the files and folders in it that are asked for.
    """
    files = record.get("files")
    if not isinstance(files, dict):
        return not set(os.listdir(folder)).issuperset(names)
    missing = set(names)
    try:
        for file, size in files.items():
            name = file.partition("/")[0]
            if name in names:
                missing.discard(name)
                if os.stat(f"{folder}/{file}").st_size != size:
                    return True
    except (OSError, ValueError):  # whoever makes it anew tells of what cannot be reached
        return True
    return bool(missing)


def withdraw(folder: Path, record: Mapping[str, Any], names: Collection[str]) -> None:
    """Take back a slide's result: its commit mark first, then the files that it recorded, of these names or in folders
    of theirs, and what is empty without them. What is not ours stays."""
    (folder / COMMIT).unlink(missing_ok=True)
    flush(folder)
    recorded = record.get("files")
    files = sizes_of(folder, names).keys() & (recorded.keys() if isinstance(recorded, dict) else ())
    for file in files:
        (folder / file).unlink(missing_ok=True)
    inside = {above for file in files for above in (folder / file).relative_to(folder).parents}
    for place in sorted(inside, key=lambda place: -len(place.parts)):
        with suppress(OSError):  # something else is in it
            (folder / place).rmdir()


def lease_of(folders: Path, slide_id: str) -> Path:
    """Place of the lease that the one writer of a slide's folder holds, see `stages.lease`."""
    name = hashlib.sha256(slide_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return folders / f"{PREFIX}slide-{name}"


def write_thumbnail(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) RGB as a JPEG."""
    from stages.overlay.jpeg import write_jpeg

    give_back()  # what predicting the slide took
    with new_file(path) as temporary:
        write_jpeg(temporary, rgb)
    give_back(rgb)
