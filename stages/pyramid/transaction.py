"""Make a pyramid complete or not at all: beside its place, resumable, and put there in one step."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from stages.budget import BusyError, Room
from stages.disk import (
    FULL,
    PREFIX,
    ForeignFolderError,
    flush_tree,
    put_in_place,
    refusal,
    remove_unfinished,
    resumable_folder,
)
from stages.lease import HeldError, lease
from stages.pyramid.copying import write_levels
from stages.pyramid.format import FolderFormat, Progress
from stages.pyramid.open import open_pyramid
from stages.pyramid.plan import Plan
from stages.slide.facts import SlideError, SlideFacts
from stages.slide.protocol import Slide

AGAIN = "then run `saccade cache` again: it goes on where it stopped"


class FullDiskError(SlideError):
    """There is no room for this pyramid; nor will there be for another."""


def build(
    source: Slide,
    out: Path,
    form: FolderFormat,
    *,
    plan: Callable[[], Plan],
    is_current: Callable[[Path], bool],
    progress: Progress | None,
    writers: int,
    room: Room | None = None,
    wait: bool = True,
) -> Path:
    """Make a pyramid at ``out`` and return its absolute path; at once where one is there that will do.

    Args:
        source: the slide.
        out: the pyramid's folder; another pyramid there is exchanged once this one is complete.
        form: how it is stored.
        plan: tells what it holds; not asked where nothing is to be made.
        is_current: whether what is in a folder will do.
        progress: called from this thread.
        writers: shards copied at once.
        room: what of the disk may be taken; None: all.
        wait: for another process that is making it; else see below.

    Raises:
        BusyError: another process is making it, or has reserved what it may not take in the end.
        FullDiskError: there is no room.
        DiskBudgetError: it may take more than there is room for; nothing was begun.
        SlideError: the slide cannot be read, or the pyramid not be written.
    """
    out = Path(os.path.abspath(out))
    if is_current(out):
        return out
    refuse_foreign(out, form)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with lease(out.parent / f"{PREFIX}pyramid-{hashlib.sha256(out.name.encode()).hexdigest()[:16]}", wait=wait):
            if not is_current(out):  # nobody made it meanwhile
                _make(source, out, form, plan(), progress=progress, writers=writers, room=room)
    except HeldError as exc:
        raise BusyError(f"another process is making {out}") from exc
    except OSError as exc:
        raise _unwritten(out, exc) from exc
    return out


def _make(
    source: Slide,
    out: Path,
    form: FolderFormat,
    wanted: Plan,
    *,
    progress: Progress | None,
    writers: int,
    room: Room | None,
) -> None:
    partial = partial_of(out, form, wanted)
    before, need = _held(partial), wanted.most_bytes(source)
    reserved = (
        nullcontext()
        if room is None
        else room.reserve(
            partial, need - before, took=lambda: max(0, _held(partial if partial.is_dir() else out) - before)
        )
    )
    wanted = wanted.at(partial)

    def copied(done: int, total: int, written: int) -> None:
        used_up = None if room is None else room.used_up(partial)
        if used_up is not None:
            raise FullDiskError(f"cannot write {out}: {used_up}; {AGAIN}")
        if progress is not None:
            progress(done, total, written)

    with reserved:
        try:
            partial.mkdir(parents=True, exist_ok=True)
            form.start(wanted)
            write_levels(source, wanted, form, progress=copied, writers=writers)
            try:
                facts = copied_facts(source)
            except SlideError:
                shutil.rmtree(partial)
                raise
            flush_tree(partial, threads=writers)
            form.finish(wanted, facts)  # once the disk holds all the rest
            put_in_place(partial, out, ours=form.is_ours)
        except ForeignFolderError as exc:
            raise _foreign(out) from exc
        except OSError as exc:
            raise _unwritten(out, exc) from exc
        remove_unfinished(out, deep=True)


def copied_facts(source: Slide) -> SlideFacts:
    """The facts of a slide that was copied, with the digest of every byte, nearly all of which has just been read.

    Raises:
        SlideError: it changed meanwhile.
    """
    facts = source.facts.with_digest()
    now = open_pyramid(facts.path).facts
    if now.fingerprint != facts.fingerprint or not now.unchanged(source.facts.revision):
        raise SlideError("the file changed while it was being copied: run `saccade cache` again")
    return facts


def refuse_foreign(out: Path, form: FolderFormat) -> None:
    """Raise a `SlideError` where something is that would not be replaced."""
    if os.path.lexists(out) and not form.is_ours(out):
        raise _foreign(out)


def partial_of(out: Path, form: FolderFormat, plan: Plan) -> Path:
    """Where a pyramid is made before it is put in place."""
    return resumable_folder(out, f"{form.name}-{plan.digest()}")


def refuse_over(room: Room | None, partial: Path, plan: Plan, source: Slide) -> None:
    """Raise a `DiskBudgetError` where what is not made yet of a pyramid may take more than there is room for."""
    if room is not None:
        room.refuse_over(partial, plan.most_bytes(source) - _held(partial))


def _foreign(out: Path) -> SlideError:
    return SlideError(
        f"{out} exists and is not a pyramid of ours, or holds something else: move it away or choose another folder"
    )


def _unwritten(out: Path, exc: OSError) -> SlideError:
    words = f"cannot write {out}: {refusal(exc, out, writing=True)}"
    return (FullDiskError if exc.errno in FULL else SlideError)(f"{words}; {AGAIN}")


def _held(folder: Path) -> int:
    """Bytes in a folder, of a run that was killed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
