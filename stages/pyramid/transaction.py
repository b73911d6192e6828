"""Make a folder complete or not at all: beside its place, resumable, and put there in one step."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.pyramid.copying import Format, Progress, write_levels
from stages.pyramid.plan import Plan
from stages.slide.files import Slide, SlideError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class FullDiskError(SlideError):
    """There is no room for this pyramid; nor will there be for another."""


def build(
    source: Slide,
    out: Path,
    form: Format,
    *,
    plan: Callable[[], Plan],
    is_current: Callable[[Path], bool],
    fingerprint: Callable[[], str],
    progress: Progress | None,
    writers: int,
) -> Path:
    """Make a pyramid at ``out`` and return its absolute path; at once where one is there that will do.

    Args:
        source: the slide.
        out: the pyramid's folder; another pyramid there is exchanged once this one is complete.
        form: how it is stored.
        plan: tells what it holds; not asked where nothing is to be made.
        is_current: whether what is in a folder will do.
        fingerprint: of the slide's file as it is now.
        progress: called from this thread.
        writers: shards copied at once.

    Raises:
        FullDiskError: there is no room.
        SlideError: the slide cannot be read, or the pyramid not be written.
    """
    out = Path(os.path.abspath(out))
    if is_current(out):
        return out
    if os.path.lexists(out) and not form.is_ours(out):
        raise SlideError(f"{out} exists and is not a pyramid of ours: move it away or choose another folder")
    wanted = plan()
    partial = out.with_name(f".{out.name}.{form.name}-{wanted.digest()}.partial")
    wanted = wanted.at(partial)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        form.start(wanted)
        write_levels(source, wanted, form, progress=progress, writers=writers)
        if fingerprint() != source.facts.fingerprint:
            shutil.rmtree(partial)
            raise SlideError("the file changed while it was being copied: run `saccade cache` again")
        _flush(partial, writers)
        form.finish(wanted, source.facts)
        _sync(partial)  # a folder in its place must have its mark
        _put_in_place(partial, out)
    except OSError as exc:
        if not is_current(out):  # else another run was first, and took the folder that we worked in
            raise _unwritten(out, exc) from exc
        shutil.rmtree(partial, ignore_errors=True)
    for litter in out.rglob("*.partial"):  # half a file each, of runs that were killed
        litter.unlink(missing_ok=True)
    return out


def _unwritten(out: Path, exc: OSError) -> SlideError:
    again = "then run `saccade cache` again: it goes on where it stopped"
    if exc.errno in _FULL:
        return FullDiskError(f"cannot write {out}: the disk is full ({exc.strerror}); make room on it, {again}")
    return SlideError(f"cannot write {out}: {exc.strerror or exc}; check the disk and its permissions, {again}")


def _flush(folder: Path, writers: int) -> None:
    """Have the disk hold all files and folders, which it has mostly done while they were written."""
    paths = [
        path for here, _, files in os.walk(folder) for path in (here, *(os.path.join(here, name) for name in files))
    ]
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(_sync, paths))


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, out: Path) -> None:
    """Rename ``partial`` to ``out``; an outdated pyramid there is deleted once the new one has its place."""
    retired = out.with_name(f".{out.name}.{uuid.uuid4().hex}.old")
    if out.exists():
        os.rename(out, retired)
    try:
        os.rename(partial, out)
    except OSError:  # another run was first: what we retired was its pyramid
        if retired.exists():
            os.rename(retired, out)
        raise
    shutil.rmtree(retired, ignore_errors=True)
