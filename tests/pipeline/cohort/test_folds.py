"""Whom each model of a cross-validation is fitted to, chosen by and judged on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.folds import Fold, check_folds, deal_folds, held_out_of_all, hold_out
from pipeline.cohort.splits import split_cohort
from pipeline.errors import UsageError


def cohort(patients: dict[str, str], *, slides_each: int = 2, **told: Any) -> list[CohortSlide]:
    """Slides of ``{patient: label}``."""
    return [
        CohortSlide(f"{p}-{i}", Path(f"/x/{p}-{i}.svs"), p, label, **told)
        for p, label in patients.items()
        for i in range(slides_each)
    ]


def sited(sites: dict[str, str]) -> list[CohortSlide]:
    """Slides of ``{site: labels of its patients, a letter each}``, one a patient."""
    return [
        CohortSlide(f"{site}{i}", Path(f"/x/{site}{i}.svs"), f"{site}-{i}", label, site=site)
        for site, labels in sites.items()
        for i, label in enumerate(labels)
    ]


def dealt(slides: list[CohortSlide], **told: Any) -> list[Fold]:
    return deal_folds(slides, **{"folds": None, "seed": 0, "path": None, **told})


TEN = cohort({f"P{i}": "ab"[i % 5 == 0] for i in range(20)})  # 4 of b


@pytest.mark.parametrize("repeats", [1, 3])
def test_what_is_judged_has_neither_been_fitted_to_nor_chosen_anything(repeats: int) -> None:
    """Of each repeat every slide is judged once; the three parts of a fold share no patient, and each has its share."""
    folds = dealt(TEN, folds=4, repeats=repeats, inner_val=0.25)
    assert len(folds) == 4 * repeats
    for repeat in range(repeats):
        tests = [s.slide_id for fold in folds if fold.repeat == repeat for s in fold.test]
        assert sorted(tests) == sorted(s.slide_id for s in TEN)
    for fold in folds:
        parts = [{s.patient for s in part} for part in (fold.train, fold.val, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 20
        assert {label: len({s.patient for s in fold.val if s.label == label}) for label in "ab"} == {"a": 3, "b": 1}


def test_repeats_differ_and_the_first_is_that_of_a_single_one(tmp_path: Path) -> None:
    """So that models of it are used again; all are written to one file, and read from it."""
    path = tmp_path / "splits.csv"
    (single,) = split_cohort(TEN, folds=4, seed=3, path=None)
    several = split_cohort(TEN, folds=4, seed=3, path=path, repeats=3)
    assert several[0] == single
    assert len({tuple(one.values()) for one in several}) == 3
    assert path.read_text().splitlines()[0] == "fold_0,fold_1,fold_2,slide_id,patient,label"
    assert split_cohort(TEN, folds=4, seed=9, path=path, repeats=3) == several
    with pytest.raises(UsageError, match=r"has 3 repeats where 2 are asked for; move it away"):
        split_cohort(TEN, folds=4, seed=3, path=path, repeats=2)


def test_an_inner_part_follows_from_the_seed_alone_not_from_the_order_of_the_slides() -> None:
    first = hold_out(TEN, 0.25, seed=(1, 2))[1]
    assert {s.slide_id for s in hold_out(TEN[::-1], 0.25, seed=(1, 2))[1]} == {s.slide_id for s in first}
    assert {s.slide_id for s in hold_out(TEN, 0.25, seed=(1, 3))[1]} != {s.slide_id for s in first}
    assert hold_out(TEN, 0, seed=(1,)) == (tuple(TEN), ())


@pytest.mark.parametrize(
    "sites",
    [
        {"N": "ab", "S": "aabb"},
        {"N": "aabb", "S": "a", "W": "bbbb", "O": "ab", "X": "aaaaaaaaab"},
    ],
    ids=["two", "five"],
)
def test_as_many_folds_as_sites_leave_out_one_at_a_time_whatever_it_has(sites: dict[str, str]) -> None:
    """Of unequal size, with one patient, without a class: which is said, a line a fold."""
    slides = sited(sites)
    folds = dealt(slides, folds=len(sites), by="site")
    assert [{s.site for s in fold.test} for fold in folds] == [{site} for site in sorted(sites)]
    lines = check_folds(slides, folds=len(sites), by="site")
    if len(sites) == 2:
        assert lines == []
    else:
        of = "is judged on no slide labelled"
        assert lines == [
            f"fold-2 (site 'S') {of} 'b' and a single patient: it counts with the other folds only",
            f"fold-3 (site 'W') {of} 'a': it counts with the other folds only",
        ]


FIVE = {"N": "aabb", "S": "aaab", "W": "aab", "O": "abb", "X": "aaaaaaaaab"}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_an_inner_part_by_site_is_of_sites_that_are_neither_fitted_to_nor_judged(share: float) -> None:
    """As folds by site are, unless it is asked otherwise; every class is on both sides; the same whatever the order."""
    slides = sited(FIVE)
    found = dealt(slides, folds=5, by="site", inner_val=share)
    assert found == dealt(slides, folds=5, by="site", inner_by="site", inner_val=share, seed=7)
    for fold, again in zip(found, dealt(slides[::-1], folds=5, by="site", inner_val=share), strict=True):
        sites = [{s.site for s in part} for part in (fold.train, fold.val, fold.test)]
        assert sum(map(len, sites)) == len(set.union(*sites)) == 5
        assert all({s.label for s in part} == {"a", "b"} for part in (fold.train, fold.val))
        assert {s.slide_id for s in again.val} == {s.slide_id for s in fold.val}
    train, val = held_out_of_all(slides, found, inner_val=share, seed=0, inner_by="site")
    assert not {s.site for s in train} & {s.site for s in val}
    by_patient = dealt(slides, folds=5, by="site", inner_by="patient", inner_val=0.25)
    assert any({s.site for s in fold.train} & {s.site for s in fold.val} for fold in by_patient)


def test_an_inner_part_by_site_has_the_share_that_whole_sites_allow() -> None:
    """Of ten equal sites so many tenths of each class, and of unequal ones the one that is nearest."""
    equal = sited({f"site {i}": "aaabb" for i in range(10)})
    for tenths in (1, 2, 5):
        val = hold_out(equal, tenths / 10, seed=(0,), by="site")[1]
        assert {label: sum(s.label == label for s in val) for label in "ab"} == {"a": 3 * tenths, "b": 2 * tenths}
    unequal = sited({"large": "ab" * 10, "half": "ab" * 5, "small": "ab" * 2})
    assert {s.site for s in hold_out(unequal, 0.3, seed=(0,), by="site")[1]} == {"half"}
    # sites of one class each: several together have both
    single = sited({"N": "aaa", "S": "bbb", "W": "aaa", "O": "bbb"})
    assert len({s.site for s in hold_out(single, 0.1, seed=(0,), by="site")[1]}) == 2


SPLIT = [replace(s, split=("train", "test")[i % 4 > 1]) for i, s in enumerate(TEN)]
GIVEN = [replace(s, rounds=("train" if i < 30 else "test", "test" if i < 10 else "train")) for i, s in enumerate(TEN)]


@pytest.mark.parametrize(
    ("slides", "told", "words"),
    [
        (sited({"N": "ab", "S": "aa"}), {"folds": 2, "by": "site"}, "class 'b' is at 1 site, .*folds_by to patient"),
        (sited({"N": "ab", "S": "ab", "W": "a"}), {"folds": 4, "by": "site"}, "class 'a' is at 3 sites, too few for 4"),
        (TEN, {"folds": 2, "by": "site"}, "slide 'P0-0' has none; fill in the table's site column"),
        (
            sited({"N": "ab", "S": "ab", "W": "ab"}),
            {"folds": 2, "by": "site", "repeats": 2},
            "every repeat would be the same; leave training.repeats out",
        ),
        (
            cohort({"P0": "a", "P1": "a", "P2": "a", "P3": "b", "P4": "b"}),
            {"folds": 2, "inner_val": 0.2},
            r"the training of fold 0 has 1 of class '[ab]' of its own to train on; leave it out, or add",
        ),
        (
            sited({"N": "ab", "S": "ab"}),
            {"folds": 2, "by": "site", "inner_val": 0.2},
            "1 site of the training of fold 0 was found that leaves class 'a', which is at 1, on both sides; set",
        ),
        (
            [replace(s, split="train") for s in sited({"N": "ab", "S": "aaa"})],
            {"by": "site", "inner_val": 0.2},
            "2 sites of split train was found that leaves class 'b', which is at 1",
        ),
        (TEN, {"folds": 2, "inner_val": 0.2, "inner_by": "site"}, "inner_val_by is site, but slide 'P.*' has none"),
        (cohort({"P0": "a", "P1": "a", "P2": "b"}), {"folds": 2}, "class 'b' has 1 patient of its own"),
        (SPLIT, {"repeats": 2}, "the slides are split; leave it out, or set training.folds"),
        ([replace(SPLIT[0], split="val"), *SPLIT[1:]], {"inner_val": 0.2}, "slides of split val already; leave it out"),
        ([replace(s, fold=i // 2 % 3) for i, s in enumerate(TEN)], {"repeats": 2}, "given for 1 repeat; leave it"),
        (GIVEN, {"repeats": 2}, "its splits are given; leave it out"),
        ([replace(s, rounds=("train", "test")) for s in TEN], {}, "split 0 has no slides of test"),
        (
            [replace(s, rounds=(("train", "test")[s.label == "b"], "train")) for s in TEN],
            {},
            "split 0 has no slide labelled 'b' to train on",
        ),
        (
            [replace(s, rounds=(("train", "test")[i % 2], None)) for i, s in enumerate(TEN)],
            {},
            "patient 'P0' is in folds train and test of given split 0",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused_in_one_line_before_a_slide_is_read(
    slides: list[CohortSlide], told: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        check_folds(slides, **{"folds": None, **told})
    assert "\n" not in str(refused.value)


def test_given_splits_are_a_fold_each_and_repeats_where_they_judge_on_the_same_slides() -> None:
    apart = dealt(GIVEN)
    assert [fold.name for fold in apart] == ["fold-0", "fold-1"]
    assert [len(fold.test) for fold in apart] == [10, 10]
    same = dealt([replace(s, rounds=(s.rounds[0], s.rounds[0])) for s in GIVEN])
    assert [(fold.name, fold.repeat) for fold in same] == [("fold-0", 0), ("fold-0-repeat-1", 1)]


def test_the_model_that_is_kept_is_chosen_as_those_of_the_folds() -> None:
    """By the same share of the patients, where val is given, too."""
    given = [
        replace(
            s, rounds=tuple("test" if i // 10 == k else "val" if i // 10 == (k + 1) % 4 else "train" for k in (0, 1))
        )
        for i, s in enumerate(TEN)
    ]
    train, val = held_out_of_all(TEN, dealt(given), inner_val=0, seed=0)
    assert {label: len({s.patient for s in val if s.label == label}) for label in "ab"} == {"a": 5, "b": 1}
    assert len(train) + len(val) == len(TEN)
    assert held_out_of_all(TEN, dealt(TEN, folds=2), inner_val=0, seed=0) == (tuple(TEN), ())


def test_columns_of_the_table_are_repeats() -> None:
    slides = [replace(s, rounds=(i // 2 % 2, i // 2 % 3)) for i, s in enumerate(TEN)]
    assert [fold.name for fold in dealt(slides)] == [
        *("fold-0", "fold-1", "fold-0-repeat-1", "fold-1-repeat-1", "fold-2-repeat-1"),
    ]


def test_folds_in_the_place_of_a_split_say_what_becomes_of_its_test_slides() -> None:
    slides = [replace(slide, split="test" if i % 4 == 0 else "train") for i, slide in enumerate(sited(FIVE))]
    (line,) = check_folds(slides, folds=2)
    assert "training.folds takes the place of the table's split" in line
    assert check_folds([replace(slide, split=None) for slide in slides], folds=2) == []


def test_a_part_of_a_value_that_one_patient_has_is_fitted_to() -> None:
    """Unlike a class, which needs patients on both sides."""
    parts = [replace(slide, dealt_by="early" if i < 2 else "late") for i, slide in enumerate(TEN)]
    train, val = hold_out(parts, 0.3, seed=(0,))
    assert parts[0] in train
    assert val
    with pytest.raises(UsageError, match="has 1 of class 'late'"):
        hold_out([slide for slide in parts if slide.dealt_by == "late"][:1], 0.3, seed=(0,))
