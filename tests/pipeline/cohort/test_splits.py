"""Cross-validation folds: grouped by patient, balanced by label, written once and used again."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.cohort.splits import split_cohort
from pipeline.cohort.table import CohortSlide
from pipeline.errors import UsageError


def make(patients: dict[str, str], *, slides_each: int = 2, fold: dict[str, int] | None = None) -> list[CohortSlide]:
    return [
        CohortSlide(f"{p}-{i}", Path(f"/x/{p}-{i}.svs"), p, label, fold=fold[p] if fold else None)
        for p, label in patients.items()
        for i in range(slides_each)
    ]


def twenty() -> list[CohortSlide]:
    return make({f"P{i}": "tumour" if i % 4 == 0 else "normal" for i in range(20)})  # 5 tumour, 15 normal


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_together_and_labels_are_dealt_evenly(tmp_path, seed):
    slides = twenty()
    folds = split_cohort(slides, folds=5, seed=seed, path=tmp_path / "splits.csv")
    assert all(len({folds[s.slide_id] for s in slides if s.patient == p}) == 1 for p in {s.patient for s in slides})
    for label, each in (("tumour", 2), ("normal", 6)):
        assert Counter(folds[s.slide_id] for s in slides if s.label == label) == dict.fromkeys(range(5), each)


def test_remainders_do_not_pile_up_in_one_fold(tmp_path):
    slides = make({f"{label}{i}": label for label in "abc" for i in range(4)}, slides_each=1)
    folds = split_cohort(slides, folds=3, seed=0, path=tmp_path / "splits.csv")
    assert sorted(Counter(folds.values()).values()) == [4, 4, 4]


def test_folds_depend_on_slides_and_seed_not_on_their_order(tmp_path):
    slides = twenty()
    first = split_cohort(slides, folds=4, seed=1, path=tmp_path / "a.csv")
    random.Random(0).shuffle(slides)
    assert split_cohort(slides, folds=4, seed=1, path=tmp_path / "b.csv") == first
    assert split_cohort(slides, folds=4, seed=2, path=tmp_path / "c.csv") != first


def test_a_written_file_is_used_again_for_fewer_slides_and_another_seed(tmp_path):
    slides, path = twenty(), tmp_path / "splits.csv"
    first = split_cohort(slides, folds=None, seed=1, path=path)
    assert set(first.values()) == set(range(5))
    with path.open(newline="") as file:
        assert next(csv.DictReader(file)).keys() == {"fold", "slide_id", "patient", "label"}
    written = path.read_bytes()
    again = split_cohort(slides[3:], folds=None, seed=2, path=path)
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
    split_cohort(twenty(), folds=5, seed=0, path=path)
    written = path.read_bytes()
    slides, folds = change(twenty())
    with pytest.raises(UsageError, match=message):
        split_cohort(slides, folds=folds, seed=0, path=path)
    assert path.read_bytes() == written


def test_a_file_of_something_else_is_an_error(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text("name,part\nx,1\n")
    with pytest.raises(UsageError, match="not a table of slide_id and fold"):
        split_cohort(twenty(), folds=5, seed=0, path=path)


def test_the_tables_fold_column_decides_unless_folds_are_given(tmp_path):
    column = {f"P{i}": 7 + i % 2 for i in range(8)}
    slides = make({f"P{i}": "a" if i < 4 else "b" for i in range(8)}, fold=column)
    folds = split_cohort(slides, folds=None, seed=0, path=tmp_path / "table.csv")
    assert folds == {s.slide_id: s.fold for s in slides}
    assert set(split_cohort(slides, folds=4, seed=0, path=tmp_path / "given.csv").values()) == {0, 1, 2, 3}
    moved = make({f"P{i}": "a" if i < 4 else "b" for i in range(8)}, fold={**column, "P0": 8})
    with pytest.raises(UsageError, match="differs from the table's fold column"):
        split_cohort(moved, folds=None, seed=0, path=tmp_path / "table.csv")


def test_a_patient_in_two_folds_a_blank_or_a_single_fold_are_errors(tmp_path):
    path = tmp_path / "splits.csv"
    parted = [CohortSlide(f"s{i}", Path(f"/x/{i}"), "P", "a", fold=i) for i in range(2)]
    with pytest.raises(UsageError, match=r"patient 'P' is in folds 0 and 1 of the table's fold column"):
        split_cohort(parted, folds=None, seed=0, path=path)
    with pytest.raises(UsageError, match=r"slide 't' has no fold"):
        split_cohort([parted[0], CohortSlide("t", Path("/x/t"), "Q", "b")], folds=None, seed=0, path=path)
    with pytest.raises(UsageError, match="single fold"):
        split_cohort(parted[:1], folds=None, seed=0, path=path)
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
        split_cohort(slides, folds=5, seed=0, path=tmp_path / "splits.csv")
    assert not (tmp_path / "splits.csv").exists()


def test_a_patient_of_two_classes_counts_for_the_rarer(tmp_path):
    slides = make({f"P{i}": "normal" for i in range(12)})
    slides += [CohortSlide(f"t{i}", Path(f"/x/t{i}"), f"P{i}", "tumour") for i in range(4)]
    folds = split_cohort(slides, folds=4, seed=3, path=tmp_path / "splits.csv")
    assert Counter(folds[s.slide_id] for s in slides if s.label == "tumour") == dict.fromkeys(range(4), 1)
