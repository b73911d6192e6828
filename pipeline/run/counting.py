"""Which labelled slides the metrics of a run count: none that the model was made with, unless that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.labels import known_label
from pipeline.cohort.patients import two_labelled
from pipeline.model.header import Knows
from pipeline.model.spec import Unit
from pipeline.task.task import Task
from stages.amounts import counted

TRAINED, VALIDATED = "trained on", "validated on"
"""How a model may have seen a slide: it was fitted to its label; or its epoch was chosen by it."""
_PATIENT = "of a patient {}"
"""Another slide of the same patient was: tissue, stain and scanner may be the same."""
DIFFER = "of patients whose slides have different labels"
"""Why a slide does not count where a label is the patient's."""
SITES_TOLD = 10
"""Sites that have a line each on the terminal, at most."""

Predicted = Sequence[tuple[CohortSlide, dict[str, Any]]]


def seen_by(model: Knows, fingerprint: str) -> str | None:
    """How the model has seen a slide of this content; None where it has not."""
    if fingerprint in model.trained_on:
        return TRAINED
    return VALIDATED if fingerprint in model.validated_on else None


@dataclass(frozen=True, slots=True)
class Counted:
    """Predicted slides against their labels.

    Attributes:
        task: what was predicted.
        slides: those that count, with their rows.
        why: of each labelled slide that does not, by its name: the model has seen it, the table says that it is to
            train ("train") or to choose with ("val"), or its patient is of those that ``differ``.
        seen: of each slide that the model has seen, labelled or not, how.
        metrics: of those that count; empty where there are none.
        differ: patients whose slides have different labels, where a label is the patient's: none of theirs count.
        asked: whether the user asked for what is to be counted, so that nothing to count is worth a word.
        patients: of a model of slides, what is found by patient (`pipeline.run.combine`), where some have several.
        unit: what is predicted, and counted.
    """

    task: Task
    slides: tuple[tuple[CohortSlide, dict[str, Any]], ...] = ()
    why: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    differ: frozenset[str] = frozenset()
    asked: bool = False
    patients: dict[str, Any] | None = None
    unit: Unit = "slide"

    @property
    def not_counted(self) -> dict[str, int]:
        """How many labelled slides do not count, by why."""
        return dict(Counter(self.why.values()))

    @property
    def seen_counts(self) -> dict[str, int]:
        """How many slides the model has seen, by how."""
        return dict(Counter(self.seen.values()))

    def to_json(self) -> dict[str, Any]:
        """What metrics.json says."""
        return {
            "task": self.task.kind,
            "classes": list(self.task.names),
            "slides": {"labelled": len(self.slides) + len(self.why), "counted": len(self.slides)},
            "not_counted": self.not_counted,
            "seen": self.seen_counts,
            "metrics": self.metrics,
            **({} if self.patients is None else {"patients": self.patients}),
        }

    def in_lines(self) -> list[str]:
        """What is said of it at the end of a run."""
        counts_seen = any(slide.slide_id in self.seen for slide, _ in self.slides)
        if self.asked and not self.slides and not self.why:
            column = " and ".join(repr(name) for name in self.task.labels or ("label",))
            return [f"metrics:     none: no {self.unit} has a label under {column}: call its column so"]
        lines = in_lines(
            self.task, self.metrics, self.not_counted, self.seen_counts, counts_seen=counts_seen, unit=self.unit
        )
        if self.patients is not None:
            lines.insert(1, f"by patient:  {self.task.told_of(self.patients['metrics'])}")
        return lines


def count(done: Predicted, task: Task, *, split: str | None, count_seen: bool) -> Counted:
    """Judge the labelled slides that may be counted.

    Args:
        done: predicted slides with their rows, whose "seen" is what `seen_by` gives.
        task: of the model.
        split: which slides were asked for; None: all, of which those of split "test" and of no split count.
        count_seen: whether slides count that the model has seen.
    """
    unit: Unit = "patient" if any(slide.members for slide, _ in done) else "slide"
    seen = {slide.slide_id: str(row["seen"]) for slide, row in done if row.get("seen")}
    by_patient = {slide.patient: seen[slide.slide_id] for slide, _ in done if slide.slide_id in seen}
    for slide, _ in done:
        if slide.patient in by_patient:
            seen.setdefault(slide.slide_id, _PATIENT.format(by_patient[slide.patient]))
    counts = (None, "test") if split is None else (split,)
    why: dict[str, str] = {}
    slides: list[tuple[CohortSlide, dict[str, Any]]] = []
    for slide, row in done:
        cells = known_label(slide, task)
        if cells is None:
            continue
        if slide.slide_id in seen and not count_seen:
            why[slide.slide_id] = seen[slide.slide_id]
        elif slide.split not in counts and not (slide.slide_id in seen and count_seen):
            why[slide.slide_id] = str(slide.split)
        else:
            slides.append((slide, row | task.label_row(cells)))
    differ = two_labelled((slide for slide, _ in slides), task)
    why |= {slide.slide_id: DIFFER for slide, _ in slides if slide.patient in differ}
    slides = [(slide, row) for slide, row in slides if slide.patient not in differ]
    metrics: dict[str, Any] = {}
    if slides:
        sites = [slide.site for slide, _ in slides]
        metrics = task.evaluate([row for _, row in slides], [slide.patient for slide, _ in slides], sites=sites)
        if unit == "patient":
            metrics |= {"unit": unit, "slides": sum(len(row["pictured"]) for _, row in slides)}
    asked = count_seen or split is not None
    return Counted(task, tuple(slides), why, seen, metrics, differ, asked=asked, unit=unit)


def in_lines(
    task: Task,
    metrics: Mapping[str, Any],
    not_counted: Mapping[str, int],
    seen: Mapping[str, int],
    *,
    counts_seen: bool,
    unit: Unit = "slide",
) -> list[str]:
    """Metrics, each site's, what they do not count, and how many slides the model has seen."""
    lines = [f"metrics:     {task.told_of(metrics)}"] if metrics else []
    sites = metrics.get("sites", {})
    if 1 < len(sites) <= SITES_TOLD:
        lines += [f"site {site}: {task.told_of(one)}" for site, one in sites.items()]
    elif len(sites) > SITES_TOLD:
        lines.append(f"sites:       {len(sites)}, each in the report and in metrics.json")
    left = {why: many for why, many in not_counted.items() if why not in seen}
    differ = left.pop(DIFFER, 0)
    if differ:
        lines.append(f"not counted: {differ} {DIFFER}: what is predicted is the patient's, so give all of his the same")
    if left:
        told = ", ".join(f"{many} of split {why}" for why, many in left.items())
        lines.append(f"not counted: {told} (--split runs and counts another split than test)")
    if seen:
        told = ", ".join(f"{many} {how}" for how, many in seen.items())
        weight = _weight({why: many for why, many in not_counted.items() if why in seen}, counts=counts_seen)
        lines.append(f"seen:        {counted(sum(seen.values()), unit)}: {told}: {weight}")
    return lines


def _weight(not_counted: Mapping[str, int], *, counts: bool) -> str:
    if counts:
        return "counted all the same, as --count-seen asks: the metrics are no proof of how good the model is"
    if not_counted:
        return "none is counted in the metrics, for what the model says of them is no proof (--count-seen counts them)"
    return "what the model says of them is no proof of how good it is"
