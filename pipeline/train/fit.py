"""The training loop: plain stochastic gradients through one draw a slide and step, run by Lightning."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.device import find_device
from pipeline.errors import UsageError
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import Outcome, View
from pipeline.train.first_guess import first_guess, first_guess_of_all
from pipeline.train.slides import LeaveOut, TrainingSlides
from pipeline.train.warm_up import warm_up as warm_attention
from stages.augmentation import turned
from stages.disk import new_file
from stages.torchvision import admit_torchvision

with warnings.catch_warnings():  # other people's deprecations, at import
    warnings.simplefilter("ignore")
    admit_torchvision()
    import lightning
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.plugins.io import CheckpointIO

Batch = list[int]

STANDARDISE_SLIDES = 16
"""Slides whose drawn patches set the scale of the features before training."""
COARSE_SHARE = 0.3
"""Of the epochs: in these a model on a frozen encoder learns from the coarse scale alone."""
DIVERGED = 1e10
"""A weight beyond this is no use to anyone."""


def fit(
    model: SlideModel,
    view: Callable[[int], View],
    labels: Sequence[int],
    *,
    checkpoint: Path,
    samples: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    attention_rate: float,
    warm_up: int,
    weight_decay: float,
    entropy_weight: float,
    gradient_clip: float,
    seed: int,
    device: str,
    say: Callable[[str], None],
    class_weights: Literal["none", "balanced"] = "none",
    turn: bool = True,
    bags: Tensor | None = None,
    leave_out: LeaveOut | None = None,
    lost: Mapping[int, str] | None = None,
) -> None:
    """Fit ``model`` in place on slides with class indices ``labels``; ``view(i)`` gives slide ``i``.

    Loss of a batch: ``cross_entropy(logits, labels) - entropy_weight * mean attention entropy``, and the squared error
    of the control variate where the model has one; with balanced ``class_weights`` the cross-entropy of a slide whose
    class ``n_c`` of ``n`` slides have counts ``n / (C n_c)`` times; AdamW with one cosine cycle. Goes on from
    ``checkpoint`` where one is, and leaves it there: it is the caller's once the model is saved. Patches are turned and
    mirrored at random, for tissue has no up, unless ``turn`` is False.

    Each of a model's M members has a loss of its own, in which a slide counts ``bags`` (slides, M) times, by default
    once. A model on a frozen encoder goes without patches for the first `COARSE_SHARE` of the epochs, while it does not
    know yet where to look.

    A slide that cannot be read is left out from then on and ``leave_out`` told of its index and why; what was learnt
    from it stays. The other slides keep their places in the order and their steps. Those of ``lost`` are never tried.

    Raises:
        UsageError: the steps are so large that the weights grow beyond all bounds.
    """
    chosen = find_device(device)
    slides = TrainingSlides(len(labels), view, leave_out, lost)
    if not checkpoint.exists():
        slides.phase = "the warm-up"
        if isinstance(model, EvidenceModel):
            first_guess(model, slides, labels, seed=seed, say=say)
        elif isinstance(model, ExhaustiveModel):
            first_guess_of_all(model, slides, labels, seed=seed, say=say)
        elif isinstance(model, AttentionSampler):
            warm_attention(model, slides, passes=warm_up, seed=seed, say=say)
            _standardise(model, slides, samples=samples, seed=seed)
    weights = torch.ones(len(labels), 1) if bags is None else bags
    if class_weights == "balanced":
        weights = weights * _slide_weights(torch.tensor(labels))[:, None]
    module = _Fitting(
        model,
        slides,
        torch.tensor(labels),
        weights,
        samples=samples,
        batch_size=batch_size,
        learning_rate=learning_rate,
        attention_rate=attention_rate,
        weight_decay=weight_decay,
        entropy_weight=entropy_weight,
        seed=seed,
        turn=turn,
        epochs=epochs,
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers that are not used here
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator=chosen.type,
            devices=1 if chosen.index is None else [chosen.index],
            gradient_clip_val=gradient_clip,
            callbacks=[_Tell(say), _Keep(checkpoint)],
            plugins=[_OnDisk()],
            enable_checkpointing=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
        )
        try:
            trainer.fit(module, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
        except SystemExit as ended:
            if not isinstance(ended.__context__, KeyboardInterrupt):
                raise
            # Lightning makes of Ctrl-C an exit with 1, which is that of slides that were left out
            raise KeyboardInterrupt from None


def _standardise(model: AttentionSampler, slides: TrainingSlides, *, samples: int, seed: int) -> None:
    order = torch.randperm(slides.count, generator=torch.Generator().manual_seed(seed)).tolist()
    some = [i for i in order if i not in slides.lost][:STANDARDISE_SLIDES]

    def act(kept: list[int], views: list[View]) -> None:
        model.standardise(views, samples=samples, generator=torch.Generator().manual_seed(seed))

    slides.attempt(some, act)


def _slide_weights(labels: Tensor) -> Tensor:
    """A weight for each slide (N,), with which all classes that there are weigh alike and the mean is 1."""
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    weights: Tensor = len(labels) / (len(counts) * counts[classes].float())
    return weights


class _Batches:
    """The epoch's slides in batches, in an order that the seed and the epoch alone decide."""

    def __init__(self, count: int, size: int, seed: int, epoch: int) -> None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        self._batches = [part.tolist() for part in order.split(size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


class _Fitting(lightning.LightningModule):
    def __init__(
        self,
        model: SlideModel,
        slides: TrainingSlides,
        labels: Tensor,
        weights: Tensor,
        *,
        samples: int,
        batch_size: int,
        learning_rate: float,
        attention_rate: float,
        weight_decay: float,
        entropy_weight: float,
        seed: int,
        turn: bool,
        epochs: int,
    ) -> None:
        super().__init__()
        self.model = model
        self._slides, self._labels, self._weights = slides, labels, weights
        self._samples, self._batch_size, self._seed, self._epochs = samples, batch_size, seed, epochs
        self._rates = (learning_rate * attention_rate, learning_rate)
        self._weight_decay, self._entropy_weight, self._turn = weight_decay, entropy_weight, turn
        self.losses: list[float] = []

    def train_dataloader(self) -> _Batches:
        return _Batches(len(self._labels), self._batch_size, self._seed, self.current_epoch)

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        # every step draws from its own seed, so that a resumed run draws what the uninterrupted one would have
        step_seed = (self._seed * 1_000_003 + self.current_epoch) * 1_000_003 + index
        self._slides.phase, self._slides.learnt = f"epoch {self.current_epoch + 1}", self.current_epoch > 0

        coarse = isinstance(self.model, EvidenceModel) and self.current_epoch < COARSE_SHARE * self._epochs
        samples = 0 if coarse else self._samples

        def act(kept: list[int], views: list[View]) -> Outcome:
            generator = torch.Generator(self.model.drawing_device).manual_seed(step_seed)
            augment = partial(turned, generator=generator) if self._turn else None
            return self.model(views, samples=samples, generator=generator, augment=augment)  # type: ignore[no-any-return]

        try:
            attempted = self._slides.attempt(batch, act)
        except ValueError as exc:
            self._refuse_divergence(exc)
            raise
        if attempted is None:
            return None  # Lightning goes on to the next step
        kept, found = attempted
        members = found.logits.shape[1]
        wanted = self._labels[kept].to(found.logits.device)[:, None].expand(-1, members)
        each = functional.cross_entropy(found.logits.movedim(1, 2), wanted, reduction="none")
        # torch's own weights cancel in a batch of one class
        loss = (each * self._weights[kept].to(each)).mean()
        if not bool(torch.isfinite(loss)):
            self._refuse_divergence()
        self.losses.append(float(loss.detach()))
        regularised: Tensor = (
            loss - self._entropy_weight * found.entropies.mean().to(loss) + found.control_error.to(loss)
        )
        return members * regularised  # each member learns as if it were alone

    def on_train_end(self) -> None:
        self._refuse_divergence()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["left_out"] = dict(self._slides.lost)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._slides.restore(checkpoint.get("left_out", {}))

    def _refuse_divergence(self, cause: Exception | None = None) -> None:
        # NaN compares false
        if not all(bool((values.detach().abs() < DIVERGED).all()) for values in self.model.state_dict().values()):
            epoch = min(self.current_epoch + 1, self.trainer.max_epochs or 1)
            raise UsageError(
                f"training diverged in epoch {epoch}: weights grew beyond all bounds; "
                f"lower training.learning_rate, found {self._rates[1]:g}"
            ) from cause

    def configure_optimizers(self) -> Any:
        nets = [module for module in (self.model.attention, self.model.inner) if module is not None]
        attention = [p for module in nets for p in module.parameters()]  # none in the maps that need no training
        chosen = {id(p) for p in attention}
        others = [p for p in self.model.parameters() if id(p) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": p, "lr": r} for p, r in zip((attention, others), self._rates, strict=True) if p
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self._weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        # OneCycleLR gives a single step no rate, and divides by zero where a rise of a tenth ends with the first step
        steps += steps in (1, 10)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Tell(Callback):
    """One line an epoch, with the time that is left."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._started, self._first = say, time.monotonic(), 0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._started, self._first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        done = trainer.current_epoch + 1
        left = (time.monotonic() - self._started) / (done - self._first) * (trainer.max_epochs - done)
        loss = sum(module.losses) / max(1, len(module.losses))
        module.losses.clear()
        self._say(f"epoch {done}/{trainer.max_epochs}: loss {loss:.3f}, {left:.0f} s left")


class _Keep(Callback):
    """What going on from the last finished epoch needs, after every epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.save_checkpoint(self._path)


class _OnDisk(CheckpointIO):
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
        with Path(path).open("rb") as file:
            loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
