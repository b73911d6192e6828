"""What happens between epochs: the curve, validation, a line, whose weights are kept, and all that resuming takes."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.model.slide_model import SlideModel
from pipeline.model.values import View
from pipeline.train.checkpoints import place_of, read
from pipeline.train.curve import Curve, of_validation
from pipeline.train.journal import Journal
from pipeline.train.share import ALONE, Share
from pipeline.train.slides import TrainingSlides
from stages.disk import new_file
from stages.heap import give_back
from stages.torchvision import admit_torchvision

with warnings.catch_warnings():  # other people's deprecations, at import
    warnings.simplefilter("ignore")
    admit_torchvision()
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.plugins.io import CheckpointIO


class Watch(Callback):
    """Enters each finished epoch into the curve, keeps the weights that the curve chooses, and writes the checkpoint.

    Args:
        curve: what was before goes on in it.
        checkpoint: what going on from the last finished epoch needs goes there (`pipeline.train.checkpoints`).
        journal: where the curve is told.
        validate: loss of each validation slide and their AUROC; None: there are none.
        say: told one line an epoch, with the time that is left.

    Attributes:
        weights: of the epoch that is kept; None: the model's own.
    """

    def __init__(
        self,
        curve: Curve,
        checkpoint: Path,
        *,
        journal: Journal,
        validate: Callable[[], tuple[Tensor, float | None]] | None,
        say: Callable[[str], None],
    ) -> None:
        self.curve = curve
        self.weights: dict[str, Tensor] | None = None
        self._checkpoint, self._journal, self._validate, self._say = checkpoint, journal, validate, say
        self._started, self._first = time.monotonic(), 0
        self._ended_by = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._started, self._first = time.monotonic(), trainer.current_epoch
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ended_by)  # Lightning's own handler notes it and goes on
        trainer.should_stop = self.curve.over  # of one that was interrupted after it had stopped

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        module.refuse_divergence()
        give_back()  # threads that read each keep what they freed, and a step's images lie between what stays
        done = trainer.current_epoch + 1
        val, auroc = self._validate() if self._validate is not None else (None, None)
        loss, error, unseen = module.epoch_losses()
        if self.curve.add(loss=loss, error=error, val=val, auroc=auroc, unseen=unseen):
            self.weights = None
            if self.curve.keep == "best":
                self.weights = {name: value.cpu().clone() for name, value in module.model.state_dict().items()}
        left = (time.monotonic() - self._started) / (done - self._first) * (trainer.max_epochs - done)
        self._say(f"epoch {done}/{trainer.max_epochs}: {_in_words(self.curve.rows[-1])}, {left:.0f} s left")
        trainer.save_checkpoint(place_of(self._checkpoint, done))
        self._journal.epoch(self.curve)
        if self.curve.over and done < trainer.max_epochs:
            self._say(f"no lower validation loss in {self.curve.patience} epochs: stopped after epoch {done}")
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve.state(), "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve.restore(state_dict["curve"])
        self.weights = state_dict["weights"]
        self._journal.epoch(self.curve)


def _in_words(row: dict[str, Any]) -> str:
    told = [f"loss {row['loss']:.3f}"]
    if row["val_loss"] is not None:
        auroc = "" if row["val_auroc"] is None else f" (AUROC {row['val_auroc']:.2f})"
        told.append(f"validation {row['val_loss']:.3f}{auroc}")
    if row["out_of_bag_loss"] is not None:
        told.append(f"out of bag {row['out_of_bag_loss']:.3f}")
    return ", ".join(told)


class OnDisk(CheckpointIO):
    """Checkpoints at paths of this file system. Lightning's own takes a path for an address, so that a folder called
    ``a::b`` is the file ``a``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with new_file(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as exc:  # of a full disk torch says only that a position is unexpected
                if isinstance(exc.__context__, OSError):
                    raise exc.__context__ from None
                raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


@torch.no_grad()
def validate(
    model: SlideModel, slides: TrainingSlides, targets: Tensor, *, samples: int, seed: int, share: Share = ALONE
) -> tuple[Tensor, float | None]:
    """Loss of each validation slide, NaN of one that cannot be read, and their AUROC: one draw each, the same in every
    epoch, by the model as it would predict. Of several processes each judges its share of them."""
    training = model.training
    model.eval()
    logits = torch.full((slides.count, model.readout.outputs), torch.nan)
    try:
        for i in share.of(range(slides.count)):

            def act(kept: list[int], views: list[View], i: int = i) -> Tensor:
                generator = torch.Generator(model.drawing_device).manual_seed(seed * 1_000_003 + i)
                return model(views, samples=samples, generator=generator).logits[0].mean(0)  # type: ignore[no-any-return]

            found = slides.attempt([i], act)
            if found is not None:
                logits[i] = found[1].to(logits)
    finally:
        model.train(training)
    for rank, (theirs, lost) in enumerate(share.gather((logits, slides.told))):
        slides.restore(lost)
        logits[rank :: share.size] = theirs[rank :: share.size]
    return of_validation(logits, targets, model.readout)
