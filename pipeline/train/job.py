"""What a training has to fit, and what lies in its folders before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cohort.splits import split_cohort
from pipeline.cohort.table import CohortSlide
from pipeline.config import Config
from pipeline.model.checkpoint import model_digest, save_model
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import read_json, write_json
from pipeline.train.checkpoints import remove
from pipeline.train.key import compared, differences, key_of, smaller_steps
from stages.disk import holds_only, new_file, new_folder
from stages.slide.facts import SlideFacts

WRITTEN = (
    "model.safetensors",
    "training.json",
    "curve.csv",
    "curve.png",
    "metrics.json",
    "predictions.csv",
    "comparison.csv",
)
TELLING = ("training.json", "metrics.json", "predictions.csv", "comparison.csv")
"""What of that tells of the model."""
"""What of an earlier training is kept when another takes its place."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to fit: on which slides, and which held-out parts it is then judged on."""

    folder: Path
    train: tuple[CohortSlide, ...]
    held_out: dict[str, tuple[CohortSlide, ...]]

    @property
    def model(self) -> Path:
        """Where it goes."""
        return self.folder / "model.safetensors"

    @property
    def name(self) -> str:
        """For a person."""
        return self.folder.name if "cross-validation" in self.held_out else "the model"


def plan_jobs(slides: tuple[CohortSlide, ...], config: Config, out: Path) -> list[Job]:
    """What to fit: one model where the table splits the slides, else one a fold and a last one on all of them.

    Slides to train on are in the order of their names, so that a model does not depend on the table's.
    """
    ordered = tuple(sorted(slides, key=lambda slide: slide.slide_id))
    if config.training.folds is None and any(slide.split for slide in slides):
        held_out = {name: tuple(s for s in slides if s.split == name) for name in ("val", "test")}
        train = tuple(s for s in ordered if s.split == "train")
        return [Job(out, train, {name: part for name, part in held_out.items() if part})]
    told = config.training
    fold_of = split_cohort(slides, folds=told.folds, seed=told.seed, path=out / "splits.csv", by=told.folds_by)
    jobs = [
        Job(
            out / f"fold-{k}",
            tuple(s for s in ordered if fold_of[s.slide_id] != k),
            {"cross-validation": tuple(s for s in slides if fold_of[s.slide_id] == k)},
        )
        for k in sorted(set(fold_of.values()))
    ]
    return [*jobs, Job(out, ordered, {})]


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
