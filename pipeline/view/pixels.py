"""The slide that a result was made of: found where it lies by now, and opened where it is still the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import reason_of
from pipeline.output.slide_folder import read_commit
from pipeline.view.run_folder import AGAIN, SlideRow, inner
from stages.bags.bag_slide import BagSlide
from stages.place import Url, place
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide


def open_slide_of(slide: SlideRow, folders: Sequence[Path] = ()) -> Slide:
    """The pixels that a result was made of.

    Slides in a store of objects are not opened: a run that somebody sent must not have this machine call any address.

    Args:
        slide: whose result.
        folders: where slides lie by now that were moved.

    Raises:
        SlideError: they are not there, are others by now, or cannot be read.
    """
    commit = (read_commit(slide.folder) if slide.folder is not None else None) or {}
    there = find_slide(slide, commit, folders)
    try:
        found = open_pyramid(there, mpp=inner(commit, "made_of").get("mpp"))
    except OSError as exc:
        raise SlideError(reason_of(exc)) from exc
    if isinstance(found, BagSlide):
        raise SlideError(f"{there} holds features without pixels, so that there is nothing to zoom into")
    if found.facts.fingerprint != commit.get("fingerprint"):
        raise SlideError(
            f"{there} is another slide than the one that was predicted (its fingerprint differs): put that one back, "
            "or run the same `saccade run` again, which predicts this one"
        )
    return found


def find_slide(slide: SlideRow, commit: Mapping[str, Any], folders: Sequence[Path] = ()) -> Path:
    """Where the file of a result lies, which may be another slide by now.

    Args:
        slide: whose result.
        commit: what its prediction.json says.
        folders: see `open_slide_of`.

    Raises:
        SlideError: it is not there, or not on a disk.
    """
    if not commit.get("path"):
        raise SlideError(f"the result of {slide.name} does not say where its slide is: {AGAIN}")
    where = place(str(commit["path"]))
    if isinstance(where, Url):
        raise SlideError(
            f"the slide lies in a store of objects, {where}: copy it to a disk, and name its folder with --slides"
        )
    there = next((path for path in (where, *(f / where.name for f in folders)) if os.path.exists(path)), None)
    if there is None:
        raise SlideError(f"the slide is not at {where} any more: give the folder that it lies in with --slides")
    return there
