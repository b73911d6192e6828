"""A teacher where a user has none: gated attention MIL on the bags, by slide labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.train.bagging import draw_bags
from stages.context import Whitening
from stages.evidence import directions_kept
from stages.mil.pooling import GatedPooling
from stages.mil.teacher import AttentionTeacher, teacher_of

RATE = 3e-3
WEIGHT_DECAY = 1e-2
DROPOUT = 0.2
BATCH = 8
"""Slides of a step."""
COMPONENTS = 128
"""Directions of the features that it learns from: the most varied."""


def train_teacher(
    bags: Callable[[int], Tensor],
    labels: Sequence[int],
    patients: Sequence[str],
    *,
    classes: int,
    members: int,
    epochs: int,
    seed: int,
) -> AttentionTeacher:
    """Fit ``members`` gated attentions, each to its own bootstrap of the patients, and average their logits.

    Unlike `ExhaustiveModel` it takes no slide's own mean out of its features: these are told only by all tiles.

    Args:
        bags: features (n, D) of slide ``i``; called for each twice.
        labels, patients: of the slides.
        classes, members, epochs, seed: as named.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    whitening = Whitening(bags(0).shape[1], COMPONENTS)
    whitening.fit((bags(i) for i in range(len(labels))), within=True)
    slides = [whitening(bags(i)) for i in range(len(labels))]
    components = len(whitening.basis)
    heads = GatedPooling(members=members, classes=classes, components=components)
    counts = draw_bags(patients, labels, members, seed=seed)
    steps = -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps + 1, pct_start=0.1)
    nowhere = torch.ones(1, 1, dtype=torch.bool)  # where cells lie is nothing to it
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            loss = torch.zeros(())
            for i in batch.tolist():
                keep = directions_kept(members, components, DROPOUT, generator)
                logits = heads(slides[i], nowhere, keep).logits
                wanted = torch.full((members,), labels[i])
                loss = loss + (functional.cross_entropy(logits, wanted, reduction="none") * counts[i]).sum()
            optimizer.zero_grad()
            (loss / len(batch)).backward()
            optimizer.step()
            schedule.step()
    return teacher_of(heads, whitening)
