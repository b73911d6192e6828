"""How far a cohort's draws really fall from reading everything, so that a stated 95 % interval holds 95 % of the time.

A draw of 16 patches leaves a handful to chance; the variance of a handful says little, and nothing about what is rare.
So some slides are read whole once, drawn again and again at several budgets (features are kept: nothing is read twice),
and the interval's rule (`stages.prediction.predict.Calibration`) is fitted to how far those draws really fell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t as student_t
from torch import Tensor

from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import View
from stages.prediction.predict import Calibration, Evidence
from stages.slide.facts import SlideError

DRAWS = 100
"""Draws of every slide at every budget."""
BLOCK = 100
"""Draws that are made together: what bounds the memory."""
SMALLEST, MOST = 8, 256
"""Budgets are the model's own and the powers of two from the one to the other, or to eight times the model's own: what
users ask for, and what `--tolerance` comes to."""


@torch.no_grad()
def calibrate(
    model: AttentionSampler, views: Sequence[Callable[[], View]], *, seed: int, say: Callable[[str], None]
) -> Calibration | None:
    """Fit the interval's rule to draws of slides that are read whole; None where no slide is large enough to draw from.

    The parameters maximise the likelihood of the errors under the rule's own t distributions; then each budget's factor
    is the 95 % quantile of the errors relative to the half-width, every slide counting alike (split conformal
    prediction over draws: V. Vovk, A. Gammerman and G. Shafer, *Algorithmic Learning in a Random World*).

    Args:
        model: trained.
        views: slides of the kind that will be predicted, the fewer of them seen in training the better.
        seed: of the draws.
        say: progress.
    """
    doubled = (SMALLEST * 2**k for k in range(32))
    most = max(MOST, 8 * model.spec.samples)
    budgets = sorted({model.spec.samples, *takewhile(lambda n: n <= most, doubled)})
    generator = torch.Generator(model.device).manual_seed(seed)
    found: dict[int, list[tuple[Evidence, Tensor]]] = {n: [] for n in budgets}
    for number, view in enumerate(views, 1):
        try:
            one = drawn_errors(model, view(), budgets, draws=DRAWS, generator=generator)
        except SlideError as exc:  # reading all of a slide meets what training never touched
            say(f"calibrating intervals: left out: {exc}")
            one = {}
        for n, drawn in one.items():
            found[n].append(drawn)
        if number % 4 == 0 or number == len(views):
            say(f"calibrating intervals: read {number}/{len(views)} slides whole")
    return fit_calibration({n: parts for n, parts in found.items() if parts})


def drawn_errors(
    model: AttentionSampler, view: View, budgets: Sequence[int], *, draws: int, generator: torch.Generator
) -> dict[int, tuple[Evidence, Tensor]]:
    """Read a slide whole and draw it again and again: for each budget below its number of cells, the draws' evidence
    and by how much their log-odds fell from the exhaustive ones, (draws, C)."""
    every = np.flatnonzero(view.tissue)
    features = torch.zeros(view.tissue.size, model.spec.dim, device=model.device)
    features[torch.from_numpy(every).to(model.device)] = model.encode(view, every)
    glance = model.glance(view)
    opened: list[dict[int, Tensor]] = [{}]

    def evidence(n: int, repeats: int) -> Evidence:
        (plan,) = model.plan([view], [glance], samples=n, generator=generator, repeats=repeats, opened=opened)
        return model.evidence(plan, features[plan.cells])

    truth = evidence(len(every), 1).log_odds
    out = {}
    for n in budgets:
        if n < len(every):
            blocks = [min(BLOCK, draws - done) for done in range(0, draws, BLOCK)]
            together = _joined([evidence(n, block) for block in blocks])
            out[n] = together, together.log_odds - truth
    return out


def fit_calibration(found: dict[int, list[tuple[Evidence, Tensor]]]) -> Calibration | None:
    """Fit `Calibration` to the evidence and errors of draws, for every budget a list of slides."""
    if not found:
        return None
    start = Calibration()
    every = [_open_ends(_joined([e for e, _ in parts]), torch.cat([x for _, x in parts])) for parts in found.values()]

    def rule(p: NDArray[np.float64]) -> Calibration:
        eta, worth = 1 / (1 + np.exp(-p[2])), np.exp(p[3])
        return replace(start, alpha=float(p[0]), beta=float(p[1]), eta=float(eta), worth=float(worth))

    def loss(p: NDArray[np.float64]) -> float:
        calibration, total = rule(p), 0.0
        for evidence, errors in every:
            scale = calibration.variance(evidence).sqrt().numpy()
            freedom = (evidence.freedom + calibration.worth).numpy()
            total -= float((student_t.logpdf(errors.numpy() / scale, freedom) - np.log(scale)).mean())
        # a mild pull towards the start, for cohorts that do not tell
        return total + 1e-4 * float(np.square(p - first).sum())

    first = np.array([start.alpha, start.beta, 0.0, np.log(start.worth)])
    simplex = np.vstack([first, first + np.diag([1.0, -0.5, 1.0, 1.0])])
    options: Any = {"maxiter": 400, "xatol": 1e-2, "fatol": 1e-4, "initial_simplex": simplex}
    fitted = rule(minimize(loss, first, method="Nelder-Mead", options=options).x)
    factors = []
    for n, (evidence, errors) in zip(found, every, strict=True):
        factors.append(float(torch.quantile(errors.abs() / fitted.half_width(evidence, n), 0.95)))
    return replace(fitted, budgets=tuple(found), factors=tuple(factors))


def _open_ends(evidence: Evidence, errors: Tensor) -> tuple[Evidence, Tensor]:
    """Only draws that left something to chance, a row for each of their classes; of two classes, which mirror each
    other, the second."""
    rows = evidence.unit[:, 0] > 0
    columns = slice(1, None) if errors.shape[1] == 2 else slice(None)
    wide = errors[rows, columns].shape

    def flat(values: Tensor) -> Tensor:
        part = values[rows]
        return (part[:, columns] if part.shape[1] > 1 else part).expand(wide).reshape(-1, 1)

    return Evidence(*(flat(getattr(evidence, field.name)) for field in fields(Evidence))), flat(errors)


def _joined(parts: Sequence[Evidence]) -> Evidence:
    return Evidence(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Evidence)))
