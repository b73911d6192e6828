"""Whether `pipeline` and `stages` are ours, or something else of that name that Python finds first."""

from __future__ import annotations

import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that holds all our packages, side by side."""
PACKAGES = ("pipeline", "stages")


def find_shadow() -> tuple[str, str | None] | None:
    """The first of our packages that Python would not take from `ROOT`, and where it would take it from, if anywhere.

    Nothing is imported for it.
    """
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module of that name which was made by hand
            spec = None
        origin = None if spec is None else spec.origin
        if origin is None or not _same(os.path.dirname(os.path.dirname(origin)), ROOT):
            return name, origin
    return None


def refuse_shadows() -> None:
    """Raise an `ImportError`, in one line, where our packages are shadowed."""
    found = find_shadow()
    if found is None:
        return
    name, origin = found
    own = os.path.join(ROOT, name)
    if origin is None:
        raise ImportError(f"saccade's own package {own} cannot be imported: install saccade-wsi again")
    what = os.path.dirname(origin) if os.path.basename(origin) == "__init__.py" else origin
    raise ImportError(
        f"{what} hides saccade's own package {own}: rename it, or start Python in a folder where there is no {name!r}"
    )


def ignore_working_directory() -> None:
    """Have this process take nothing from the working directory that hides a package of ours.

    For a process that is all ours; in a user's own, what is in that folder is theirs to import.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was deleted: there is nothing in it
        return
    if find_shadow() is not None and not _same(here, ROOT):
        sys.path[:] = [entry for entry in sys.path if not _same(entry or here, here)]
        importlib.invalidate_caches()


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
