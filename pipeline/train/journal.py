"""What is told on disk of a training while it goes on: its curve as a table, a picture and events of TensorBoard."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError, reason_of
from pipeline.train.curve import COLUMNS, Curve
from stages.disk import refusal

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PICTURE_SECONDS = 30
"""Between two pictures of a training that goes on: some take less for an epoch than for a picture."""


def require_tensorboard() -> None:
    """Go on only where events can be written.

    Raises:
        UsageError: TensorBoard is not installed, or is broken; it names the line that installs it.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as exc:  # whatever a broken package raises
        again = "" if isinstance(exc, ModuleNotFoundError) else " --force-reinstall"
        raise UsageError(
            f"training.tensorboard: true needs TensorBoard, which cannot be imported ({' '.join(str(exc).split())}): "
            f"pip install{again} tensorboard; or leave it out: curve.csv and curve.png tell the same"
        ) from exc


class Journal:
    """Writes a training's curve wherever it is told.

    It is about the training and must not end it: what cannot be written, on a full disk, is told once and tried again
    with the next epoch (events at the end, and then all of them), and the training goes on.

    Args:
        path: of the table, and with the suffix ``.png`` of the picture; None: neither is written.
        events: folder of the events of TensorBoard; None: there are none.
        say: told of what cannot be written.
    """

    def __init__(self, path: Path | None, *, events: Path | None = None, say: Callable[[str], None]) -> None:
        self._path, self._events, self._say = path, events, say
        self._told: set[Path] = set()
        self._drawn = time.monotonic()
        self._writer: SummaryWriter | None = None
        self._logged = 0

    def epoch(self, curve: Curve) -> None:
        """Enter what the curve has more than before."""
        if self._path is not None:
            self._try(self._path, lambda path: curve.write(path))
            if time.monotonic() - self._drawn > PICTURE_SECONDS:
                self._drawn = time.monotonic()
                self._draw(curve)
        if self._events is not None and self._events not in self._told:
            self._try(self._events, lambda folder: self._log(folder, curve))

    def end(self, curve: Curve) -> None:
        """Write the whole of it."""
        if self._path is not None:
            self._try(self._path, lambda path: curve.write(path))
            self._draw(curve)
        if self._events is not None:
            if self._events in self._told:  # a writer that failed once writes no more
                self._writer, self._logged = None, 0
            self._try(self._events, lambda folder: self._log(folder, curve))

    def _draw(self, curve: Curve) -> None:
        from pipeline.train.curve_picture import save_curve  # matplotlib takes half a second to import

        assert self._path is not None
        self._try(self._path.with_suffix(".png"), lambda path: save_curve(path, curve))

    def _log(self, folder: Path, curve: Curve) -> None:
        with _failing_quietly():
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # hides what was told before it was interrupted or failed: all of it is told again
                self._writer = SummaryWriter(folder, purge_step=1)
            for row in curve.rows[self._logged :]:
                for name in COLUMNS[1:]:
                    if row[name] is not None and math.isfinite(row[name]):
                        self._writer.add_scalar(name, row[name], row["epoch"])
            self._writer.flush()
            self._logged = len(curve.rows)

    def _try(self, path: Path, write: Callable[[Path], None]) -> None:
        try:
            write(path)
        except OSError as exc:
            if path not in self._told:
                self._told.add(path)
                self._say(f"warning: {path} is not written: {refusal(exc, path, writing=True)}; training goes on")
        except Exception as exc:  # whatever becomes of a picture or of another program's writer
            if path not in self._told:
                self._told.add(path)
                self._say(f"warning: {path} is not written: {reason_of(exc)}; training goes on")


@contextmanager
def _failing_quietly() -> Iterator[None]:
    """TensorBoard writes on a thread, which prints a traceback where the disk is full; the error itself is raised."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not issubclass(failed.exc_type, OSError):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
