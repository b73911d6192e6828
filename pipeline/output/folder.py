"""The folder that a command writes to: ours by its mark, so that what another program wrote is never replaced."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.output.documents import read_json, write_json
from stages.disk import PREFIX, refusal, remove_unfinished
from stages.lease import HeldError, holders, lease
from stages.place import Url, place

MARK = ".saccade"
"""File that marks a folder as an output of ours."""

ABSTENTION, METRICS = "abstention.csv", "metrics.json"
RUN = (
    *("run.json", "predictions.csv", "patients.csv", "report.html", "gallery.jpg", "slides", "patients"),
    *(ABSTENTION, METRICS),
)
TRAINING = (
    "model.safetensors",
    "training.json",
    "curve.csv",
    "curve.png",
    "tensorboard",
    METRICS,
    "predictions.csv",
    "report.html",
    "splits.csv",
    "ensemble.json",
    "comparison.csv",
    "compare",
)
BENCH = ("bench.csv", "bench.json", "bench.png", "slides")
"""What each command writes there."""


def prepare_output(out: Path, *, names: Iterable[str] = (*RUN, *TRAINING)) -> None:
    """Make ``out`` an output folder of ours, by really writing to it.

    Args:
        out: the folder.
        names: what will be written there; the mark remembers them, so that what a user puts beside is not ours.

    Raises:
        UsageError: it cannot be written, or holds results of another program.
    """
    refuse_store(out)
    names = set(names)
    try:
        out.mkdir(parents=True, exist_ok=True)
        ours = refuse_foreign(out, names=names)
        write_json(out / MARK, {"program": "saccade", "names": sorted(names | (ours or set()))})
        refuse_unwritable(out, names=names)
    except OSError as exc:
        why = refusal(exc, Path(exc.filename or out), writing=True)
        raise UsageError(f"cannot write to {out}: {why}; or choose another folder") from exc


def refuse_unwritable(out: Path, *, names: Iterable[str]) -> None:
    """Refuse a folder that cannot be written to, or made, without writing, as far as the system tells.

    Args:
        out: the folder.
        names: of folders in it that are written to where they are there.

    Raises:
        UsageError: so it is.
    """
    there = next((here for here in (out, *out.absolute().parents) if os.path.lexists(here)), out)
    for here in (there, *(out / name for name in sorted(names) if os.path.isdir(out / name))):
        if not os.path.isdir(here):
            error: OSError = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        elif not os.access(here, os.W_OK | os.X_OK):
            shut = hasattr(os, "statvfs") and os.statvfs(here).f_flag & os.ST_RDONLY
            code = errno.EROFS if shut else errno.EACCES
            error = OSError(code, os.strerror(code))
        else:
            continue
        raise UsageError(f"cannot write to {out}: {refusal(error, here, writing=True)}; or choose another folder")


def refuse_store(out: Path) -> None:
    """Refuse what is no folder, but the URL of a store of objects.

    Raises:
        UsageError: it is one.
    """
    if isinstance(place(out), Url):
        raise UsageError(
            f"--out is {place(out)}, but these results are tables and pictures, each of which is replaced in one step, "
            "as disks do: name a folder on one, and copy it to the store once it is finished"
        )


def refuse_foreign(out: Path, *, names: Iterable[str]) -> set[str] | None:
    """Refuse a folder that holds results of another program; returns what of it is ours, None where it is no output.

    Raises:
        UsageError: so it does.
    """
    ours = _written(out)
    foreign = sorted(name for name in set(names) - (ours or set()) if os.path.lexists(out / name))
    if ours is None and os.path.lexists(out / MARK):
        foreign.insert(0, MARK)
    if foreign:
        deleted = "" if os.path.lexists(out / MARK) else f", or whose folder's mark {MARK} was deleted"
        raise UsageError(
            f"{out} already has a {foreign[0]!r} that saccade did not write{deleted}; choose a folder of its own"
        )
    return ours


@contextmanager
def fitting_alone(out: Path) -> Iterator[None]:
    """Keep out others that fit a model into ``out`` for as long as the block lasts; what killed ones left goes first.

    Raises:
        UsageError: one is at work already.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lease(out / f"{PREFIX}training"))
        except HeldError:
            raise UsageError(f"another training works into {out}: wait for its end, or choose another --out") from None
        others = [name for kind in ("run", "cache") for name in holders(out, f"{PREFIX}{kind}-")]
        if not others:  # whose unfinished files are no litter
            for folder in (out, *(path for name in ("fold-*", "compare", "fold-*/compare") for path in out.glob(name))):
                remove_unfinished(folder)
        yield


@contextmanager
def only_its_kind(out: Path, what: str, key: str) -> Iterator[None]:
    """Keep out those of the same command, ``what``, whose results are others, as their ``key`` is, for as long as the
    block lasts; what killed ones left unfinished goes first, unless somebody works here.

    Raises:
        UsageError: one is at work already.
    """
    prefix, own = f"{PREFIX}{what}-", f"{PREFIX}{what}-{key}"
    with ExitStack() as held:
        # one at a time, so that nobody has begun whom another does not see
        with lease(out / f"{PREFIX}beginning", wait=True):
            if not any(holders(out, f"{PREFIX}{kind}") for kind in ("run-", "cache-", "training")):
                remove_unfinished(out)
                # looking takes away what no writer holds any more
                holders(out, f"{PREFIX}pyramid-")
                holders(out / "slides", f"{PREFIX}slide-")
            held.enter_context(lease(out / own, shared=True))
        # each looks after it has its own, so that of two at once one sees the other at least
        if any(name != own for name in holders(out, prefix)):
            settings = "another model or other settings" if what == "run" else "other settings"
            raise UsageError(
                f"another {what} works into {out}, with {settings}: wait for its end, or choose another --out"
            )
        yield


def is_output(folder: Path) -> bool:
    """Whether `prepare_output` made this folder."""
    return _written(folder) is not None


def _written(folder: Path) -> set[str] | None:
    """What `prepare_output` was told of a folder that it made; None of others. Earlier marks told nothing."""
    mark = folder / MARK
    found = None if mark.is_symlink() or not mark.is_file() else read_json(mark)
    if found is None or found.get("program") != "saccade":
        return None
    return {str(name) for name in found.get("names", (*RUN, *TRAINING))}
