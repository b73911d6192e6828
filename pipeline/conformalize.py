"""`saccade conformalize`: a model and labelled slides of other patients -> the model that knows when to refer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch

from pipeline.asked import check_budget, refuse_patients
from pipeline.cohort.cohort import Cohort, CohortSlide
from pipeline.cohort.labels import cells_of
from pipeline.cohort.splits import refuse_twins
from pipeline.device import check_device
from pipeline.errors import UsageError
from pipeline.model.build import keep_features
from pipeline.model.checkpoint import load_model, refuse_ensemble, save_model
from pipeline.model.header import MODEL, find_model
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import task_of
from pipeline.refer.agreement import contradiction, score, told_of_labels
from pipeline.refer.calibrate import calibrate_labels, in_lines
from pipeline.refer.referral import check_names
from pipeline.task.task import Task, refuse_untold
from pipeline.train.looks import Looks
from stages.amounts import counted
from stages.prediction.conformal import least_error

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, repr=False)
class ConformalSummary:
    """What a calibration of label sets came to.

    Attributes:
        model: the checkpoint that was written.
        slides, patients: that it is calibrated on.
        patients_of: of each class.
        least_error: the smallest error that can be stated; by class it is ``1 / (patients + 1)`` of the fewest.
        excluded: why slides were left out, by their names.
    """

    model: Path
    slides: int
    patients: int
    patients_of: dict[str, int]
    least_error: float
    excluded: dict[str, str]

    def __repr__(self) -> str:
        told = f"slides={self.slides}, patients={self.patients}, patients_of={self.patients_of}"
        return f"ConformalSummary({told}, least_error={self.least_error:.3g})"


def conformalize_model(
    path: Path,
    cohort: Cohort,
    out: Path,
    *,
    split: str | None = None,
    samples: int | None = None,
    strict: bool = False,
    seed: int = 0,
    device: str = "auto",
    encoder_weights: Path | None = None,
    features: Path | None = None,
    say: Say,
) -> ConformalSummary:
    """Calibrate a model's label sets on labelled slides and write the model with them to ``out``.

    Args:
        path: the checkpoint, or its folder.
        cohort: the table's slides; those without a label are left aside. Labels are what the column that the model
            learnt from says, where the table has it and was not read with another than ``label``.
        out: the new checkpoint, or a folder for it.
        split: only slides of this part of the table.
        samples: a number of patches to calibrate for beside those that always are.
        strict: leave out slides whose resolution something else in the file contradicts.
        seed: of the draws.
        device, encoder_weights, features: as in a run.
        say: progress.

    Raises:
        UsageError: nothing was written, because the model, the table or the place cannot be used.
    """
    check_device(device)
    path = find_model(path)
    model = keep_features(load_model(path, device=device, encoder_weights=encoder_weights), features)
    refuse_ensemble(model, path)
    refuse_patients(model.spec, "`saccade conformalize`")
    target = _target(out, model, path)
    check_budget(model.spec, samples=samples, scheme=None)
    refuse_untold(task_of(model.spec), "how often calls are right")
    check_names(model.spec.classes)
    slides = _chosen(cohort, task_of(model.spec), path, split, say)
    if not model.trained_on:
        say("warning: the model does not say which slides it was trained on: see to it that none of these is")
    else:
        say("slides of the training are refused by content; see to it that none is of a patient of the training")
    looks = Looks(model, None, say, strict=strict)
    looks.first(slides)
    _refuse_known(slides, looks, model, cohort)
    chose = sum(looks.fingerprints.get(slide.slide_id) in model.validated_on for slide in slides)
    if chose:
        say(f"warning: by {counted(chose, 'slide')} of these epoch or intervals were chosen: calls may seem too good")
    _refuse_lost_class(slides, looks, model.spec.classes)
    found = calibrate_labels(
        model,
        [slide for slide in slides if slide.slide_id not in looks.excluded],
        looks,
        seed=seed,
        source="given to saccade conformalize",
        say=say,
        leave_out=looks.leave_out,
        samples=samples,
    )
    _refuse_lost_class(slides, looks, model.spec.classes)  # drawing meets what the first look does not
    assert found is not None
    scored = score(found.conformal, model.spec)
    say(f"label sets: {told_of_labels(scored)}")
    found = replace(found, doubt=contradiction(scored, model.quality))
    for line in in_lines(found, model.spec.classes):
        say(line)
    model.label_calibration = found
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, target)
    conformal = found.conformal
    return ConformalSummary(
        model=target,
        slides=len(conformal.labels),
        patients=conformal.patients_of(),
        patients_of={name: conformal.patients_of(i) for i, name in enumerate(model.spec.classes)},
        least_error=least_error(conformal.patients_of()),
        excluded=looks.excluded,
    )


def _target(out: Path, model: SlideModel, path: Path) -> Path:
    """Where the checkpoint goes; what is there may be this model only."""
    target = out if out.suffix == ".safetensors" else out / MODEL
    if not target.exists() or target.resolve() == path.resolve():
        return target
    try:
        other = safetensors.torch.load_file(target)
    except (safetensors.SafetensorError, OSError):
        other = {}
    own = model.state_dict()
    if other.keys() != own.keys() or not all(torch.equal(other[name], own[name].cpu()) for name in own):
        raise UsageError(f"{target} is there and is not the model {path}: choose another --out")
    return target


def _chosen(cohort: Cohort, task: Task, path: Path, split: str | None, say: Say) -> tuple[CohortSlide, ...]:
    slides = cohort.slides if split is None else cohort.of_split(split)
    if cohort.columns.get("label", "label") == "label":  # nobody named another
        slides = tuple(replace(slide, label=cells_of(slide, task)[0]) for slide in slides)
    labelled = tuple(slide for slide in slides if slide.label is not None)
    if not labelled:
        own = dict.fromkeys((*task.labels, "label"))
        raise UsageError(
            f"{cohort.source}: no slide has a label, and sets are calibrated on what slides are: give a table with "
            f"labels under {' or '.join(map(repr, own))}, or name their column (--label)"
        )
    unknown = sorted({str(slide.label) for slide in labelled} - set(task.names))
    if unknown:
        raise UsageError(
            f"the table has the label {unknown[0]!r}, but {path} was trained for {', '.join(task.names)}: correct it, "
            "or use the model of this task"
        )
    if len(labelled) < len(slides):
        aside = len(slides) - len(labelled)
        say(f"{counted(aside, 'slide')} without a label {'is' if aside == 1 else 'are'} left aside")
    return labelled


def _refuse_known(slides: Sequence[CohortSlide], looks: Looks, model: SlideModel, cohort: Cohort) -> None:
    """What a model was trained on it knows too well; two labels of one slide cannot both be right."""
    prints = looks.fingerprints
    known = [slide for slide in slides if prints.get(slide.slide_id) in model.trained_on]
    if known:
        held = sorted({s.split for s in slides if s.split in ("val", "test") and s not in known} - {None})
        remedy = f"give --split {held[-1]}, or remove them" if held else "remove them and give others"
        raise UsageError(
            f"{cohort.source}: the model was trained on {len(known)} of {counted(len(slides), 'labelled slide')} (by "
            f"content; the first is {known[0].slide_id!r}), of which it is too sure: {remedy}"
        )
    refuse_twins({"the calibration": slides}, prints)


def _refuse_lost_class(slides: Sequence[CohortSlide], looks: Looks, classes: Sequence[str]) -> None:
    there = {slide.label for slide in slides if slide.slide_id not in looks.excluded}
    if len(there) < 2:
        lost = next(name for name in classes if name not in there)
        gone = [slide.slide_id for slide in slides if slide.label == lost]
        why = f"; {counted(len(gone), 'slide')} of it left out, {gone[0]}: {looks.excluded[gone[0]]}" if gone else ""
        raise UsageError(
            f"there is no slide labelled {lost!r} to calibrate on, so how often that label is missed cannot be told: "
            f"add slides of it{why}"
        )
