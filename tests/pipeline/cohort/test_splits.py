"""Cross-validation folds: grouped by patient, balanced by label, written once and used again."""

from __future__ import annotations

import csv
import itertools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.folds import check_folds
from pipeline.cohort.splits import refuse_twins, split_cohort
from pipeline.errors import UsageError


def make(patients: dict[str, str], *, slides_each: int = 2, fold: dict[str, int] | None = None) -> list[CohortSlide]:
    return [
        CohortSlide(f"{p}-{i}", Path(f"/x/{p}-{i}.svs"), p, label, fold=fold[p] if fold else None)
        for p, label in patients.items()
        for i in range(slides_each)
    ]


def split(slides: list[CohortSlide], **told: Any) -> dict[str, int]:
    """The folds of a single cross-validation."""
    (fold_of,) = split_cohort(slides, **told)
    return fold_of


def twenty() -> list[CohortSlide]:
    return make({f"P{i}": "tumour" if i % 4 == 0 else "normal" for i in range(20)})  # 5 tumour, 15 normal


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_together_and_labels_are_dealt_evenly(tmp_path, seed):
    slides = twenty()
    folds = split(slides, folds=5, seed=seed, path=tmp_path / "splits.csv")
    assert all(len({folds[s.slide_id] for s in slides if s.patient == p}) == 1 for p in {s.patient for s in slides})
    for label, each in (("tumour", 2), ("normal", 6)):
        assert Counter(folds[s.slide_id] for s in slides if s.label == label) == dict.fromkeys(range(5), each)


def test_remainders_do_not_pile_up_in_one_fold(tmp_path):
    slides = make({f"{label}{i}": label for label in "abc" for i in range(4)}, slides_each=1)
    folds = split(slides, folds=3, seed=0, path=tmp_path / "splits.csv")
    assert sorted(Counter(folds.values()).values()) == [4, 4, 4]


def test_folds_depend_on_slides_and_seed_not_on_their_order(tmp_path):
    slides = twenty()
    first = split(slides, folds=4, seed=1, path=tmp_path / "a.csv")
    random.Random(0).shuffle(slides)
    assert split(slides, folds=4, seed=1, path=tmp_path / "b.csv") == first
    assert split(slides, folds=4, seed=2, path=tmp_path / "c.csv") != first


def test_a_written_file_is_used_again_for_fewer_slides_and_another_seed(tmp_path):
    slides, path = twenty(), tmp_path / "splits.csv"
    first = split(slides, folds=None, seed=1, path=path)
    assert set(first.values()) == set(range(5))
    with path.open(newline="") as file:
        assert next(csv.DictReader(file)).keys() == {"fold", "slide_id", "patient", "label"}
    written = path.read_bytes()
    again = split(slides[3:], folds=None, seed=2, path=path)
    assert again == {s.slide_id: first[s.slide_id] for s in slides[3:]}
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda slides: (slides, 4), r"has 5 folds where 4 are asked for; move it away"),
        (lambda slides: ([*slides, CohortSlide("new", Path("/x/new.svs"), "N", "tumour")], 5), r"not list slide 'new'"),
        (
            lambda slides: ([CohortSlide(s.slide_id, s.path, "one", s.label) for s in slides], 5),
            r"patient 'one' is in folds \d and \d of .*move it away",
        ),
    ],
)
def test_a_file_that_no_longer_fits_is_an_error_and_stays(tmp_path, change, message):
    path = tmp_path / "splits.csv"
    split(twenty(), folds=5, seed=0, path=path)
    written = path.read_bytes()
    slides, folds = change(twenty())
    with pytest.raises(UsageError, match=message):
        split(slides, folds=folds, seed=0, path=path)
    assert path.read_bytes() == written


def test_a_file_of_something_else_is_an_error(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("name,part\nx,1\n")
    with pytest.raises(UsageError, match="not a table of slide_id and fold"):
        split(twenty(), folds=5, seed=0, path=path)


def test_the_tables_fold_column_decides_unless_folds_are_given(tmp_path):
    column = {f"P{i}": 7 + i % 2 for i in range(8)}
    slides = make({f"P{i}": "a" if i < 4 else "b" for i in range(8)}, fold=column)
    folds = split(slides, folds=None, seed=0, path=tmp_path / "table.csv")
    assert folds == {s.slide_id: s.fold for s in slides}
    assert set(split(slides, folds=4, seed=0, path=tmp_path / "given.csv").values()) == {0, 1, 2, 3}
    moved = make({f"P{i}": "a" if i < 4 else "b" for i in range(8)}, fold={**column, "P0": 8})
    with pytest.raises(UsageError, match="differs from the table's fold column"):
        split(moved, folds=None, seed=0, path=tmp_path / "table.csv")


def test_a_patient_in_two_folds_a_blank_or_a_single_fold_are_errors(tmp_path):
    path = tmp_path / "splits.csv"
    parted = [CohortSlide(f"s{i}", Path(f"/x/{i}"), "P", "a", fold=i) for i in range(2)]
    with pytest.raises(UsageError, match=r"patient 'P' is in folds 0 and 1 of the table's fold column"):
        split(parted, folds=None, seed=0, path=path)
    with pytest.raises(UsageError, match=r"slide 't' has no fold"):
        split([parted[0], CohortSlide("t", Path("/x/t"), "Q", "b")], folds=None, seed=0, path=path)
    with pytest.raises(UsageError, match="single fold"):
        split(parted[:1], folds=None, seed=0, path=path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("tumours", "message"),
    [
        (3, r"class 'tumour' has 3 patients .* 5 folds; set training\.folds to 3"),
        (1, r"class 'tumour' has 1 patient .*; add patients of that class"),
    ],
)
def test_too_few_patients_of_a_class_name_the_remedy(tmp_path, tumours, message):
    slides = make({f"P{i}": "tumour" if i < tumours else "normal" for i in range(12)})
    with pytest.raises(UsageError, match=message):
        split(slides, folds=5, seed=0, path=tmp_path / "splits.csv")
    assert not (tmp_path / "splits.csv").exists()


def test_a_patient_of_two_classes_counts_for_the_rarer(tmp_path):
    slides = make({f"P{i}": "normal" for i in range(12)})
    slides += [CohortSlide(f"t{i}", Path(f"/x/t{i}"), f"P{i}", "tumour") for i in range(4)]
    folds = split(slides, folds=4, seed=3, path=tmp_path / "splits.csv")
    assert Counter(folds[s.slide_id] for s in slides if s.label == "tumour") == dict.fromkeys(range(4), 1)


# ---- sites ----


def sited(patients: dict[str, list[str]]) -> list[CohortSlide]:
    """Slides of ``{site: labels of its patients}``, one a patient."""
    return [
        CohortSlide(f"{site}{i}", Path(f"/x/{site}{i}.svs"), f"{site}-{i}", label, site=site)
        for site, labels in patients.items()
        for i, label in enumerate(labels)
    ]


def unevenness(slides: list[CohortSlide], folds: dict[str, int], count: int) -> float:
    cost = 0.0
    for label in ("a", "b"):
        of_class = [folds[s.slide_id] for s in slides if s.label == label]
        share = len(of_class) / count
        cost += sum(((of_class.count(fold) - share) / share) ** 2 for fold in range(count))
    return cost


def test_folds_by_site_part_no_site_and_are_as_even_as_whole_sites_allow(tmp_path):
    """Compared with every way to deal nine sites to three folds."""
    rng = random.Random(0)
    patients = {f"S{i}": ["a"] * rng.randint(1, 9) + ["b"] * rng.randint(1, 9) for i in range(9)}
    slides = sited(patients)
    folds = split(slides, folds=3, seed=0, path=tmp_path / "splits.csv", by="site")
    of_site = {s.site: folds[s.slide_id] for s in slides}
    assert all(folds[s.slide_id] == of_site[s.site] for s in slides)
    ways = itertools.product(range(3), repeat=9)
    best = min(
        unevenness(slides, {s.slide_id: way[int(s.site[1:])] for s in slides}, 3) for way in ways if len(set(way)) == 3
    )
    assert unevenness(slides, folds, 3) == pytest.approx(best, abs=0.02)
    shuffled = rng.sample(slides, len(slides))
    assert split(shuffled, folds=3, seed=1, path=tmp_path / "again.csv", by="site") == folds


def test_sites_of_one_class_are_put_together_so_that_every_fold_has_both(tmp_path):
    slides = sited({f"{label}{i}": [label] * 4 for label in "ab" for i in range(4)})
    folds = split(slides, folds=4, seed=0, path=tmp_path / "splits.csv", by="site")
    assert all({s.label for s in slides if folds[s.slide_id] == fold} == {"a", "b"} for fold in range(4))


@pytest.mark.parametrize(
    ("slides", "message"),
    [
        (
            sited({"N": ["a", "b"], "S": ["a"]}),
            r"class 'b' is at 1 site, too few for 2 folds by site.*folds_by to patient",
        ),
        (
            [*sited({"N": ["a", "b"], "S": ["a", "b"]}), CohortSlide("x", Path("/x"), "P", "a")],
            r"slide 'x' has none; fill in the table's site column",
        ),
        (
            [*sited({"N": ["a", "b"], "S": ["a", "b"]}), CohortSlide("x", Path("/x"), "N-0", "a", site="S")],
            r"patient 'N-0' is at two sites, 'N' \('N0'\) and 'S' \('x'\)",
        ),
    ],
)
def test_what_cannot_be_folded_by_site_is_refused_before_a_slide_is_read(tmp_path, slides, message):
    with pytest.raises(UsageError, match=message):
        check_folds(slides, folds=2, by="site")
    with pytest.raises(UsageError, match=message):
        split(slides, folds=2, seed=0, path=tmp_path / "splits.csv", by="site")
    assert not (tmp_path / "splits.csv").exists()


def test_folds_or_a_split_of_the_table_that_part_a_site_are_refused_by_site():
    slides = sited({"N": ["a", "b", "a", "b"], "S": ["a", "b", "a", "b"]})
    by_fold = [replace(s, fold=i // 2 % 2) for i, s in enumerate(slides)]
    by_split = [replace(s, split=("train", "test")[i // 2 % 2]) for i, s in enumerate(slides)]
    for parted, where in ((by_fold, "0 and 1 of the table's fold"), (by_split, "train and test of the table's split")):
        check_folds(parted, folds=None)
        with pytest.raises(UsageError, match=f"site 'N' is in folds {where} column"):
            check_folds(parted, folds=None, by="site")


# ---- one slide under two names ----


def test_a_slide_under_two_names_may_not_be_in_two_parts_nor_have_two_labels():
    one, two, three = (CohortSlide(f"s{i}", Path(f"/x/s{i}.svs"), f"P{i}", "a") for i in range(3))
    prints = {"s0": "x", "s1": "x", "s2": "y"}
    with pytest.raises(
        UsageError, match=r"'s0' \(.*s0.svs\) and 's1' .* are one slide by content, but in both train and"
    ):
        refuse_twins({"train": [one, three], "test": [two]}, prints)
    with pytest.raises(UsageError, match=r"'s0' .* and 's1' .* but labelled 'a' and 'b'"):
        refuse_twins({"train": [one, replace(two, label="b")]}, prints)
    (warning,) = refuse_twins({"train": [one, two], "test": [three]}, prints)
    assert "'s0'" in warning
    assert "it counts twice; remove one" in warning
    assert refuse_twins({"train": [one], "test": [two]}, {"s0": "x"}) == []  # the other cannot be read
