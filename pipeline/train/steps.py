"""The steps of a training: what an epoch takes in which order, and what a step learns from its batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import Outcome, View
from pipeline.train.checkpoints import written
from pipeline.train.read_ahead import ReadAhead
from pipeline.train.share import Share
from pipeline.train.slides import Told, TrainingSlides
from stages.augmentation import Augmentation
from stages.encoder.tuned import TunedEncoder
from stages.torchvision import admit_torchvision

with warnings.catch_warnings():  # other people's deprecations, at import
    warnings.simplefilter("ignore")
    admit_torchvision()
    import lightning

Batch = list[int]

COARSE_SHARE = 0.3
"""Of the epochs: in these a model on a frozen encoder learns from the coarse scale alone."""
RATE_DECAY = 0.65
"""Step size of a pretrained encoder's block as a share of the block's above it (as BEiT and MAE tune: 0.65 to 0.75)."""
APART = 500_009
"""Between a step's seeds, which are one apart in an epoch."""
DIVERGED = 1e10
"""A weight beyond this is no use to anyone."""
SMALLEST_SCALE = 1.0
"""Of the loss in float16: gradients that overflow below it are no fault of float16's."""
NAMED = 8
"""Slides of a batch that are named at most."""


class DivergedError(UsageError):
    """The steps were too large: what was learnt until the last finished epoch stands in the checkpoint."""


class Batches:
    """The epoch's slides in batches, in an order that the seed and the epoch alone decide."""

    def __init__(self, count: int, size: int, seed: int, epoch: int) -> None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        self._batches = [part.tolist() for part in order.split(size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def after(self, index: int, count: int) -> list[Batch]:
        """So many batches from one on, or those that are left."""
        return self._batches[index : index + count]


@dataclass(frozen=True, slots=True)
class Part:
    """What one process makes of its part of a batch.

    Attributes:
        slides: those of it that could be read.
        outcome: theirs; None where there are none.
        lost: why slides are left out, as far as this process knows.
    """

    slides: list[int]
    outcome: Outcome | None
    lost: Told

    def told(self) -> Part:
        """As others are told of it, who need no gradients."""
        found = None if self.outcome is None else Outcome(*(values.detach().cpu() for values in self.outcome))
        return Part(self.slides, found, self.lost)


class Fitting(lightning.LightningModule):
    """The steps of one process; of several each takes a part of every batch, and the loss of all is the loss of each.

    What a slide draws is by a generator of its own, from the step and its place in the batch: however a batch is parted
    the same is learnt. Every process has the logits of all, and the gradient through its own; their sum is that of all.
    """

    def __init__(
        self,
        model: SlideModel,
        slides: TrainingSlides,
        targets: Tensor,
        weights: Tensor,
        *,
        names: Sequence[str],
        checkpoint: Path,
        samples: int,
        batch_size: int,
        accumulate: int,
        learning_rate: float,
        attention_rate: float,
        weight_decay: float,
        entropy_weight: float,
        seed: int,
        augmentation: Augmentation,
        noise: float,
        dropout: float,
        epochs: int,
        read_ahead: int,
        share: Share,
        held_out: TrainingSlides | None,
    ) -> None:
        super().__init__()
        self.model = model
        self._slides, self._targets, self._weights = slides, targets, weights
        self._names, self._checkpoint = names, checkpoint
        self._samples, self._batch_size, self._seed, self._epochs = samples, batch_size, seed, epochs
        self._rates = (learning_rate * attention_rate, learning_rate)
        self._weight_decay, self._entropy_weight = weight_decay, entropy_weight
        self._augmentation = None if augmentation == Augmentation.none() else augmentation
        self._noise, self._dropout = noise, dropout
        self._accumulate, self._share, self._held_out = accumulate, share, held_out
        self._planned = 0
        self._ahead, self._steps_ahead = ReadAhead(model, slides) if read_ahead else None, read_ahead
        self._batch: Batch = []
        self._group: Batch = []
        self._losses: list[tuple[Tensor, Tensor]] = []

    @property
    def samples(self) -> int:
        """Patches of a slide in this epoch."""
        coarse = isinstance(self.model, EvidenceModel) and self.current_epoch < COARSE_SHARE * self._epochs
        return 0 if coarse else self._samples

    def train_dataloader(self) -> Batches:
        self._batches = self._batches_of(self.current_epoch)
        return self._batches

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        step, step_seed = (self.current_epoch, index), self._step_seed(self.current_epoch, index)
        self._slides.phase, self._slides.learnt = f"epoch {self.current_epoch + 1}", self.current_epoch > 0
        self._batch = batch
        # of what was drawn ahead, the first numbers of the step's own are spent
        generators = self._generators(step_seed if self._ahead is None else step_seed + APART, batch)

        def act(kept: list[int], views: list[View]) -> Outcome:
            varied: dict[str, Any] = {"augment": self._augmentation, "noise": self._noise, "dropout": self._dropout}
            if self._ahead is not None:
                views, varied["draws"] = self._ahead.take(step, kept, views)
            return self.model(views, samples=self.samples, generator=generators(kept), **varied)  # type: ignore[no-any-return]

        try:
            if self._ahead is not None:
                self._read_ahead(self.current_epoch, index + self._steps_ahead)
            attempted = self._slides.attempt(self._share.of(batch), act)
        except ValueError as exc:
            self.refuse_divergence(exc)
            raise
        finally:
            if self._ahead is not None:
                self._ahead.done(step)
        own, outcome = attempted or ([], None)
        parts = self._gathered(Part(own, outcome, self._slides.told))
        if index % self._accumulate == 0:
            group = [i for one in self._batches.after(index, self._accumulate) for i in one]
            self._planned, self._group = sum(i not in self._slides.lost for i in group), []
        kept = [i for part in parts for i in part.slides]
        if not kept:
            return self._nothing() if self._share.size > 1 else None  # Lightning goes on to the next step
        self._batch = kept
        self._group += kept
        found = _together(parts, self.model.drawing_device)
        members = found.logits.shape[1]
        # torch's own weights cancel in a batch of one class
        weights = self._weights[kept].to(found.logits)
        each = self.model.readout.nll(found.logits, self._targets[kept], weights)
        loss = (each * weights).mean()
        regularised: Tensor = (
            loss - self._entropy_weight * found.entropies.mean().to(loss) + found.control_error.to(loss)
        )
        if not bool(torch.isfinite(regularised)):
            self.refuse_divergence()
            well = each.isfinite().all(1).tolist()
            self._end("the loss is not a number", [i for i, one in zip(kept, well, strict=True) if not one])
        self._losses.append((self._told(found.logits, kept, each, weights).cpu(), weights.cpu()))
        # each member learns as if it were alone; Lightning divides by the number of batches of a step
        share = self._accumulate * len(kept) / self._planned if self._accumulate > 1 else 1.0
        learnt = share * members * regularised
        return learnt if attempted is not None else learnt + self._nothing()

    @torch.no_grad()
    def _told(self, logits: Tensor, slides: list[int], each: Tensor, weights: Tensor) -> Tensor:
        """The losses ``each`` (B, M); of a slide that a member is not fitted to as if it were, among all of its step,
        where the loss depends on those that it is told with."""
        if bool((weights > 0).all()):
            return each.detach()
        as_if = self.model.readout.nll(logits, self._targets[slides], torch.ones_like(weights))
        return torch.where(weights > 0, each, as_if)

    def _gathered(self, own: Part) -> list[Part]:
        """The parts of all processes; what one of them leaves out all do."""
        if self._share.size == 1:
            return [own]
        parts = self._share.gather(own.told())
        parts[self._share.rank] = own
        # DDP takes the mean over processes; what each has whole, as a read-out, is so right
        for values in own.outcome or ():
            if values.requires_grad:
                values.register_hook(lambda gradient: gradient * self._share.size)
        for part in parts:
            self._slides.restore(part.lost)
        return parts

    def _nothing(self) -> Tensor:
        """0, of which every parameter has the gradient 0: DDP waits for those of all."""
        return torch.stack([p.flatten()[:0].sum() for p in self.model.parameters() if p.requires_grad]).sum()

    def _generators(self, seed: int, batch: Batch) -> Callable[[Sequence[int]], list[torch.Generator]]:
        """What gives slides of a batch their generators: each by its place in it, whoever else is drawn."""
        drawn = torch.randint(2**32, (len(batch),), generator=torch.Generator().manual_seed(seed))
        seeds = dict(zip(batch, drawn.tolist(), strict=True))
        device = self.model.drawing_device
        return lambda slides: [torch.Generator(device).manual_seed(seeds[i]) for i in slides]

    def on_train_epoch_start(self) -> None:
        for index in range(self._steps_ahead):
            self._read_ahead(self.current_epoch, index)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """What the next epoch begins with is read while this one is judged; its weights are those that it begins with,
        so that a fit which goes on from here draws the same."""
        if batch_idx == len(self._batches) - 1 and self.current_epoch + 1 < self._epochs:
            for index in range(self._steps_ahead):
                self._read_ahead(self.current_epoch + 1, index)

    def close(self) -> None:
        """Read nothing more ahead."""
        if self._ahead is not None:
            self._ahead.close()

    def _read_ahead(self, epoch: int, index: int) -> None:
        batches = self._batches if epoch == self.current_epoch else self._batches_of(epoch)
        for batch in batches.after(index, 1):
            assert self._ahead is not None
            self._slides.phase = f"epoch {epoch + 1}"
            generators = self._generators(self._step_seed(epoch, index), batch)
            try:
                self._ahead.begin((epoch, index), self._share.of(batch), samples=self._samples, generators=generators)
            except ValueError as exc:  # there is no drawing from attention that is no number
                self.refuse_divergence(exc)
                raise

    def _step_seed(self, epoch: int, index: int) -> int:
        """Every step draws from its own seed, so that a resumed run draws what the uninterrupted one would have."""
        return (self._seed * 1_000_003 + epoch) * 1_000_003 + index

    def _batches_of(self, epoch: int) -> Batches:
        return Batches(len(self._targets), self._batch_size, self._seed, epoch)

    def epoch_losses(self) -> tuple[float, float, float | None]:
        """Of the epoch: mean loss over the slides by their weights, its standard error, and that of members on the
        slides that they are not fitted to; begins anew."""
        if not self._losses:
            return math.nan, math.nan, None
        each, weights = (torch.cat(parts).double() for parts in zip(*self._losses, strict=True))
        self._losses.clear()
        of_slides = weights.sum(1)
        loss = float((each * weights).sum() / of_slides.sum())
        spread = (((each * weights).sum(1) - loss * of_slides) / of_slides.mean()).square().mean().sqrt()
        unseen = weights == 0
        return (
            loss,
            float(spread) / math.sqrt(len(each)),
            float(each[unseen].mean()) if bool(unseen.any()) else None,
        )

    def on_train_start(self) -> None:
        """A fit that goes on after it diverged has a lower rate than what is stored of it."""
        optimizer: Any = self.optimizers()
        for group, rate in zip(optimizer.param_groups, [group["lr"] for group in self._groups()], strict=True):
            times = rate / group["max_lr"]
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                group[name] *= times

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if not self._group:  # none of its slides could be read: there is no step
            optimizer.zero_grad()
            return
        if self._accumulate > 1 and len(self._group) < self._planned:  # some were left out meanwhile
            for p in self.model.parameters():
                if p.grad is not None:
                    p.grad *= self._planned / len(self._group)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() >= SMALLEST_SCALE:
            return  # of float16 some overflow: that step is left out, and the next ones are scaled less
        norms = [p.grad.norm() for p in self.model.parameters() if p.grad is not None]
        if norms and not bool(torch.stack(norms).isfinite().all()):
            self._end("the gradient is not a number", self._group)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["left_out"] = self._slides.told
        checkpoint["left_out_of_validation"] = {} if self._held_out is None else self._held_out.told

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._slides.restore(checkpoint.get("left_out", {}))
        if self._held_out is not None:
            self._held_out.restore(checkpoint.get("left_out_of_validation", {}))

    def refuse_divergence(self, cause: Exception | None = None) -> None:
        """End where a weight is beyond all use."""
        # NaN compares false
        if not all(bool((values.detach().abs() < DIVERGED).all()) for values in self.model.state_dict().values()):
            self._end("weights grew beyond all bounds", self._batch, cause)

    def _end(self, what: str, blamed: Sequence[int], cause: Exception | None = None) -> NoReturn:
        named = ", ".join(self._names[i] for i in blamed[:NAMED]) + ", ..." * (len(blamed) > NAMED)
        alone = ""
        if len(blamed) < len(self._batch):
            alone = "the others of its batch are well, so look at what is wrong there, or "
        epoch, rate = min(self.current_epoch + 1, self._epochs), self._rates[1]
        lower = f"{alone}run it again with a lower training.learning_rate, found {rate:g}"
        there = written(self._checkpoint)
        stands = (
            f"the weights of epoch {epoch - 1} stand in {there[0]}: {lower}: it goes on from there"
            if epoch > 1 and there
            else f"no epoch was finished, so nothing is kept: {lower}"
        )
        raise DivergedError(f"training diverged in epoch {epoch}: {what}, at {named}; {stands}") from cause

    def _groups(self) -> list[dict[str, Any]]:
        """What learns at which rate: the attention nets, a tuned encoder's blocks, and all the rest."""
        nets = [module for module in (self.model.attention, self.model.inner) if module is not None]
        attention = [p for module in nets for p in module.parameters()]  # none in the maps that need no training
        encoder = self.model.encoder if isinstance(self.model, AttentionSampler) else None
        tuned = encoder.parameter_groups(self._rates[1], RATE_DECAY) if isinstance(encoder, TunedEncoder) else []
        chosen = {id(p) for p in attention} | {id(p) for group in tuned for p in group["params"]}
        others = [p for p in self.model.parameters() if id(p) not in chosen and p.requires_grad]
        both = zip((attention, others), self._rates, strict=True)
        return [*({"params": parameters, "lr": rate} for parameters, rate in both if parameters), *tuned]

    def configure_optimizers(self) -> Any:
        groups = self._groups()
        optimizer = torch.optim.AdamW(groups, weight_decay=self._weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        # OneCycleLR gives a single step no rate, and divides by zero where a rise of a tenth ends with the first step
        steps += steps in (1, 10)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _together(parts: Sequence[Part], device: torch.device) -> Outcome:
    """The outcome of the slides of all parts."""
    found = [(len(part.slides), part.outcome) for part in parts if part.outcome is not None]
    if len(found) == 1:
        return found[0][1]
    total = sum(count for count, _ in found)
    return Outcome(
        torch.cat([one.logits.to(device) for _, one in found]),
        torch.cat([one.entropies.to(device) for _, one in found]),
        torch.stack([one.control_error.to(device) * (count / total) for count, one in found]).sum(),
    )
