"""How near a distilled model is to its teacher, by how many patches it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.distilled_model import DistilledModel
from pipeline.model.values import View
from pipeline.statistics.paired import auroc_difference
from pipeline.train.calibrate import drawn_errors
from stages.prediction.intervals import UNFITTED
from stages.sampling.schemes import SCHEMES

DRAWS = 20
"""Draws of every slide at every budget."""
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Of a slide's patches: the budgets that are looked at, beside the model's own."""
FEWEST = 4


def budgets(model: DistilledModel, tiles: Sequence[int]) -> list[int]:
    """Patches to read: the model's own number and `SHARES` of the median slide."""
    usual = float(np.median(tiles))
    wanted = {model.spec.samples, *(max(FEWEST, round(share * usual)) for share in SHARES)}
    return sorted(n for n in wanted if n < usual and SCHEMES[model.spec.scheme].judges(n))


def fidelity(
    model: DistilledModel,
    slides: Sequence[tuple[str, str, str]],
    views: Sequence[Callable[[], View]],
    *,
    counts: Sequence[int],
    seed: int,
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float64]]]:
    """Draw every slide again and again, and compare with the teacher on all its tiles.

    Args:
        model: distilled.
        slides: id, patient and label of each.
        views: whose features are known for all tiles.
        counts: the budgets.
        seed: of the draws.

    Returns:
        A row for each budget: ``samples``, ``share_read``, ``auroc_teacher``, ``auroc`` (mean over draws), their
        ``difference`` with its paired 95 % interval by patient (means over draws), ``mean_abs_dp`` and
        ``agreement`` of decisions at .5, or of the most probable class, and ``coverage``, in how many draws the stated
        95 % interval held the teacher's probability; and the teacher's probabilities (C,) by slide.
    """
    generator = torch.Generator(model.drawing_device).manual_seed(seed)
    found: dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {n: [] for n in counts}
    exact, tiles = [], []
    rule = model.calibration or UNFITTED
    for view in views:
        shown = view()
        drawn = drawn_errors(model, shown, counts, draws=DRAWS, generator=generator)
        tiles.append(int(shown.tissue.sum()))
        whole = model.sample(shown, generator=generator, samples=tiles[-1])
        exact.append(whole.prediction.values.numpy())
        for n in counts:
            if n not in drawn:  # a slide of no more tiles is read whole
                found[n].append((np.tile(exact[-1], (DRAWS, 1)), np.ones(DRAWS)))
                continue
            evidence, errors = drawn[n]
            held = (errors.abs() <= rule.half_width(evidence, n)).all(1).double().numpy()
            found[n].append((torch.sigmoid(evidence.statistics).numpy(), held))
    teacher = np.stack(exact)
    classes, patients = model.spec.classes, [patient for _, patient, _ in slides]
    labels = [classes.index(label) for _, _, label in slides]
    rows = []
    for n, parts in found.items():
        p = np.stack([one for one, _ in parts])  # (slides, DRAWS, C)
        rows.append(
            {
                "samples": n,
                "share_read": float(np.mean([min(1, n / count) for count in tiles])),
                **_aurocs(labels, p, teacher, patients),
                "mean_abs_dp": float(np.abs(p - teacher[:, None]).max(2).mean()),
                "agreement": float((p.argmax(2) == teacher.argmax(1)[:, None]).mean()),
                "coverage": float(np.mean([held for _, held in parts])),
            }
        )
    return rows, {name: one for (name, _, _), one in zip(slides, teacher, strict=True)}


def _aurocs(
    labels: Sequence[int], p: NDArray[np.float64], teacher: NDArray[np.float64], patients: Sequence[str]
) -> dict[str, float | None]:
    """AUROCs, and their difference with its interval: means over the draws."""
    nothing = np.full_like(teacher, 1 / teacher.shape[1])
    whole = auroc_difference(labels, teacher, nothing, patients)
    if whole is None:  # one class only
        return dict.fromkeys(("auroc_teacher", "auroc", "difference", "difference_low", "difference_high"))
    each = [auroc_difference(labels, p[:, draw], teacher, patients) for draw in range(p.shape[1])]
    value = float(np.mean([one.value for one in each if one is not None]))
    ends = [(one.low, one.high) for one in each if one is not None and one.low is not None and one.high is not None]
    # a draw whose ranks are the teacher's differs by nothing in every sample of the patients
    low, high = (np.array(ends).sum(0) / len(each)).tolist() if ends else (0.0, 0.0)
    return {
        "auroc_teacher": whole.value + 0.5,
        "auroc": whole.value + 0.5 + value,
        "difference": value,
        "difference_low": low,
        "difference_high": high,
    }


def in_words(row: Mapping[str, Any]) -> str:
    """A row in one line."""
    auroc = ""
    if row["difference"] is not None:
        auroc = (
            f"AUROC {row['auroc']:.3f}, {row['difference']:+.4f} [{row['difference_low']:+.4f}, "
            f"{row['difference_high']:+.4f}] of the teacher's; "
        )
    return (
        f"{row['samples']} patches, {row['share_read']:.1%}: {auroc}probabilities {row['mean_abs_dp']:.3f} apart, "
        f"{row['agreement']:.1%} of decisions agree, intervals hold in {row['coverage']:.1%}"
    )
