"""Members of an ensemble: each learns from a part of the patients, and is judged by the others.

Weak labels on a few dozen slides swing by three tenths of AUROC between seeds. Each member is fitted to a bootstrap of
the patients (bagging: Breiman, 1996); the patients that it never saw, a third, tell how good it is, and by that it
counts. Together these out-of-bag predictions say how good the model is, without a slide being held out for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.values import View
from pipeline.train.slides import TrainingSlides

KEENNESS = 16.0
"""A member's share falls by e for each 1 / 16 of loss above the best one's."""


@dataclass(frozen=True, slots=True)
class OutOfBag:
    """What members say of slides that they were not fitted to.

    Attributes:
        slides: the n slides that some member never saw, by their index.
        probabilities: (n, C).
        spread: standard deviation among the members of the log-odds of a slide's own class, mean over slides.
    """

    slides: list[int]
    probabilities: Tensor
    spread: float


def draw_bags(patients: Sequence[str], labels: Sequence[int], members: int, *, seed: int) -> Tensor:
    """How often each member sees each slide, (slides, members): patients of each class drawn with replacement.

    A patient's class is that of the first of their slides. Every member sees every class; one member sees all once.
    """
    if members == 1:
        return torch.ones(len(labels), 1)
    generator = torch.Generator().manual_seed(seed)
    first = dict(reversed(list(zip(patients, labels, strict=True))))
    place = {patient: i for i, patient in enumerate(first)}
    drawn = torch.zeros(len(place), members)
    for kind in sorted(set(labels)):
        of_kind = torch.tensor([place[p] for p, label in first.items() if label == kind], dtype=torch.int64)
        if not len(of_kind):
            continue
        for member in range(members):
            chosen = torch.randint(len(of_kind), (len(of_kind),), generator=generator)
            drawn[of_kind, member] += torch.bincount(chosen, minlength=len(of_kind))
    return drawn[[place[patient] for patient in patients]]


@torch.no_grad()
def settle(
    model: EvidenceModel, slides: TrainingSlides, labels: Sequence[int], bags: Tensor, *, samples: int, seed: int
) -> OutOfBag:
    """Let members count by how well they do on the slides that they did not see, and tell what they say of those."""
    logits: dict[int, Tensor] = {}
    for i in range(slides.count):

        def act(kept: list[int], views: list[View]) -> Tensor:
            generator = torch.Generator(model.drawing_device).manual_seed(seed + kept[0])
            map_ = model.ask(views[0], each=True)
            if not samples:
                return map_.known.cpu()
            (drawn,) = model.draw(views, [map_], samples=samples, generator=generator, judged=False)
            said = drawn.say(model.encode(views[0], drawn.cells[0].cpu().numpy())[None])
            return drawn.logits(said)[0].cpu()

        found = slides.attempt([i], act)
        if found is not None:
            logits[i] = found[1]
    rows = sorted(logits)
    all_logits, wanted = torch.stack([logits[i] for i in rows]), torch.tensor([labels[i] for i in rows])
    unseen = bags[rows] == 0  # (n, K)
    members = unseen.shape[1]
    loss = functional.cross_entropy(all_logits.movedim(1, 2), wanted[:, None].expand(-1, members), reduction="none")
    judged = unseen.any(0)
    mean = (loss * unseen).sum(0) / unseen.sum(0).clamp(min=1)
    if bool(judged.any()):
        best = mean[judged].min()
        share = torch.where(judged, torch.exp(-KEENNESS * (mean - best)), 0.0)
        model.heads.share.copy_((share / share.sum()).to(model.heads.share))
    weights = unseen * model.heads.share.cpu()
    told = weights.sum(1) > 0
    together = (weights[..., None] * all_logits).sum(1) / weights.sum(1).clamp(min=1e-12)[:, None]
    odds = all_logits.log_softmax(2).gather(2, wanted[:, None, None].expand(-1, members, 1))[..., 0]
    return OutOfBag(
        [i for i, one in zip(rows, told.tolist(), strict=True) if one],
        together[told].softmax(1),
        float(odds.std(1).mean()) if members > 1 else 0.0,
    )
