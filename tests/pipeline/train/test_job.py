"""What a training has to fit: by a split, by folds, by splits from elsewhere; and what chooses the epoch of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.cohort.cohort import CohortSlide
from pipeline.config import Config
from pipeline.train.job import Job, plan_jobs

SLIDES = tuple(CohortSlide(f"s{i:02}", Path(f"/x/s{i}"), f"P{i}", "ab"[i % 2]) for i in range(16))


def planned(out: Path, slides: tuple[CohortSlide, ...], **told: object) -> list[Job]:
    return plan_jobs(slides, Config.model_validate({"cohort": {"table": out / "t.csv"}, "training": told}), out)


def sizes(job: Job) -> dict[str, int]:
    return {name: len(slides) for name, slides in job.parts.items()}


def test_a_split_is_one_model_whose_val_chooses_and_is_told_of(tmp_path: Path) -> None:
    split = tuple(replace(s, split=("train", "train", "val", "test")[i // 4]) for i, s in enumerate(SLIDES))
    (job,) = planned(tmp_path, split)
    assert sizes(job) == {"train": 8, "val": 4, "test": 4}
    assert job.val == job.held_out["val"]


def test_an_inner_part_of_a_split_chooses_and_is_not_told_of(tmp_path: Path) -> None:
    split = tuple(replace(s, split=("train", "test")[i // 12]) for i, s in enumerate(SLIDES))
    (job,) = planned(tmp_path, split, inner_val=0.34)
    assert sizes(job) == {"train": 8, "val": 4, "test": 4}
    assert list(job.held_out) == ["test"]


def test_folds_end_with_the_model_that_is_kept_and_have_folders_of_their_own(tmp_path: Path) -> None:
    jobs = planned(tmp_path, SLIDES, folds=2, repeats=2, inner_val=0.25)
    names = ["fold-0", "fold-1", "fold-0-repeat-1", "fold-1-repeat-1"]
    assert [job.folder for job in jobs] == [*(tmp_path / name for name in names), tmp_path]
    assert [sizes(job) for job in jobs] == [{"train": 6, "val": 2, "cross-validation": 8}] * 4 + [
        {"train": 12, "val": 4}
    ]
    assert [job.repeat for job in jobs] == [0, 0, 1, 1, 0]


def test_where_sites_are_held_out_an_inner_part_is_of_sites_too_unless_it_is_asked_otherwise(tmp_path: Path) -> None:
    sited = tuple(replace(s, site=f"site {i // 4}") for i, s in enumerate(SLIDES))
    for folds_by, inner_by, whole in (("site", None, True), ("site", "patient", False), ("patient", "site", True)):
        jobs = planned(tmp_path, sited, folds=4, folds_by=folds_by, inner_val=0.3, inner_val_by=inner_by)
        assert len(jobs) == 5
        for job in jobs:
            apart = not {s.site for s in job.train} & {s.site for s in job.val}
            assert job.val
            assert apart == whole
        (tmp_path / "splits.csv").unlink()
    (job,) = planned(tmp_path, tuple(replace(s, split="train") for s in sited), inner_val=0.25, inner_val_by="site")
    assert len({s.site for s in job.val}) == 1


def test_given_splits_are_folds_whose_val_chooses(tmp_path: Path) -> None:
    parts = ("train", "train", "val", "test")
    rounds = tuple(replace(s, rounds=(parts[i // 4], parts[-1 - i // 4])) for i, s in enumerate(SLIDES))
    jobs = planned(tmp_path, rounds)
    assert [sizes(job) for job in jobs] == [
        {"train": 8, "val": 4, "cross-validation": 4},
        {"train": 8, "val": 4, "cross-validation": 4},
        {"train": 10, "val": 6},
    ]
    assert not (tmp_path / "splits.csv").exists(), "they are written where they were made"
