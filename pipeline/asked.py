"""What may be asked of a model when it predicts: what cannot be is refused before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.model.spec import ModelSpec, task_of
from stages.amounts import as_given
from stages.prediction.stopping import FIRST_LOOK, RISK, Decide
from stages.sampling.schemes import DEFAULT, SCHEMES, choices, listed

if TYPE_CHECKING:  # which computes
    from stages.prior import Prior


def decision_of(
    spec: ModelSpec,
    at: float | None,
    risk: float | None = None,
    positive: str | None = None,
    *,
    samples: int | None = None,
) -> Decide | None:
    """What is to be decided by a model, as the user named it; None where there is no threshold.

    Args:
        spec: what the model is.
        at: the threshold.
        risk: 0 < risk < 0.5; None: `RISK`.
        positive: one of `Task.decided`; None: of two classes the second, or the only number that is told.
        samples: patches that may be read; None: all.

    Raises:
        UsageError: there is none of that name, none is named and there are several, a probability's threshold is
            none, or fewer samples than tell the risk.
    """
    if at is None:
        return None
    task = task_of(spec)
    names = list(task.decided)
    chosen = task.decided_first if positive is None else positive
    if chosen is None:
        raise UsageError(f"--decide: which of {', '.join(names)}? Name one, such as --positive {names[-1]}")
    if chosen not in names:
        raise UsageError(f"--positive: the model tells nothing of {positive!r}, but of {', '.join(names)}")
    if task.is_chance(chosen) and not 0 < at < 1:
        raise UsageError(f"decide must lie between 0 and 1, found {as_given(at)}; such as 0.5")
    if samples is not None and samples < FIRST_LOOK:
        raise UsageError(
            f"--samples {samples} is too few to decide with a stated risk: give at least {FIRST_LOOK}, or none"
        )
    return Decide(at, RISK if risk is None else risk, names.index(chosen))


def check_budget(spec: ModelSpec, *, samples: int | None, scheme: str | None) -> None:
    """Refuse what no slide could be predicted with: better said once than by every slide.

    Args:
        spec: what the model is.
        samples: patches a slide; None: the model's own.
        scheme: how they are drawn; None: the model's own.

    Raises:
        UsageError: too few patches for an interval, or a scheme that tells none, or none for so many; any of them where
            the model reads every cell.
    """
    if spec.exhaustive:
        given = [name for name, value in (("--samples", samples), ("--scheme", scheme)) if value is not None]
        if given:
            raise UsageError(f"the model reads every cell, so {' and '.join(given)} say nothing: leave them out")
        return
    samples, scheme = samples or spec.samples, scheme or spec.scheme
    if samples < spec.fewest:
        raise UsageError(f"--samples {samples} is too few for an interval: give at least {spec.fewest}")
    if scheme not in choices():
        raise UsageError(f"no intervals from the scheme {scheme!r}: use --scheme {listed()}")
    if not SCHEMES[scheme].judges(samples):
        most = SCHEMES[scheme].most_judged
        raise UsageError(f"--samples {samples}: {scheme} tells no interval beyond {most}; use --scheme {DEFAULT}")


def check_prior(spec: ModelSpec, prior: Prior) -> None:
    """Refuse what says where to look and will not do for a model, or for any slide.

    Raises:
        UsageError: the model draws no cells by themselves, or see `Prior.check`.
    """
    if spec.exhaustive or spec.inner_mpp is not None:
        raise UsageError("--prior says which cells to draw, and this model draws none by themselves: leave it out")
    try:
        prior.check()
    except (ValueError, ImportError) as exc:
        raise UsageError(f"--prior: {exc}") from exc


def refuse_patients(spec: ModelSpec, what: str) -> None:
    """Go on only with a model of slides.

    Raises:
        UsageError: it is one of patients.
    """
    if spec.unit == "patient":
        raise UsageError(
            f"{what} is for models of slides, and this one is of patients: train one with cohort.unit: slide"
        )
