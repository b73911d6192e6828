"""Writing so that a reader sees the old file or the new one, never half of one, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class ForeignFolderError(FileExistsError):
    """A folder is to be written where something is that we did not write."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; when the block ends well, it becomes ``path`` in one step.

    If the block fails, whatever was at ``path`` is still there and the new file is gone. The temporary path keeps the
    suffix, for writers that choose their format by it.
    """
    temporary = _beside(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


@contextmanager
def atomic_directory(path: Path, *, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new folder beside ``path`` to fill; when the block ends well, it becomes ``path``.

    An earlier folder at ``path`` is moved aside first and deleted last, and only if it is ours.

    Args:
        path: the folder to be.
        ours: says whether an existing folder was written by us.

    Raises:
        ForeignFolderError: something is at ``path`` that we did not write.
    """
    if os.path.lexists(path) and not ours(path):
        raise ForeignFolderError(f"{path} was not written by saccade and stays as it is")
    temporary, aside = _beside(path), _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, files in os.walk(temporary, topdown=False):
            for name in files:
                flush(Path(folder, name))
            flush(Path(folder))
        if path.exists():
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError:
            if aside.exists():
                os.rename(aside, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A new hidden name in the same folder, so that renaming it never crosses file systems."""
    return path.with_name(f".saccade-{uuid.uuid4().hex}{path.suffix}")


def flush(path: Path) -> None:
    """Have the disk hold it before anything else relies on it."""
    directory = path.is_dir()
    if directory and os.name == "nt":  # Windows opens no folders, and keeps their entries itself
        return
    descriptor = os.open(path, os.O_RDONLY if directory else os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    except OSError:
        if not directory:  # some network file systems flush no folders
            raise
    finally:
        os.close(descriptor)
