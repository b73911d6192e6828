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

from pipeline.cohort.cohort import CohortSlide
from pipeline.model.build import Ensemble
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.values import View
from pipeline.task.task import Task
from pipeline.train.slides import TrainingSlides

KEENNESS = 2.0
"""A member's share falls by e for each 1 / 2 of loss above the best one's: 1 to 4 did as well on three cohorts; 16 does
hardly more than to choose one."""


@dataclass(frozen=True, slots=True)
class OutOfBag:
    """What members say of slides that they were not fitted to.

    Attributes:
        slides: the n slides that some member never saw, by their index.
        values: (n, T), as the read-out tells them.
        spread: standard deviation among the members of the read-out's statistics, mean over slides.
    """

    slides: list[int]
    values: Tensor
    spread: float


def draw_bags(patients: Sequence[str], strata: Sequence[str | int], members: int, *, seed: int) -> Tensor:
    """How often each member sees each slide, (slides, members): patients drawn with replacement, from those whose
    slides are of the same strata, as their classes are.

    So no patient is parted, and every member sees every stratum; one member alone sees every slide once.
    """
    if members == 1:
        return torch.ones(len(strata), 1)
    generator = torch.Generator().manual_seed(seed)
    classes: dict[str, set[str | int]] = {}
    for patient, label in zip(patients, strata, strict=True):
        classes.setdefault(patient, set()).add(label)
    place = {patient: i for i, patient in enumerate(classes)}
    drawn = torch.zeros(len(place), members)
    for kind in sorted({tuple(sorted(found)) for found in classes.values()}):
        of_kind = torch.tensor([place[patient] for patient, found in classes.items() if found == set(kind)])
        for member in range(members):
            chosen = torch.randint(len(of_kind), (len(of_kind),), generator=generator)
            drawn[of_kind, member] += torch.bincount(chosen, minlength=len(of_kind))
    return drawn[[place[patient] for patient in patients]]


def bagged(slides: Sequence[CohortSlide], task: Task, members: int, *, seed: int) -> tuple[Tensor, list[str], Tensor]:
    """Targets of slides (n, ...), whose they are, and how often each member sees each: see `draw_bags`."""
    targets = task.tensor([slide.cells(task.labels) for slide in slides])
    patients = [slide.patient or slide.slide_id for slide in slides]
    strata = targets.tolist() if task.kind == "classification" else [slide.stratum for slide in slides]
    return targets, patients, draw_bags(patients, strata, members, seed=seed)


@torch.no_grad()
def settle(
    model: Ensemble,
    slides: TrainingSlides,
    targets: Tensor,
    patients: Sequence[str],
    bags: Tensor,
    *,
    samples: int,
    seed: int,
) -> OutOfBag:
    """Let members count by how well they do on the slides that they did not see, and tell what they say of those."""
    logits: dict[int, Tensor] = {}
    for i in range(slides.count):

        def act(kept: list[int], views: list[View]) -> Tensor:
            if isinstance(model, ExhaustiveModel):
                return model.ask(views[0], model.encode_all(views[0]), each=True).known.cpu()
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
    all_logits = torch.stack([logits[i] for i in rows])
    unseen = bags[rows] == 0  # (n, K)
    members = unseen.shape[1]
    readout = model.readout
    loss = readout.nll(all_logits, targets[rows], unseen.to(all_logits)).to(all_logits)
    share = _shares(loss, unseen)
    if bool(share.any()):
        model.heads.share.copy_(share.to(model.heads.share))
    weights = judging_shares(loss, unseen, [patients[i] for i in rows])
    told = weights.sum(1) > 0
    together = (weights[..., None] * all_logits).sum(1) / weights.sum(1).clamp(min=1e-12)[:, None]
    return OutOfBag(
        [i for i, one in zip(rows, told.tolist(), strict=True) if one],
        readout.told(together[told]),
        float(readout.statistics(all_logits).std(1).mean()) if members > 1 else 0.0,
    )


def judging_shares(loss: Tensor, unseen: Tensor, patients: Sequence[str]) -> Tensor:
    """How much each of K members counts in what is told of each of n slides, (n, K): those that did not see it, by how
    well they do on unseen slides of other patients.

    Were the slide itself among those, the luckiest of many members would make guesses look much better than chance:
    with 16 members that guess 44 slides, an AUROC of .70.

    Args:
        loss: (n, K).
        unseen: (n, K), which slides a member was not fitted to.
        patients: whose slide it is, (n,).
    """
    others = torch.tensor([[one != own for one in patients] for own in patients])  # (n, n)
    return torch.stack([unseen[i] * _shares(loss, unseen & others[i][:, None]) for i in range(len(loss))])


def _shares(loss: Tensor, unseen: Tensor) -> Tensor:
    """How much each of K members counts, by its losses (n, K) on slides that it did not see; 0 of one that saw all."""
    judged = unseen.any(0)
    if not bool(judged.any()):
        return torch.zeros(loss.shape[1])
    mean = (loss * unseen).sum(0) / unseen.sum(0).clamp(min=1)
    share = torch.where(judged, torch.exp(-KEENNESS * (mean - mean[judged].min())), 0.0)
    return share / share.sum()
