"""Columns go by the names that people use; what only looks like one is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cohort.table import read_table
from pipeline.cohort.target import find_target
from pipeline.cohort.training_table import read_training_table
from pipeline.errors import UsageError

SLIDES = 20


@pytest.fixture
def table(tmp_path: Path):
    """A table of twenty slides with their labels and one column more, by default of ten patients with two each."""
    for i in range(SLIDES):
        (tmp_path / f"s{i:02}.svs").touch()

    def write(column: str, value=lambda i: f"P{i // 2}", *, header: str = "slide,label", cells=None) -> Path:
        cells = cells or (lambda i: f"s{i:02}.svs,{'ab'[i // 2 % 2]}")
        path = tmp_path / "cohort.csv"
        lines = [f"{header},{column}", *(f"{cells(i)},{value(i)}" for i in range(SLIDES))]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    "name",
    [
        *("patient_id", "Patient ID", "PATIENT", "PatientID", "submitter_id", "bcr_patient_barcode", "case", "Case ID"),
        *("subject-id", "donor", "participant id", "case_submitter_id"),
    ],
)
def test_patients_by_the_names_people_use(table, name):
    cohort = read_training_table(table(name))
    assert len({slide.patient for slide in cohort.slides}) == 10
    assert cohort.columns["patient"] == name
    assert f"20 slides of 10 patients, slide from 'slide', patient from '{name}'" in cohort.reading


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Pat. No.", lambda i: i // 2),
        ("patnr", lambda i: i // 10),
        ("Paziente", lambda i: "AB"[i // 10]),
        ("who", lambda i: f"P{i // 2}"),
        ("MRN", lambda i: 70000 + i // 2),
        ("id", lambda i: i // 2),
        ("surname", lambda i: ["Li", "Ma", "Wu", "Xu", "Yu", "Abe", "Ito", "Ono", "Oda", "Kato"][i // 2]),
    ],
)
def test_what_looks_like_patients_is_refused_with_both_remedies(table, name, value):
    words = rf"column '{name}' looks like patients.*rename it to 'patient' or set cohort\.patient_column"
    with pytest.raises(UsageError, match=words):
        read_training_table(table(name, value))
    told = read_training_table(table(name, value), columns={"patient": name})
    assert len({slide.patient for slide in told.slides}) == len({value(i) for i in range(SLIDES)})
    denied = read_training_table(table(name, value), columns={"patient": "slide"})
    assert len({slide.patient for slide in denied.slides}) == SLIDES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patient_age", lambda i: 50 + i // 2),
        ("Case type", lambda i: ("biopsy", "resection")[i % 2]),
        ("age", lambda i: 50 + i // 2),
        ("scanner", lambda i: ("GT450", "AT2")[i % 2]),
        ("stage", lambda i: f"T{i // 4}a"),
        ("note", lambda i: f"block{i // 2}"),
        ("who", lambda i: f"P{i}"),  # groups nothing
        ("time", lambda i: 1.5 * (i // 2)),
    ],
)
def test_other_columns_are_left_alone(table, name, value):
    cohort = read_training_table(table(name, value))
    assert len({slide.patient for slide in cohort.slides}) == SLIDES
    assert cohort.reading.endswith("; no patient column, so every slide counts as another patient's")


def test_without_labels_nothing_depends_on_patients_and_nothing_is_refused(table):
    path = table("Pat. No.", header="slide,kind")
    assert len(find_target(path).slides) == SLIDES


def test_two_columns_that_part_slides_differently_are_refused_by_name(table):
    path = table("case,subject", lambda i: f"C{i},P{i // 2}")
    with pytest.raises(UsageError, match=r"'subject' and 'case' may both be the patient's.*cohort\.patient_column"):
        read_training_table(path)
    assert read_training_table(path, columns={"patient": "subject"}).slides[1].patient == "P0"
    same = read_training_table(table("case_id,submitter_id", lambda i: f"C{i // 2},P{i // 2}"))  # as in GDC's tables
    assert same.columns["patient"] == "submitter_id"


def test_the_split_under_another_name_is_refused(table):
    with pytest.raises(UsageError, match=r"column 'subset' looks like the split; rename it to 'split'"):
        read_training_table(table("subset", lambda i: ("train", "test")[i % 2]))


@pytest.mark.parametrize("name", ["Class", "diagnosis", "target", "labels"])
def test_training_finds_labels_by_the_names_people_use_and_runs_only_by_theirs(table, name):
    path = table("patient", header=f"slide,{name}")
    assert read_training_table(path).classes == ("a", "b")
    assert read_table(path).slides[0].label is None
    with pytest.raises(UsageError, match="'target' and 'diagnosis' may both be the label's"):
        read_training_table(table("diagnosis", header="slide,target"))


def test_slides_under_another_name_are_told_and_can_be_named(table):
    path = table("patient", header="scan,label")
    with pytest.raises(UsageError, match=r"column 'scan' looks like slides: .* cohort\.slide_column"):
        read_training_table(path)
    assert read_training_table(path, columns={"slide": "scan"}).slides[0].slide_id == "s00"
    with pytest.raises(
        UsageError, match=r"no column 'scan2', found scan, label, patient; correct cohort\.slide_column"
    ):
        read_training_table(path, columns={"slide": "scan2"})


@pytest.mark.parametrize("name", ["site", "Hospital", "Centre", "source site", "TSS", "institution"])
def test_sites_by_the_names_people_use(table, name):
    assert read_training_table(table(name, lambda i: "NS"[i % 2])).slides[1].site == "S"


def test_a_patient_at_two_sites_is_named(table):
    path = table("patient,site", lambda i: f"P{i // 2},{'S' if i == 1 else 'N'}")
    assert read_training_table(path).reading.endswith("; patient 'P0' is at more than one site")


def test_two_columns_of_one_name_are_refused(table):
    with pytest.raises(UsageError, match="two columns are called 'label' and 'Label'"):
        read_table(table("Label"))
    with pytest.raises(UsageError, match="two columns are called 'Tumor Type' and 'tumor_type'"):
        read_table(table("tumor_type", header="slide,label,Tumor Type", cells=lambda i: f"s{i:02}.svs,a,b"))


def test_tcga_barcodes_name_patient_and_site(tmp_path):
    names = ["TCGA-A1-A0SB-01Z-00-DX1.x", "TCGA-A1-A0SB-01Z-00-DX2.y", "TCGA-B6-A0RE-01Z-00-DX1.z"]
    for name in names:
        (tmp_path / f"{name}.svs").touch()
    path = tmp_path / "cohort.csv"
    path.write_text(
        "slide,label\n" + "".join(f"{name}.svs,{label}\n" for name, label in zip(names, "aab", strict=True))
    )
    slides = read_training_table(path).slides
    assert [(s.patient, s.site) for s in slides] == [("TCGA-A1-A0SB", "A1")] * 2 + [("TCGA-B6-A0RE", "B6")]
    samples = ["TCGA-A1-A0SB-01A", "TCGA-A1-A0SB-11A", "TCGA-B6-A0RE-01A"]
    rows = zip(names, samples, "aab", strict=True)
    path.write_text("slide,case,label\n" + "".join(f"{name}.svs,{sample},{label}\n" for name, sample, label in rows))
    assert [slide.patient for slide in read_training_table(path).slides] == [slide.patient for slide in slides]
