"""What a training has to fit, and what lies in its folders before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.folds import deal_folds, held_out_of_all, hold_out, is_split
from pipeline.config import Config
from pipeline.model.checkpoint import save_model
from pipeline.model.header import model_digest
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import read_json, write_json
from pipeline.train.checkpoints import remove
from pipeline.train.key import compared, differences, key_of, smaller_steps
from stages.disk import holds_only, new_file, new_folder
from stages.slide.facts import SlideFacts

TELLING = ("training.json", "metrics.json", "predictions.csv", "report.html", "comparison.csv")
WRITTEN = ("model.safetensors", "curve.csv", "curve.png", *TELLING)
"""What of that tells of the model."""
"""What of an earlier training is kept when another takes its place."""


CROSS = "cross-validation"
"""The part that all folds of a cross-validation are judged on together."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to fit.

    Attributes:
        folder: where it goes.
        train: slides that it is fitted to.
        held_out: parts that it is then judged on.
        val: slides that choose its epoch and thresholds, in the order of their names: of the split val, which it is
            judged on, too; or an inner part of the training's patients, which it is not.
        repeat: which of several cross-validations it belongs to.
    """

    folder: Path
    train: tuple[CohortSlide, ...]
    held_out: dict[str, tuple[CohortSlide, ...]]
    val: tuple[CohortSlide, ...] = ()
    repeat: int = 0

    @property
    def parts(self) -> dict[str, tuple[CohortSlide, ...]]:
        """All its slides, by what they are to it."""
        return {"train": self.train, **({"val": self.val} if self.val else {}), **self.held_out}

    @property
    def model(self) -> Path:
        """Where it goes."""
        return self.folder / "model.safetensors"

    @property
    def name(self) -> str:
        """For a person."""
        return self.folder.name if CROSS in self.held_out else "the model"

    def said(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """What tells lines, those of a fold with its name."""
        if CROSS not in self.held_out:
            return say

        def named(line: str) -> None:
            warning = "warning: " if line.startswith("warning: ") else ""
            say(f"{warning}{self.name}: {line.removeprefix(warning)}")

        return named


def plan_jobs(slides: tuple[CohortSlide, ...], config: Config, out: Path) -> list[Job]:
    """What to fit: one model where the table splits the slides, else one a fold and a last one on all of them; of each,
    an inner part of the patients may choose the epoch (`hold_out`).

    Slides to train on are in the order of their names, so that a model does not depend on the table's.
    """
    told = config.training
    inner_by = told.inner_val_by or told.folds_by
    if is_split(slides, told.folds):
        held_out = {name: tuple(s for s in slides if s.split == name) for name in ("val", "test")}
        of_train = [slide for slide in slides if slide.split == "train"]
        train, inner = hold_out(of_train, told.inner_val, seed=(told.seed,), by=inner_by)
        val = held_out["val"] or inner
        return [Job(out, _ordered(train), {name: part for name, part in held_out.items() if part}, _ordered(val))]
    folds = deal_folds(
        slides,
        folds=told.folds,
        seed=told.seed,
        path=out / "splits.csv",
        by=told.folds_by,
        repeats=told.repeats,
        inner_val=told.inner_val,
        inner_by=inner_by,
    )
    jobs = [
        Job(out / fold.name, _ordered(fold.train), {CROSS: fold.test}, _ordered(fold.val), fold.repeat)
        for fold in folds
    ]
    train, val = held_out_of_all(slides, folds, inner_val=told.inner_val, seed=told.seed, inner_by=inner_by)
    return [*jobs, Job(out, _ordered(train), {}, _ordered(val))]


def inner_sites(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """The sites whose slides choose an epoch and are not judged on, of each job that has such, by its name."""
    return {job.name: sorted({str(s.site) for s in job.val}) for job in jobs if job.val and "val" not in job.held_out}


def _ordered(slides: Sequence[CohortSlide]) -> tuple[CohortSlide, ...]:
    return tuple(sorted(slides, key=lambda slide: slide.slide_id))


def begin(job: Job, made: dict[str, Any], facts: Mapping[str, SlideFacts]) -> tuple[Path, str]:
    """The file that says what a training is made of while it goes on, and its key: of one that was interrupted and is
    the same, or that diverged and is the same but for smaller steps; or a new one."""
    for path in sorted(job.folder.glob("training-*.json")):
        earlier = read_json(path) or {}
        now = compared(earlier.get("made_of"), made, facts)
        # the order in which an epoch takes slides follows from all that there are, readable or not
        if (
            not differences(earlier.get("made_of"), now)
            and earlier["made_of"]["slides"].keys() == made["slides"].keys()
        ):
            return path, str(earlier["key"])
        if earlier.get("diverged") and smaller_steps(earlier.get("made_of"), now):
            write_json(path, {"key": key_of(made), "made_of": made})
            return path, key_of(made)
    key = key_of(made)
    path = job.folder / f"training-{key[:12]}.json"
    write_json(path, {"key": key, "made_of": made})
    return path, key


def end(job: Job, made: dict[str, Any], facts: Mapping[str, SlideFacts]) -> None:
    """Take away what a training needed while it went on: its model is there."""
    for path in sorted(job.folder.glob("training-*.json")):
        earlier = (read_json(path) or {}).get("made_of")
        if not differences(earlier, compared(earlier, made, facts)):
            remove(path.with_suffix(".ckpt"))
            for suffix in (".csv", ".png"):
                path.with_suffix(suffix).unlink(missing_ok=True)
            path.unlink()


def put(model: SlideModel, job: Job, begun: Path) -> None:
    """Let a fitted model take its place; an earlier one of another training, and what told of it, is kept first.

    Nothing that tells of a model stands beside another, whenever this is killed.
    """
    if job.model.exists() and not is_its_own(job, begun):
        keep_aside(job)
    with new_file(job.model) as temporary:
        save_model(model, temporary)
        # of one that is killed from here on, the model that stands there is its own, not another's
        write_json(begun, {**(read_json(begun) or {}), "model": model_digest(temporary)})
        for name in TELLING:
            (job.folder / name).unlink(missing_ok=True)


def is_its_own(job: Job, begun: Path) -> bool:
    """Whether the model that stands there is what a training put there before it was killed."""
    return (read_json(begun) or {}).get("model") == model_digest(job.model)


def aside(job: Job) -> Path:
    """Where a finished model goes when another takes its place."""
    return job.folder / f"earlier-{model_digest(job.model)[:12]}"


def keep_aside(job: Job) -> None:
    """Copy what an earlier training wrote, so that nothing is lost whenever this one is killed."""
    if aside(job).exists() and not (job.folder / "training.json").exists():
        return  # it was done before a kill, in full
    with new_folder(aside(job), ours=lambda folder: holds_only(folder, WRITTEN)) as folder:
        for name in WRITTEN:
            if (job.folder / name).exists():
                (folder / name).write_bytes((job.folder / name).read_bytes())
