"""Training and prediction, the same for every model of the paper's tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.paper.layers import Batch, Classifier, Output
from stages.sampling.draw import entropy


class Source(Protocol):
    """Images by number; with a generator they come augmented."""

    def __call__(self, items: Sequence[int], generator: torch.Generator | None) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a model is trained.

    Attributes:
        epochs, batch_size: passes over the images, images in a step.
        learning_rate: peak of AdamW; a linear rise over the first tenth, then half a cosine down to 0.
        attention_rate: the same for the attention over the low view, as a multiple of it.
        weight_decay: of AdamW.
        entropy_weight: the loss is cross-entropy ``- entropy_weight * mean entropy of the attention`` in nats.
        gradient_clip: largest norm of a gradient.
        average: share of the last steps whose weights are averaged into the model; 0 keeps the last ones.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    attention_rate: float = 1.0
    weight_decay: float = 1e-2
    entropy_weight: float = 1e-2
    gradient_clip: float = 1.0
    average: float = 0.0


def fit(
    model: Classifier,
    source: Source,
    items: Sequence[int],
    labels: Tensor,
    fitting: Fitting,
    *,
    seed: int,
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> float:
    """Train ``model`` in place on images ``items`` with class indices ``labels`` (of the same length).

    Args:
        progress: called after each epoch with its number from 1 and its mean loss.

    Returns:
        The mean cross-entropy of the last epoch.
    """
    shuffling = torch.Generator().manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    model.to(device).train()
    some = torch.randperm(len(items), generator=shuffling)[:16].tolist()
    model.standardise(source([items[i] for i in some], None), generator)
    attending = [p for name, p in model.named_parameters() if name.startswith("attention.")]
    others = [p for name, p in model.named_parameters() if not name.startswith("attention.")]
    groups = [{"params": others, "scale": 1.0}, {"params": attending, "scale": fitting.attention_rate}]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=fitting.learning_rate, weight_decay=fitting.weight_decay, fused=True
    )
    total = fitting.epochs * math.ceil(len(items) / fitting.batch_size)
    averaging = _Averaging(model)
    step, loss_of_epoch = 0, math.nan
    for epoch in range(fitting.epochs):
        losses = []
        for chosen in torch.randperm(len(items), generator=shuffling).split(fitting.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = fitting.learning_rate * group["scale"] * _schedule(step, total)
            batch = source([items[i] for i in chosen.tolist()], shuffling)
            losses.append(train_step(model, batch, labels[chosen].to(device), optimizer, fitting, generator))
            step += 1
            if step > (1 - fitting.average) * total:
                averaging.add(model)
        loss_of_epoch = float(torch.stack(losses).mean())
        if progress is not None:
            progress(epoch + 1, loss_of_epoch)
    if fitting.average > 0:
        averaging.into(model)
    return loss_of_epoch


def train_step(
    model: Classifier,
    batch: Batch,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    fitting: Fitting,
    generator: torch.Generator,
) -> Tensor:
    """One step of the optimiser; the batch's cross-entropy."""
    output: Output = model(batch, generator)
    error = functional.cross_entropy(output.logits, labels)
    loss = error
    if fitting.entropy_weight and output.log_attention is not None:
        loss = error - fitting.entropy_weight * entropy(output.log_attention).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), fitting.gradient_clip)
    optimizer.step()
    return error.detach()


@torch.no_grad()
def predict(
    model: Classifier,
    source: Source,
    items: Sequence[int],
    *,
    seed: int,
    batch_size: int = 10,
    draws: int = 1,
    augmented: bool = False,
    device: str = "cpu",
) -> Tensor:
    """Class probabilities (len(items), classes), from logits averaged over ``draws`` independent draws.

    Args:
        augmented: each draw sees the images augmented anew.
    """
    generator = torch.Generator(device).manual_seed(seed)
    augmenting = torch.Generator().manual_seed(seed) if augmented else None
    model.to(device).eval()
    found = []
    for chosen in torch.arange(len(items)).split(batch_size):
        some = [items[i] for i in chosen.tolist()]
        logits = torch.stack([model(source(some, augmenting), generator).logits for _ in range(draws)]).mean(0)
        found.append(logits.softmax(1).cpu())
    return torch.cat(found)


def _schedule(step: int, total: int) -> float:
    rise = max(1, total // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


class _Averaging:
    """Running mean of a model's parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.mean = [torch.zeros_like(p) for p in model.parameters()]
        self.count = 0

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        self.count += 1
        for mean, p in zip(self.mean, model.parameters(), strict=True):
            mean.lerp_(p.detach(), 1 / self.count)

    @torch.no_grad()
    def into(self, model: nn.Module) -> None:
        for mean, p in zip(self.mean, model.parameters(), strict=True):
            p.copy_(mean)
