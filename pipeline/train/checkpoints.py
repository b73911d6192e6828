"""The checkpoints of a fit that goes on: two, written in turns, so that one is whole whatever becomes of the other."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages.disk import open_regular


class DamagedError(Exception):
    """A checkpoint is not what was written."""


def place_of(checkpoint: Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch, from 1, goes: beside that of the epoch before, not over it."""
    return checkpoint if epoch % 2 else checkpoint.with_stem(f"{checkpoint.stem}-even")


def written(checkpoint: Path) -> list[Path]:
    """Those of the two that are there, the last one first."""
    found = [path for path in (place_of(checkpoint, 1), place_of(checkpoint, 2)) if path.exists()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def remove(checkpoint: Path) -> None:
    """Take both away."""
    for path in written(checkpoint):
        path.unlink()


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, as it was written.

    Raises:
        DamagedError: it is cut off or changed. Torch takes changed weights as they are (findings/torch-load-no-crc.sh),
            so that the checksums of the archive that it writes are compared here.
        OSError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as parts:
                changed = parts.testzip()
            if changed is not None:
                raise DamagedError(f"{Path(changed).name} in it is not what was written")
            file.seek(0)
            loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (DamagedError, MemoryError):
        raise
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        raise DamagedError(str(exc.strerror)) from exc
    except Exception as exc:  # a damaged archive or pickle ends in an error of nearly any type
        raise DamagedError(f"{type(exc).__name__}: {' '.join(str(exc).split())}".rstrip(": ")) from exc
    return loaded


def last_whole(checkpoint: Path, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from; None where a fit begins. What is damaged is told, and where it goes on instead."""
    damaged: list[str] = []
    for path in written(checkpoint):
        try:
            epoch = read(path)["epoch"] + 1
        except DamagedError as exc:
            damaged.append(f"the checkpoint {path} is damaged ({exc})")
            continue
        if damaged:
            say(f"warning: {damaged[0]}: training goes on after epoch {epoch}, from {path}")
        return path
    if damaged:
        say(f"warning: {', and '.join(damaged)}, and there is no other: training begins anew")
    return None
