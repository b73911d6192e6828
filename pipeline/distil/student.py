"""The student's fit: where the teacher looks is told by its attention over all tiles of a slide."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.amounts import counted
from stages.mil.student import Foretold, Student, log_proposal
from stages.mil.teacher import AttentionTeacher

RATE = 3e-3
WEIGHT_DECAY = 0.1
BATCH = 8
"""Slides of a step."""
LOOKS = 0.3
"""Weight of the cross-entropy to the teacher's attention beside the log of the variance."""
FLOOR = 1e-3
"""Variance of the log-odds below which less is no gain."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a slide teaches.

    Attributes:
        context: (n, inputs), what the coarse scale tells of its tiles.
        attention: (n,), the teacher's, the mean of all its softmaxes.
        moved: (n, C), how the logits move with each tile's weight, but for what all classes share.
    """

    context: Tensor
    attention: Tensor
    moved: Tensor


@torch.no_grad()
def lesson(context: Tensor, features: Tensor, teacher: AttentionTeacher) -> Lesson:
    """What a slide teaches, from the features (n, D) of its tiles."""
    scores, said = teacher(features)
    attention = scores.softmax(0)  # (n, R)
    total = (attention.unsqueeze(2) * said).sum(0)
    moved = (attention.unsqueeze(2) * (said - total)).sum(1)
    return Lesson(context, attention.mean(1), moved - moved.mean(1, keepdim=True))


def fit_member(
    student: Student,
    member: int,
    lessons: Sequence[Lesson],
    guides: Sequence[Lesson],
    *,
    uniform: float,
    epochs: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Fit one member in place; the epoch is kept after which one patch tells most of the ``guides``' slides.

    Loss of a slide: ``log sum_i |r_i|^2 / q_i``, the variance of a draw of one patch, whose q are the student's and
    whose ``r_i`` is what it does not foretell of how tile i moves the logits; and the cross-entropy of its attention to
    the teacher's.
    """
    torch.manual_seed(seed + member)
    generator = torch.Generator().manual_seed(seed + member)
    own = student.members[member]
    steps = -(-len(lessons) // BATCH)
    optimizer = torch.optim.AdamW(own.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps + 1, pct_start=0.1)
    best, kept = float("inf"), copy.deepcopy(own.state_dict())
    for _ in range(epochs):
        student.train()
        for batch in torch.randperm(len(lessons), generator=generator).split(BATCH):
            losses = [_loss(student(lessons[i].context, member), lessons[i], uniform) for i in batch.tolist()]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            schedule.step()
        student.eval()
        with torch.no_grad():
            judged = float(
                torch.stack([_variance(student(one.context, member), one, uniform).log() for one in guides]).mean()
            )
        if judged < best:
            best, kept = judged, copy.deepcopy(own.state_dict())
    own.load_state_dict(kept)
    student.eval()
    even = torch.stack([(len(one.moved) * one.moved.square().sum() + FLOOR).log() for one in guides]).mean()
    worth = float((even - best).exp())
    others = counted(len(guides), "other")
    say(
        f"student, member {member + 1}: fitted to {counted(len(lessons), 'slide')}; on {others} a patch that it draws "
        f"tells as much as {worth:.3g} drawn evenly"
    )


def _variance(foretold: Foretold, one: Lesson, uniform: float) -> Tensor:
    b, u = foretold.log_attention.exp().unsqueeze(1), foretold.said
    own = b * (u - (b * u).sum(0))
    left = one.moved - (own - own.mean(1, keepdim=True))
    found: Tensor = (left.square().sum(1) / log_proposal(foretold, uniform).exp().to(left)).sum() + FLOOR
    return found


def _loss(foretold: Foretold, one: Lesson, uniform: float) -> Tensor:
    looks = -(one.attention * foretold.log_attention).sum()
    loss: Tensor = _variance(foretold, one, uniform).log() + LOOKS * looks
    return loss
