"""Splits that were made elsewhere, as they are written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cohort.given_splits import read_splits
from pipeline.cohort.target import find_target
from pipeline.cohort.training_table import read_training_table
from pipeline.errors import UsageError

CLAM = ",train,val,test\n0,s0,s2,s3\n1,s1,,s4\n"


def test_a_file_of_clam_has_the_slides_of_each_part_below_its_name(tmp_path: Path) -> None:
    path = tmp_path / "splits_0.csv"
    path.write_text(CLAM)
    told = {"s0": ("train",), "s1": ("train",), "s2": ("val",), "s3": ("test",), "s4": ("test",)}
    assert read_splits(path) == told
    path.write_text(",train,val,test\n12.0,True,False,False\ns1,False,False,True\n")
    assert read_splits(path) == {"12": ("train",), "s1": ("test",)}


def test_a_folder_of_clam_is_a_split_each_in_their_order_without_what_else_lies_there(tmp_path: Path) -> None:
    (tmp_path / "splits_10.csv").write_text(",train,val,test\n0,s3,,s0\n")
    (tmp_path / "splits_2.csv").write_text(",train,val,test\n0,s0,s1,s3\n")
    for name in ("splits_2_bool.csv", "splits_2_descriptor.csv"):
        (tmp_path / name).write_text("something else\n1\n")
    assert read_splits(tmp_path) == {"s0": ("train", "test"), "s1": ("val", None), "s3": ("test", "train")}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("slide_id,fold\ns0,1\ns1,0\n", {"s0": (1,), "s1": (0,)}),
        ("slide,Split\ns0,Training\ns1,\n", {"s0": ("train",), "s1": (None,)}),
        ("fold_1,fold_0,slide_id\n4,1,s0\n", {"s0": (1, 4)}),
        ("slide_id;split_0;split_1\ns0;train;test\n", {"s0": ("train", "test")}),
        ("slide_id\tfold_0\tfold_1\ns0\ttrain\ttest\n", {"s0": ("train", "test")}),
    ],
)
def test_a_row_a_slide(tmp_path: Path, text: str, found: dict[str, tuple[object, ...]]) -> None:
    path = tmp_path / "given.csv"
    path.write_text(text)
    assert read_splits(path) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide_id,part\ns0,1\n", "expected a row a slide with slide_id and fold, split, or .* found slide_id, part"),
        ("slide_id,fold\ns0,1\ns0,0\n", "row 3: slide 's0' is there twice"),
        (",train,val,test\n0,s0,s1,s0\n", "row 2, column test: slide 's0' is there twice"),
        ("slide_id,train,test\ns0,True,True\n", "slide 's0' is in train and test; correct it"),
        ("slide_id,split\ns0,maybe\n", "row 2: split must be train, val or test, found 'maybe'"),
        ("slide_id,fold,split\ns0,1,test\n", "which of the columns fold, split is the split"),
        ("slide_id,fold,fold_0\ns0,1,1\n", "columns 'fold' and 'fold_0' may both be the fold's; delete one"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "given.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_splits(path)


def test_a_path_that_is_not_there_or_a_folder_of_other_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training.splits: no file or folder .*none.csv; correct"):
        read_splits(tmp_path / "none.csv")
    with pytest.raises(UsageError, match=r"no splits_0.csv, splits_1.csv \.\.\. in this folder"):
        read_splits(tmp_path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five slides, split otherwise."""
    rows = []
    for i in range(5):
        (tmp_path / f"s{i}.svs").touch()
        rows.append(f"s{i}.svs,P{i},{'ab'[i % 2]},train")
    (tmp_path / "cohort.csv").write_text("\n".join(["slide,patient,label,split", *rows]))
    return tmp_path / "cohort.csv"


def test_they_take_the_place_of_the_table_s_and_slides_go_by_their_names(table: Path, tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text(CLAM)
    slides = read_training_table(table, splits=tmp_path / "splits_0.csv").slides
    assert [slide.split for slide in slides] == ["train", "train", "val", "test", "test"]
    (tmp_path / "given.csv").write_text("slide,fold\n" + "".join(f"s{i}.svs,{i // 3}\n" for i in range(5)))
    slides = read_training_table(table, splits=tmp_path / "given.csv").slides
    assert [(slide.split, slide.fold) for slide in slides] == [(None, i // 3) for i in range(5)]


def test_those_of_a_training_of_patients_list_patients(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("slide_id,fold\n" + "".join(f"P{i},{i // 3}\n" for i in range(5)))
    assert [slide.fold for slide in read_training_table(table, splits=path).slides] == [0, 0, 0, 1, 1]


def test_slides_that_they_do_not_list_and_patients_that_they_part_are_refused(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "splits_0.csv"
    path.write_text(CLAM.replace("s4", ""))
    with pytest.raises(UsageError, match=r"no part for 1 of 5 slides .*, the first is 's4'; add them, or remove them"):
        read_training_table(table, splits=path)
    path.write_text(",train,val,test\n0,x0,,x1\n")
    with pytest.raises(UsageError, match=r"no part for 5 of 5 slides .*'s0'; it lists 'x0'; add"):
        read_training_table(table, splits=path)
    path.write_text(CLAM)
    table.write_text(table.read_text().replace("P3", "P1"))
    with pytest.raises(UsageError, match=r"patient 'P1' is in both train .* and test"):
        read_training_table(table, splits=path)


def test_numbered_columns_of_a_table_are_repeats_and_no_lookalikes(table: Path) -> None:
    rows = [f"s{i}.svs,P{i},{'ab'[i % 2]},{i // 3},{i // 2}" for i in range(5)]
    table.write_text("\n".join(["slide,patient,label,fold_0,fold_1", *rows]))
    assert [slide.rounds for slide in read_training_table(table).slides] == [(i // 3, i // 2) for i in range(5)]
    assert find_target(table).slides[0].rounds == (), "a run asks nothing of them"
