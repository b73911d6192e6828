"""The disk of the output is full, shut or gone: no slide's fault, and nothing that the next slide could do without."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.output.folder import MARK
from stages.disk import FULL

OUTAGE = "outage"
"""Status of a slide whose results had nowhere to go; the work stops there, and the slide is not done."""
_GONE = (errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN)
_AWAY = (
    "it is gone, was emptied, or another folder is in its place: bring back the disk that it is on, or what was in it"
)
_STOPS = (*FULL, errno.EFBIG)
_HDF5 = re.compile(r"errno = (\d+)")
"""How HDF5 passes on what the system answered, where it is no `OSError`."""


def identity(out: Path) -> tuple[int, ...]:
    """What tells an output folder and its slides' from others in their place, as under a disk that went away; raises
    `OSError` without one."""
    try:
        (out / MARK).stat()  # each run writes it anew: that it is there is all that is asked
        found, slides = out.stat(), (out / "slides").stat()
    except FileNotFoundError as exc:
        raise OSError(errno.ENODEV, _AWAY, str(out)) from exc
    return found.st_dev, found.st_ino, slides.st_ino


def outage_row(error: BaseException, out: Path) -> dict[str, Any] | None:
    """The row of a slide whose error, or what caused it, is that nothing can be written to ``out``; None if not."""
    if not (out / "slides").is_dir():
        return {"status": OUTAGE, "error": (errno.ENODEV, _AWAY, str(out))}
    cause: BaseException | None = error
    while cause is not None:
        code, name = getattr(cause, "errno", None), getattr(cause, "filename", None)
        said = _HDF5.search(str(cause))
        code = int(said[1]) if code is None and said else code
        # an error without a name is met in an open file: where it says that there is no room, in one of ours
        there = name is not None and Path(os.fsdecode(name)).is_relative_to(out)
        # one slide's folder may be shut; what holds all of them concerns each
        shut = code in (errno.EACCES, errno.EPERM) and there and _holder(name) in (out, out / "slides")
        if code is not None and ((code in _STOPS and (name is None or there)) or (code in _GONE and there) or shut):
            return {"status": OUTAGE, "error": (code, os.strerror(code), str(name or out))}
        cause = cause.__cause__ or cause.__context__
    return None


def _holder(name: Any) -> Path:
    return Path(os.fsdecode(name)).parent


def stop_at_outage(row: Mapping[str, Any]) -> None:
    """Go on only where the results of a slide that has ended had somewhere to go.

    Raises:
        OSError: what the system answered where they had not.
    """
    if row["status"] == OUTAGE:
        raise OSError(*row["error"])


def stay(out: Path, before: tuple[int, ...]) -> None:
    """Go on only where a folder is the one that it was, by its `identity`; raises `OSError` where it is another."""
    if identity(out) != before:
        raise OSError(errno.ENODEV, _AWAY, str(out))
