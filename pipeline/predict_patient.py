"""A patient's opened slides through a model of patients: one draw over all of them, one prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import is_exhaustion, reason_of
from pipeline.model.look import look_at
from pipeline.model.patient_look import patient_look
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import Sampled, View
from pipeline.predict import SlidePrediction, attributed, decision_made, doubts_of, prediction_of, watched
from pipeline.stopwatch import stage
from stages.agreement import Agreement
from stages.amounts import counted
from stages.heap import give_back
from stages.passing import again
from stages.prediction.attribution import Attribution
from stages.prediction.kinds import READ
from stages.prediction.stopping import Decide
from stages.prior import Prior
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.render import ReadCount


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PatientPrediction:
    """What a model of patients says of one after reading a few patches of all slides; a notebook shows its table.

    Attributes:
        together: as a prediction of one slide whose cells are those of all: values, intervals, what was read and what
            it cost. Its pictures would be of the first slide.
        slides: of each slide, by name, its part: the patient's values, and what of the attention and of the patches is
            on it. What of the prediction comes from other slides stands with the constant of its attribution.
    """

    together: SlidePrediction
    slides: dict[str, SlidePrediction]

    @property
    def values(self) -> dict[str, float]:
        """What the model tells of the patient, see `SlidePrediction`."""
        return self.together.values

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """(low, high) of each value, see `SlidePrediction`."""
        return self.together.intervals

    @property
    def probabilities(self) -> dict[str, float]:
        """`values` of classes, grades or labels, see `SlidePrediction`."""
        return self.together.probabilities

    @property
    def predicted(self) -> str | float:
        """The most probable class, or what else is predicted, see `SlidePrediction`."""
        return self.together.predicted

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.together.in_words(self._of)}; {self.together.reading}>"

    def _repr_html_(self) -> str:
        return self.together.as_html(self._of)

    @property
    def _of(self) -> str:
        return f"patient of {counted(len(self.slides), 'slide')}"


def predict_patient(
    slides: Mapping[str, Slide],
    model: SlideModel,
    *,
    lose: Callable[[str, str], None],
    samples: int | None = None,
    tolerance: float | None = None,
    decide: Decide | None = None,
    scheme: str | None = None,
    seed: int = 0,
    priors: Mapping[str, Prior] | None = None,
) -> PatientPrediction:
    """Predict a patient from opened slides; equal ones, in whatever order, give equal results.

    Args:
        slides: by name; one at least.
        model: in evaluation mode.
        lose: told the name of each slide that cannot be read, and why; the others go on.
        samples, tolerance, decide, scheme: see `SlideModel.sample`; of all slides together.
        seed: of the draws, together with the slides' content.
        priors: of each slide, see `pipeline.predict.predict_slide`.

    Raises:
        SlideError: there is nothing to be seen on any slide, or, where ``lose`` was told, one cannot be read: it may be
            tried again without it.
    """
    every, model = model, model.unseen(*(slide.facts.fingerprint for slide in slides.values()))
    looks = {}
    for name, slide in slides.items():
        try:
            prior = None if priors is None else priors[name]
            with stage("look"):
                looks[name] = again(lambda slide=slide, prior=prior: look_at(slide, model, prior=prior))  # type: ignore[misc]
        except Exception as exc:
            if is_exhaustion(exc):
                raise
            lose(name, reason_of(exc))
    if not looks:
        raise SlideError("none of its slides can be looked at")
    agreements = {name: Agreement(look.thumbnail) for name, look in looks.items()}
    of = {id(look): agreements[name] for name, look in looks.items()}
    seen = patient_look(looks, model.spec.apart, lose=lose, shown=lambda look: watched(look, of[id(look)]))
    view, generator = seen.view, seen.generator(seed, model.drawing_device)
    how: dict[str, Any] = {"samples": samples, "scheme": scheme, "tolerance": tolerance, "decide": decide}
    with stage("read and encode"):
        sampled = model.sample(view, generator=generator, **how)
    with stage("attribute"):
        attribution = attributed(sampled, view, model)
    give_back(*(look.thumbnail.rgb for look in looks.values()))  # what encoding patches took
    decision = decision_made(sampled, decide, model.spec)
    parts = {}
    for i, look in enumerate(seen.looks):
        name = next(name for name, one in looks.items() if one is look)
        own, said = part_of(sampled, attribution, view, i)
        likeness = look.likeness(model)
        warnings = [*look.warnings, *agreements[name].warnings, *([likeness.warning] if likeness.warning else [])]
        beside: dict[str, Any] = {"decision": decision, "score": likeness.score, "warnings": tuple(warnings)}
        found = prediction_of(look, own, said, model, **beside)
        parts[name] = replace(found, patient_cells=int(view.tissue.sum()) if view.parts else None)
    first = next(iter(parts.values()))
    filled = [look.filled.sum() for look in seen.looks]
    warnings = [f"{name}: {one}" if len(parts) > 1 else one for name, part in parts.items() for one in part.warnings]
    together = replace(
        first,
        cells=int(view.tissue.sum()),
        attention=sampled.log_attention.exp().reshape(view.tissue.shape).cpu().numpy(),
        fraction_read=float(np.average([part.fraction_read for part in parts.values()], weights=filled)),
        patch_cells=sampled.cells,
        patch_weights=sampled.weights,
        patch_features=sampled.features,
        attribution=attribution,
        attention_not_read=sampled.missed,
        cost=sum((part.cost for part in parts.values()), ReadCount()),
        out_of_distribution=seen.likeness(model).score,
        warnings=(*warnings, *doubts_of(sampled, tolerance, fewer=model is not every, unit="patient")),
    )
    return PatientPrediction(together, {name: parts[name] for name in slides if name in parts})


def part_of(sampled: Sampled, attribution: Attribution, view: View, slide: int) -> tuple[Sampled, Attribution]:
    """What of a patient's draw is on one of the slides, by the indices of its own cells, and what of the attribution.

    Args:
        sampled, attribution: of all.
        view: the patient's.
        slide: which of its slides.
    """
    stack = view.stack
    places, own = np.empty(0, np.int64), np.empty(0, np.int64)
    for i, some, cells in stack.split(sampled.cells):
        if i == slide:
            places, own = some, cells
    at = stack.cells(slide, np.arange(stack.shapes[slide][0] * stack.shapes[slide][1]))
    log_attention = sampled.log_attention[at]
    attention = log_attention.exp()
    drawn = replace(
        sampled,
        log_attention=log_attention,
        cells=own,
        weights=sampled.weights[places],
        features=sampled.features[places],
        missed=max(0.0, float(attention.sum() - attention[own].sum())),
        adds=sampled.adds[places],
        own=sampled.own[places],
        spread=sampled.spread[places],
        foretold=None if sampled.foretold is None else sampled.foretold[at],
    )
    by_cell, told, patches = attribution.cells[at], attribution.told[at], attribution.patches[places]
    unread = np.zeros_like(attribution.unread)
    if sampled.foretold is not None:
        unread = by_cell[(told != 0) & (told != READ)].sum(0)
    said = replace(
        attribution,
        constant=attribution.statistics - patches.sum(0) - unread,
        patches=patches,
        patch_half_widths=attribution.patch_half_widths[places],
        unread=unread,
        cells=by_cell,
        told=told,
    )
    return drawn, said
