"""What people write for one thing: what is missing, what two spellings mean, whose barcode it is."""

from __future__ import annotations

import pytest

from pipeline.cohort.spelling import column_key, is_missing, near_equal, tcga_patient


@pytest.mark.parametrize(
    "text",
    ["", "NA", "n/a", "#N/A", "NaN", "<NA>", "None", "NULL", "unknown", "-", "\u2013", "?", "[Not Available]", "'--"],
)
def test_missing_values_as_programs_and_people_write_them(text):
    assert is_missing(text)
    assert is_missing(f"\u200b{text}\u00a0")


@pytest.mark.parametrize("text", ["0", "no", "normal", "negative", "+", "NA12", "nandrolone"])
def test_values_that_only_begin_like_missing_ones_are_there(text):
    assert not is_missing(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tumor", "tumor"),
        ("007", "7"),
        ("P007", "P7"),
        ("1", "1.0"),
        ("a b", "a\u00a0b"),
        ("ab", "a\u200bb"),
        ("ab", "\ufeffab"),
        ("caf\u00e9", "cafe\u0301"),
        ("a-b", "a\u2013b"),
        ("a-b", "a_b"),
        ("a-b", "a - b"),
        ("Case", "\u0421ase"),  # a Cyrillic letter
        ("\uff21", "A"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_texts_that_are_likely_meant_to_be_one(one, other):
    [pair] = near_equal([one, "else", other, one])
    assert set(pair) == {one, other}


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "10"), ("1", "-1"), ("ER+", "ER-"), ("1.0", "1.5"), ("1-1", "11"), ("P1", "Q1"), ("T1a", "T1b"), ("0", "")],
)
def test_texts_that_are_two(one, other):
    assert near_equal([one, other]) == []


def test_a_columns_name_is_told_by_its_letters():
    assert (
        len({column_key(name) for name in ("Patient ID", "patient_id", "PatientID", "patient-id", "\ufeffPATIENT  ID")})
        == 1
    )


def test_a_tcga_barcode_names_its_patient():
    assert tcga_patient("TCGA-A1-A0SB-01Z-00-DX1.2f6b") == "TCGA-A1-A0SB"
    assert tcga_patient("tcga-a1-a0sb") == "TCGA-A1-A0SB"
    assert tcga_patient("TCGA-A1-A0SBX") is None
    assert tcga_patient("x-TCGA-A1-A0SB") is None
