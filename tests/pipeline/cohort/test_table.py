"""What a TARGET means, what a cohort table may look like, and how each mistake in it is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from makers import small_slide

from pipeline.cache import cache_cohort
from pipeline.cohort.cohort import CohortSlide
from pipeline.cohort.files import find_slides
from pipeline.cohort.table import read_table
from pipeline.cohort.target import find_target
from pipeline.cohort.training_table import read_training_table
from pipeline.errors import UsageError
from pipeline.output.attention_map import write_attention_zarr
from pipeline.output.folder import prepare_output
from stages.geometry import Mpp, Raster
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError


def touch(path: Path) -> Path:
    """A file with a slide's name; finding slides looks at names only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not really a slide")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.svs", "b.ndpi", "sub dir/ç\nd.TIF"):
        touch(tmp_path / "slides" / name)
    return tmp_path / "slides"


@pytest.fixture
def table(folder: Path):
    def write(text: str, *, encoding: str = "utf-8", name: str = "cohort.csv") -> Path:
        path = folder / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def one_line(caught: pytest.ExceptionInfo[UsageError]) -> bool:
    return "\n" not in str(caught.value).replace("ç\nd", "")


# ---- targets ----


def test_one_slide_is_a_cohort_of_one(folder):
    cohort = find_target(folder / "a.svs")
    assert cohort.slides == (CohortSlide(slide_id="a", path=folder / "a.svs", patient="a"),)


def test_a_file_named_outright_is_a_slide_whatever_its_suffix(folder):
    path = touch(folder / "odd.jp2")
    assert [slide.path for slide in find_target(path).slides] == [path]


def test_a_relative_target_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert find_target(Path("slides/a.svs")).slides[0].path == folder / "a.svs"
    assert find_target(Path("slides")).slides[0].path == folder / "a.svs"


def test_a_folder_is_searched_all_the_way_down_in_a_fixed_order(folder):
    touch(folder / ".hidden.svs")
    touch(folder / ".cache" / "c.svs")
    touch(folder / "notes.txt")
    touch(folder / "b" / "Data0001.dat")
    cohort = find_target(folder)
    found = [slide.path.relative_to(folder).as_posix() for slide in cohort.slides]
    assert found == ["a.svs", "b.ndpi", "sub dir/ç\nd.TIF"]
    assert [slide.slide_id for slide in cohort.slides] == ["a", "b", "ç%0Ad"]


def test_links_give_each_file_once_and_loops_end(folder):
    (folder / "sub dir" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "again.svs").symlink_to(folder / "a.svs")
    elsewhere = touch(folder.parent / "elsewhere" / "e.svs")
    (folder / "linked.svs").symlink_to(elsewhere)
    names = [slide.path.name for slide in find_target(folder).slides]
    assert names == ["a.svs", "b.ndpi", "linked.svs", "ç\nd.TIF"]


def test_a_dead_link_is_a_slide_with_a_problem(folder):
    (folder / "gone.svs").symlink_to(folder / "nowhere.svs")
    problems = {slide.slide_id: slide.problem for slide in find_target(folder).slides}
    assert "nowhere.svs" in problems.pop("gone")
    assert set(problems.values()) == {None}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_file_but_is_called_as_a_slide_fails_visibly(folder):
    """It is never waited for, be it two that may be of one series."""
    for name in ("pipe.svs", "a.dcm", "b.dcm"):
        os.mkfifo(folder / name)
    (folder / "device.tif").symlink_to("/dev/zero")
    slides = {slide.slide_id: slide for slide in find_target(folder).slides if slide.path.parent == folder}
    told = {}
    for name, slide in slides.items():
        with pytest.raises(SlideError) as caught:
            open_pyramid(slide.path)
        told[name] = str(caught.value).partition(",")[0]
    pipe = "it is a named pipe"
    assert {name: told.get(name) for name in ("pipe", "device")} == {"pipe": pipe, "device": "it is a device"}
    assert sum(words == pipe for words in told.values()) == 3


def test_images_of_ome_zarr_are_slides_and_other_zarr_folders_are_left_alone(folder):
    ome = {"ome": {"version": "0.5", "multiscales": [{"datasets": [{"path": "0"}]}]}}
    zarr.create_group(folder / "p.ome.zarr", attributes=ome, zarr_format=3)
    touch(folder / "p.ome.zarr" / "0" / "inside.svs")
    write_attention_zarr(
        folder / "attention.zarr", np.ones((2, 3), np.float32), Raster(0, 0, 8, 8, 3, 2), mpp=Mpp(0.5, 0.5)
    )
    touch(folder / "old.zarr" / ".zgroup")
    image = {"version": "0.4", "datasets": [{"path": "0"}]}
    zarr.create_group(folder / "theirs.zarr", attributes={"multiscales": [image]}, zarr_format=2)
    zarr.create_group(folder / "raw.ome.zarr", attributes={"bioformats2raw.layout": 3}, zarr_format=2)
    slides = {slide.slide_id: slide.path for slide in find_target(folder).slides}
    assert slides["p"] == folder / "p.ome.zarr"
    assert len(slides) == 6
    assert slides.keys() >= {"theirs", "raw"}
    assert find_target(folder / "p.ome.zarr").slides[0].slide_id == "p"


def test_outputs_of_earlier_runs_are_not_searched(folder):
    prepare_output(folder / "results")
    touch(folder / "results" / "slides" / "a" / "overlay.ome.tiff")
    assert len(find_target(folder).slides) == 3
    assert len(find_target(folder / "results").slides) == 1  # named outright, it is


def test_an_empty_folder_names_what_was_searched_for(tmp_path):
    with pytest.raises(UsageError, match=r"no slides in .*\.svs.*\.ndpi|no slides in .*\.ndpi.*\.svs") as caught:
        find_target(tmp_path)
    assert one_line(caught)


def test_a_folder_that_may_not_be_read_is_left_out_and_named(folder, ordinary_user, caplog):
    """As `lost+found` at the root of every disk; the target itself must be readable."""
    lost = folder / "lost+found"
    lost.mkdir()
    lost.chmod(0)
    assert len(find_target(folder).slides) == 3
    assert f"no permission to search {lost}" in caplog.text
    with pytest.raises(UsageError, match=r"cannot search .*lost\+found: Permission denied; make it readable") as caught:
        find_target(lost)
    assert one_line(caught)
    with pytest.raises(UsageError, match=r"no permission to reach .*a\.svs: have the owner of the folders") as caught:
        find_target(lost / "a.svs")
    assert one_line(caught)
    lost.chmod(0o755)


def test_a_missing_target_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"no such file or folder: .*gone") as caught:
        find_target(tmp_path / "gone")
    assert one_line(caught)


def test_slides_of_one_name_take_that_of_the_folder_that_each_has_for_itself(tmp_path):
    """As viewers export DICOM: a folder a slide, and the same file names in all of them."""
    for name in ("case a/DCM_0.svs", "b/dcm_0.svs", "c/other.svs"):
        touch(tmp_path / name)
    slides = find_target(tmp_path).slides
    assert [(slide.slide_id, slide.patient) for slide in slides] == [
        ("b", "b"),
        ("other", "other"),
        ("case a", "case a"),
    ]


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (("x/s.svs", "x/s.ndpi", "y/s.svs", "t.svs"), {"t", "x_s.svs", "x_s.ndpi", "y"}),
        (("s.svs", "s.ndpi"), {"s.ndpi", "s.svs"}),
        (("S.svs", "s.tif"), {"S.svs", "s.tif"}),
        (("a/b/s.svs", "a/b/t.svs", "c/s.svs", "c/t.svs"), {"a_b_s", "a_b_t", "c_s", "c_t"}),
    ],
)
def test_slides_of_one_name_are_called_by_their_folders_and_it_is_said(tmp_path, caplog, names, called):
    for name in names:
        touch(tmp_path / name)
    assert {slide.slide_id for slide in find_target(tmp_path).slides} == called
    assert "share their name with another" in caplog.text
    assert "'slide_id' column" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_that_lead_to_themselves_stop_no_search(folder):
    before = len(find_target(folder).slides)
    (folder / "loop").symlink_to("loop")
    (folder / "loop.svs").symlink_to("loop.svs")
    (folder / "up").symlink_to(".")
    slides = find_target(folder).slides
    assert len(slides) == before + 1
    (bad,) = [slide for slide in slides if slide.problem]
    assert bad.problem == "a link that leads back to itself; remove or correct it"


def test_pyramids_beside_their_slides_are_left_out_and_it_is_said(tmp_path, caplog):
    """`saccade cache X --out X`, then `saccade run X`."""
    small_slide(tmp_path / "a.tif")
    small_slide(tmp_path / "b.tif")
    assert cache_cohort(find_target(tmp_path), tmp_path).failed == 0
    assert [slide.path.name for slide in find_target(tmp_path).slides] == ["a.tif", "b.tif"]
    assert "2 pyramids in" in caplog.text
    (tmp_path / "b.tif").unlink()
    assert [slide.path.name for slide in find_target(tmp_path).slides] == ["a.tif", "b.ome.zarr"]


@pytest.mark.realdata
def test_files_of_one_dicom_series_are_one_slide(shared_data, tmp_path):
    dicom = shared_data / "slides" / "multi_frame_jpeg_camelyon_challenge_image.dcm"
    shutil.copy(dicom, tmp_path / "level0.dcm")
    shutil.copy(dicom, tmp_path / "level1.dcm")
    touch(tmp_path / "broken.dcm")
    assert [path.name for path in find_slides(tmp_path)] == ["broken.dcm", "level0.dcm"]


@pytest.mark.realdata
def test_every_real_slide_is_found(shared_data):
    found = {slide.path.name for slide in find_target(shared_data / "slides").slides}
    files = {p.name for p in (shared_data / "slides").glob("**/*") if p.suffix in (".svs", ".tiff", ".dcm", ".ndpi")}
    assert found == files


# ---- tables ----


def test_a_full_table(table, folder):
    path = table(
        "slide,patient,label,mpp,split,fold,site,time,event\n"
        "a.svs,P1,tumour,0.25,training,0,North,12,1\n"
        "\n"
        "b.ndpi,P2,normal,,TEST,1.0,,,\n"
    )
    first, second = find_target(path).slides
    assert first == CohortSlide(
        "a",
        folder / "a.svs",
        "P1",
        "tumour",
        0.25,
        "train",
        0,
        "North",
        others=(("label", "tumour"), ("time", "12"), ("event", "1")),
    )
    assert second == CohortSlide(
        "b",
        folder / "b.ndpi",
        "P2",
        "normal",
        None,
        "test",
        1,
        None,
        others=(("label", "normal"), ("time", None), ("event", None)),
    )


@pytest.mark.parametrize("slide", ["slide", "slide_id", "wsi", "FILENAME", "image_path"])
@pytest.mark.parametrize("patient", ["patient", "case_id", "PATIENT"])
def test_the_fields_other_names_for_the_columns(table, slide, patient):
    path = table(f"{patient},{slide},spacing_at_level_0\nP1,a.svs,0.5\n")
    (found,) = read_table(path).slides
    assert (found.slide_id, found.patient, found.mpp, found.label) == ("a", "P1", 0.5, None)


def test_paths_start_from_the_table_or_from_a_root_or_are_absolute(table, folder, tmp_path):
    path = table(f"slide\nsub dir/../a.svs\n{folder / 'b.ndpi'}\n")
    assert [slide.path for slide in read_table(path).slides] == [folder / "a.svs", folder / "b.ndpi"]
    moved = path.rename(tmp_path / "cohort.csv")
    assert [slide.problem for slide in read_table(moved, root=folder).slides] == [None, None]
    assert "row 2: no slide" in (read_table(moved).slides[0].problem or "")


def test_a_path_with_a_newline_survives_quoting(table, folder):
    path = table('slide,label\n"sub dir/ç\nd.TIF",x\nb.ndpi,y\n')
    assert [slide.path for slide in read_table(path).slides] == [folder / "sub dir" / "ç\nd.TIF", folder / "b.ndpi"]


def test_a_slide_without_suffix_is_found_where_only_one_fits(table, folder):
    touch(folder / "deep" / "TCGA-1.2f6b.svs")
    touch(folder / "x" / "twin.svs")
    touch(folder / "y" / "twin.tif")
    slides = read_table(table("slide_id\nb\nTCGA-1.2f6b\ntwin\nnone\n")).slides
    assert [slide.path.name for slide in slides[:2]] == ["b.ndpi", "TCGA-1.2f6b.svs"]
    assert [slide.slide_id for slide in slides[:2]] == ["b", "TCGA-1.2f6b"]
    assert "fits 2 slides (x/twin.svs, y/twin.tif)" in slides[2].problem
    assert slides[3].problem.startswith("row 5: no slide")
    assert read_table(table("slide_id\nx/twin\n")).slides[0].path == folder / "x" / "twin.svs"


def test_names_are_looked_up_in_one_listing_of_the_folder(tmp_path, monkeypatch):
    """However many rows the table has."""
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    for i in range(200):
        touch(tmp_path / "slides" / f"s{i}.svs")
    path = tmp_path / "cohort.csv"
    path.write_text("slide_id\n" + "".join(f"s{i}\n" for i in range(200)))
    assert all(slide.problem is None for slide in read_table(path, root=tmp_path / "slides").slides)
    assert listed == [tmp_path / "slides"]


def test_a_folder_with_one_slide_stands_for_it(table, folder):
    touch(folder / "uuid" / "inner.svs")
    slides = read_table(table("slide\nuuid\nsub dir\n")).slides
    assert [slide.path.name for slide in slides] == ["inner.svs", "ç\nd.TIF"]
    touch(folder / "uuid" / "second.svs")
    assert "is a folder with 2 slides" in read_table(table("slide\nuuid\n")).slides[0].problem


def test_slide_id_beside_a_path_column_names_the_slide(table, tmp_path):
    touch(tmp_path / "slides" / "x" / "s.svs")
    touch(tmp_path / "slides" / "y" / "s.svs")
    cohort = read_table(table("slide,slide_id\nx/s.svs,first/s\ny/s.svs,second\n"))
    assert [slide.slide_id for slide in cohort.slides] == ["first%2Fs", "second"]
    with pytest.raises(UsageError, match=r"two slides are called 's', row 2 and row 3"):
        read_table(table("slide\nx/s.svs\ny/s.svs\n"))


@pytest.mark.parametrize("cell", ["nan", "NaN", "abc", "0", "-0.5", "inf", "1e999"])
def test_a_bad_mpp_is_that_slides_problem_only(table, cell):
    first, second = read_table(table(f"slide,label,mpp\na.svs,x,{cell}\nb.ndpi,y,0.5\n")).slides
    assert first.mpp is None
    assert first.problem is not None
    assert f"row 2: mpp must be a positive number of µm/px, found {cell!r}; correct it" in first.problem
    assert (second.mpp, second.problem) == (0.5, None)


def test_a_missing_slide_is_that_slides_problem_only(table):
    first, second = read_table(table("slide\ngone.svs\nb.ndpi\n")).slides
    assert "no slide" in first.problem
    assert first.slide_id == "gone"
    assert second.problem is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected a header"),
        ("slide,label\n", "no slides below the header"),
        ("name,label\na.svs,x\n", r"expected a column slide or .*, found name, label"),
        ("slide,label\n,x\n", r"row 2: no slide; fill in 'slide'"),
        ("slide,label\na.svs,x,oops\n", r"row 2: 3 cells under 2 columns; .*double quotes"),
        ("slide,label\na.svs,x\nb.ndpi,y\na.svs,y\n", r"a\.svs is listed twice, in row 2 and row 4; remove one"),
        ("slide,label\na.svs,x\n./sub dir/../a.svs,y\n", "is listed twice, in row 2 and row 3"),
        ("slide,split\na.svs,holdout\n", r"row 2: split must be train, val or test, found 'holdout'"),
        ("slide,fold\na.svs,-1\n", r"row 2: fold must be a whole number from 0, found '-1'"),
        ("slide,fold\na.svs,1.5\n", r"row 2: fold must be a whole number"),
        ('slide,label\n"a.svs,x\n', r"not a valid CSV"),
        ("slide\0,label\n", r"not UTF-8 text; save the table as 'CSV UTF-8'"),
    ],
)
def test_a_broken_table_is_one_line_with_the_remedy(table, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        find_target(table(text))
    assert one_line(caught)
    assert "cohort.csv" in str(caught.value)


# ---- training ----


def test_a_training_table_may_name_its_label_column(table):
    cohort = read_training_table(table("slide,Grade\na.svs,10\nb.ndpi,9\n"), label="grade")
    assert cohort.classes == ("9", "10")
    assert read_training_table(table("slide,label\na.svs,tumour\nb.ndpi,normal\n")).classes == ("normal", "tumour")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,lable,site\na.svs,x,s\n", r"no label column 'label', found slide, lable, site; .*nearest: 'lable'"),
        ("slide,label\na.svs,x\nb.ndpi,x\n", r"column 'label' must hold two classes or more, found only 'x'"),
        ("slide,label\na.svs,x\nb.ndpi,\n", r"1 of 2 slides have no 'label', the first is 'b'; fill in"),
        ("slide,label\na.svs,nan\nb.ndpi,nan\n", r"2 of 2 slides have no 'label'"),
        ("slide,label\ngone.svs,x\nlost.svs,y\n", r"row 2: no slide .*gone\.svs.*\(and 1 more, all of them\)"),
        (
            "slide,label,patient,split\na.svs,x,P,train\nb.ndpi,y,P,test\n",
            r"patient 'P' is in both train \('a'\) and test \('b'\); put all",
        ),
        ("slide,label,split\na.svs,x,train\nb.ndpi,y,\n", r"'b' has no split while others do"),
    ],
)
def test_what_training_refuses(table, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_training_table(table(text))
    assert one_line(caught)


@pytest.mark.parametrize("column", ["label", "patient", "site"])
def test_what_differs_by_what_is_overlooked_is_refused_with_both_spellings(table, column):
    others = {"label": "patient", "patient": "label", "site": "label"}[column]
    path = table(
        f"slide,{column},{others}\na.svs,caf\u00e9,p\nb.ndpi,cafe\u0301,q\nsub dir/..,other,r\n".replace(
            "sub dir/..", "sub dir"
        )
    )
    with pytest.raises(
        UsageError, match=rf"{column} 'cafe\\u0301' and {column} 'caf\\xe9' differ only by what is overlooked"
    ):
        read_table(path)


def test_missing_values_are_no_class_no_site_and_no_patient(table):
    path = table("slide,label,patient,site\na.svs,NA,P,n/a\nb.ndpi,x,?,N\n")
    first, second = find_target(path).slides
    assert (first.label, first.site, second.patient) == (None, None, "b")
    with pytest.raises(UsageError, match=r"row 3: slide 'b' has no 'patient' \(found '\?'\).*fill it in"):
        read_training_table(path)


def test_the_positive_class_is_the_last_or_the_one_that_is_chosen(table):
    path = table("slide,label\na.svs,tumour\nb.ndpi,normal\n")
    assert read_training_table(path).classes == ("normal", "tumour")
    assert read_training_table(path, positive="normal").classes == ("tumour", "normal")
    with pytest.raises(
        UsageError, match=r"cohort\.positive must be one of two classes, found 'tumor' and .* normal, tumour"
    ):
        read_training_table(path, positive="tumor")


@pytest.mark.parametrize(
    ("column", "parts", "message"),
    [
        (
            "split",
            ("train", "train", "test", "test"),
            r"train has no slide labelled 'y' among its 2; correct the split",
        ),
        (
            "split",
            ("test", "val", "test", "val"),
            "train has no slides; correct the split column, or set training.folds",
        ),
        ("split", ("train", "test", "train", "val"), r"test has no slide labelled 'y' among its 1"),
        ("fold", (0, 0, 1, 1), r"fold 0 has no slide labelled 'y' among its 2; correct the fold column"),
    ],
)
def test_a_part_that_lacks_a_class_is_refused_unless_folds_replace_it(table, folder, column, parts, message):
    names = ["a.svs", "b.ndpi", "c.svs", "d.svs"]
    for name in names:
        touch(folder / name)
    rows = zip(names, "xxyy", parts, strict=True)
    path = table(f"slide,label,{column}\n" + "".join(f"{name},{label},{part}\n" for name, label, part in rows))
    with pytest.raises(UsageError, match=message):
        read_training_table(path)
    assert len(read_training_table(path, folds=2).slides) == 4


def test_bags_are_found_where_there_is_no_slide(folder, tmp_path):
    """Beside slides they are other files of theirs."""
    for name in ("a.h5", "x.h5"):
        touch(folder / name)
        touch(tmp_path / "bags" / "deeper" / name)
    assert [slide.slide_id for slide in find_target(folder).slides] == ["a", "b", "ç%0Ad"]
    assert [slide.slide_id for slide in find_target(tmp_path / "bags").slides] == ["a", "x"]
    (tmp_path / "bags" / "deeper" / "t.csv").write_text("slide\na\nx.h5\n")
    assert [slide.path.name for slide in read_table(tmp_path / "bags" / "deeper" / "t.csv").slides] == ["a.h5", "x.h5"]


def test_bags_stand_for_a_tables_slides_by_their_names_or_their_files(tmp_path):
    text = "slide,slide_id,patient\nslides/a.ome.tiff,one,p\nC:\\wsi\\b.svs,two,q\nc.svs,c,r\nd.svs,d,s\n"
    (tmp_path / "t.csv").write_text(text)
    for name in ("one.h5", "a.h5", "b.hdf5", "d.pt"):
        touch(tmp_path / "bags" / name)
    found = read_table(tmp_path / "t.csv", bags=tmp_path / "bags").slides
    assert [slide.slide_id for slide in found] == ["one", "two", "c", "d"]
    assert [slide.path.name for slide in found] == ["one.h5", "b.hdf5", "c.h5", "d.h5"]
    assert [slide.problem is None for slide in found] == [True, True, False, False]
    assert "no bag" in found[2].problem
    assert "no coordinates: give its h5_files" in found[3].problem
