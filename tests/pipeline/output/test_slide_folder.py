"""What lands on disk is whole, ours, and readable by those who expect it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from makers import ROOT

from pipeline.errors import UsageError
from pipeline.output.attention_map import read_attention_zarr, write_attention_zarr
from pipeline.output.bags import write_samples_h5
from pipeline.output.documents import read_json, write_json
from pipeline.output.folder import is_output, prepare_output
from pipeline.output.run_record import write_run
from pipeline.output.slide_folder import COMMIT, begin_slide, read_commit, slide_key, write_commit, write_thumbnail
from pipeline.output.table import prediction_columns, write_predictions, write_table
from stages.disk import ForeignFolderError, new_file, new_folder
from stages.geometry import Mpp, Raster, level_raster
from stages.slide.files import open_slide

AWKWARD = 'Fälle 12\nü, "x".d'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name has spaces, quotes, a newline and more than ASCII in it."""
    path = tmp_path / AWKWARD
    path.mkdir()
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- atomic writes ----


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_keeps_the_old_file_and_leaves_nothing(folder, error):
    path = folder / "a.json"
    path.write_text("old")

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(folder) == {"a.json"}


def test_the_temporary_path_is_a_hidden_neighbour_with_the_same_suffix(folder):
    with new_file(folder / "x.ome.tiff") as temporary:
        assert temporary.parent == folder
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".tiff"
        temporary.write_text("new")
        assert not (folder / "x.ome.tiff").exists()
    assert (folder / "x.ome.tiff").read_text() == "new"
    assert names(folder) == {"x.ome.tiff"}


def test_files_get_the_permissions_that_new_files_get(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_json(tmp_path / "ours", {})
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_leaves_the_old_file(folder):
    path = folder / "a.json"
    path.write_text("old")
    script = (
        "import os, pathlib, signal, sys\n"
        "from stages.disk import new_file\n"
        "with new_file(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    with new_file(path) as first, new_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == {"a.txt"}


def test_a_directory_appears_whole_and_replaces_only_ours(folder):
    def ours(path: Path) -> bool:
        return (path / "mark").exists()

    def fill(text: str, error: type[Exception] | None = None) -> None:
        with new_folder(folder / "d.zarr", ours=ours) as temporary:
            (temporary / "mark").touch()
            (temporary / "sub").mkdir()
            (temporary / "sub" / "data").write_text(text)
            if error:
                raise error

    fill("one")
    fill("two")
    assert (folder / "d.zarr" / "sub" / "data").read_text() == "two"
    with pytest.raises(RuntimeError):
        fill("half", RuntimeError)
    assert (folder / "d.zarr" / "sub" / "data").read_text() == "two"
    (folder / "theirs.zarr").mkdir()
    (folder / "theirs.zarr" / "precious").touch()
    with (
        pytest.raises(ForeignFolderError, match=r"theirs\.zarr was not written by saccade and stays"),
        new_folder(folder / "theirs.zarr", ours=ours),
    ):
        pass
    assert names(folder) == {"d.zarr", "theirs.zarr"}
    assert names(folder / "theirs.zarr") == {"precious"}


# ---- output folders ----


def test_an_output_folder_is_made_marked_and_used_again(folder):
    out = folder / "deep" / "out"
    prepare_output(out)
    assert is_output(out)
    write_run(out / "run.json", {})
    prepare_output(out)
    assert names(out) == {".saccade", "run.json"}


@pytest.mark.parametrize("name", ["predictions.csv", "run.json", "slides", "model.safetensors"])
def test_what_another_program_wrote_is_never_written_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"already has a '{name}' that saccade did not write; choose an --out"):
        prepare_output(tmp_path)
    assert names(tmp_path) == {name}


def test_other_files_in_an_output_folder_are_fine(tmp_path):
    (tmp_path / "notes.txt").touch()
    prepare_output(tmp_path)
    assert names(tmp_path) == {".saccade", "notes.txt"}


def test_a_file_in_the_way_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot write to .*; choose another --out") as caught:
            prepare_output(out)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses even its owner")
def test_an_unwritable_folder_is_one_line_with_the_remedy():
    with pytest.raises(UsageError, match=r"cannot write to /proc/self: .*; choose another --out"):
        prepare_output(Path("/proc/self"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line_with_the_remedy(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied; choose another --out"):
        prepare_output(tmp_path)


# ---- keys and commit marks ----


def test_keys_change_with_every_part_and_not_with_order():
    key = slide_key("abc", {"samples": 32, "mpp": None, "scheme": "iid"})
    assert len(key) == 64
    assert key == slide_key("abc", {"scheme": "iid", "samples": 32, "mpp": None})
    others = [
        slide_key("abd", {"samples": 32, "mpp": None, "scheme": "iid"}),
        slide_key("abc", {"samples": 33, "mpp": None, "scheme": "iid"}),
        slide_key("abc", {"samples": 32, "mpp": 0.5, "scheme": "iid"}),
        slide_key("abc", {"samples": 32, "scheme": "iid"}),
    ]
    assert len({key, *others}) == 5
    with pytest.raises(ValueError, match="JSON compliant"):
        slide_key("abc", {"mpp": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        slide_key("abc", {"path": object()})


def test_a_commit_mark_is_read_back_and_taken_back_before_a_new_start(folder):
    slide = folder / "s"
    assert read_commit(slide) is None
    begin_slide(slide)
    record = {"key": "k", "fingerprint": "f", "path": f"/x/{AWKWARD}\udcff", "row": {"prob_a": 0.5}}
    write_commit(slide, record)
    assert read_commit(slide) == record
    begin_slide(slide)
    assert read_commit(slide) is None
    assert names(slide) == set()


@pytest.mark.parametrize(
    "content", [b"", b'{"key": "k", "ro', b"[1]", b'{"row": 1}', b'{"key": 1}', b"\xff\xfe", b"null"]
)
def test_a_damaged_commit_mark_counts_as_none(tmp_path, content):
    (tmp_path / COMMIT).write_bytes(content)
    assert read_commit(tmp_path) is None


def test_a_commit_without_a_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a 'key'"):
        write_commit(tmp_path, {"row": 1})


# ---- JSON and tables ----


def test_json_has_no_nan_and_takes_numpy_and_paths(folder):
    value = {"a": np.float32(0.5), "b": [float("nan"), np.inf, -np.inf], "c": np.arange(3), 4: (folder, True, None)}
    write_json(folder / "v.json", value)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads((folder / "v.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {"a": 0.5, "b": [None, None, None], "c": [0, 1, 2], "4": [str(folder), True, None]}
    assert read_json(folder / "v.json") == read


def test_predictions_have_the_columns_that_are_promised(folder):
    done = {"slide_id": "a", "path": f"/x/{AWKWARD}/a.svs", "status": "ok", "error": "", "predicted": "yes"}
    done |= {"prob_no": 0.25, "prob_no_low": 0.2, "prob_no_high": float("nan")}
    done |= {"prob_yes": 1 / 3, "prob_yes_low": np.float32(0.5), "prob_yes_high": 1.0}
    done |= {"patches_read": 32, "cells": 123456789, "fraction_read": 1e-9, "bytes_read": 10**12, "seconds": 1.5}
    done |= {"key": "k", "not_a_column": 1}
    failed = {"slide_id": "b", "path": "/x/b\r.svs\udcff", "status": "failed", "error": "no\n  such\tfile"}
    path = folder / "predictions.csv"
    write_predictions(path, [done, failed], ["no", "yes"])
    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    columns = (
        "slide_id,path,status,error,predicted,prob_no,prob_no_low,prob_no_high,prob_yes,prob_yes_low,prob_yes_high,"
        "patches_read,cells,fraction_read,bytes_read,seconds,key"
    )
    assert ",".join(first) == columns
    assert first["path"] == f"/x/{AWKWARD}/a.svs"
    assert (first["prob_no_high"], first["prob_yes"], first["cells"]) == ("", "0.333333", "123456789")
    assert (second["path"], second["error"], second["prob_no"]) == ("/x/b\r.svs\\udcff", "no such file", "")
    frame = pd.read_csv(path)
    assert frame["bytes_read"][0] == 10**12
    assert frame["status"].tolist() == ["ok", "failed"]


def test_classes_whose_columns_collide_are_refused():
    with pytest.raises(UsageError, match=r"two columns 'prob_x_low'; rename a class"):
        prediction_columns(["x", "x_low"])


def test_a_table_takes_its_columns_from_its_rows(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": 1}, {"b": None, "a": 2.5}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n2.5,\n"
    write_table(tmp_path / "t.csv", [], ["a", "b"])
    assert (tmp_path / "t.csv").read_text() == "a,b\n"


def test_a_run_says_what_made_it(tmp_path):
    write_run(tmp_path / "run.json", {"command": ["saccade", "run"], "ok": 3})
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["program"] == "saccade"
    assert run["ok"] == 3
    assert {"saccade", "torch", "zarr", "dask", "openslide-python", "python"} <= set(run["versions"])
    assert run["versions"]["zarr"] == zarr.__version__
    assert run["machine"]["cpus"] >= 1


# ---- pictures and arrays ----


def test_a_thumbnail_is_a_png_of_the_same_pixels(folder):
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_thumbnail(folder / "thumbnail.png", rgb)
    with Image.open(folder / "thumbnail.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), rgb)


def test_an_attention_map_comes_back_in_its_place(folder):
    path = folder / "attention.zarr"
    raster = Raster(x=13.5, y=-2.25, scale_x=127.9, scale_y=128.1, width=5, height=3)
    attention = np.random.default_rng(0).random((3, 5))
    for _ in range(2):
        write_attention_zarr(path, attention, raster)
    found, place = read_attention_zarr(path)
    assert place == raster
    assert np.array_equal(found, attention.astype(np.float32))
    array = zarr.open_array(str(path), mode="r")
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("y", "x")
    place_written = {"frame": "level0", "x": 13.5, "y": -2.25, "scale_x": 127.9, "scale_y": 128.1}
    assert dict(array.attrs) == {"saccade": place_written}
    assert names(folder) == {"attention.zarr"}


def test_an_attention_map_larger_than_its_chunks(tmp_path):
    attention = np.random.default_rng(0).random((3, 2500))
    write_attention_zarr(tmp_path / "a.zarr", attention, Raster(0, 0, 1, 1, 2500, 3))
    assert np.array_equal(read_attention_zarr(tmp_path / "a.zarr")[0], attention.astype(np.float32))


def test_a_zarr_that_is_not_ours_is_kept_and_a_wrong_shape_refused(tmp_path):
    zarr.create_array(store=str(tmp_path / "theirs.zarr"), shape=(2,), dtype="f4")
    raster = Raster(0, 0, 1, 1, 3, 2)
    with pytest.raises(UsageError, match="was not written by saccade"):
        write_attention_zarr(tmp_path / "theirs.zarr", np.zeros((2, 3)), raster)
    with pytest.raises(UsageError, match="no attention map at"):
        read_attention_zarr(tmp_path / "theirs.zarr")
    with pytest.raises(ValueError, match=r"\(3, 2\) on a raster of shape \(2, 3\)"):
        write_attention_zarr(tmp_path / "new.zarr", np.zeros((3, 2)), raster)
    assert names(tmp_path) == {"theirs.zarr"}


# ---- bags ----


@dataclass(frozen=True)
class Bag:
    path: Path
    boxes: np.ndarray
    features: np.ndarray


@pytest.fixture
def bag(folder: Path, slides_folder: Path) -> Bag:
    facts = open_slide(slides_folder / "even.tif", mpp=0.25).facts
    rng = np.random.default_rng(0)
    corners = rng.integers(-20, 1500, (37, 2))
    boxes = np.concatenate([corners, np.full((37, 2), 128 * 2.0)], 1).astype(float)
    features = rng.normal(size=(37, 16)).astype(np.float32)
    path = folder / "samples.h5"
    write_samples_h5(
        path,
        slide_id="even",
        facts=facts,
        patch_px=128,
        patch_mpp=0.5,
        boxes_level0=boxes,
        cells=np.arange(37),
        features=features,
        attention=rng.random(37),
        weights=rng.random(37),
    )
    return Bag(path, boxes, features)


def test_a_bag_reads_as_clam_and_torchmil_read_it(bag):
    with h5py.File(bag.path, "r") as file:
        assert np.array_equal(file["features"][:], bag.features)
        assert np.array_equal(file["coords"][:], bag.boxes[:, :2])
        assert (file["coords"].dtype, file["features"].dtype) == (np.int64, np.float32)
        assert file["coords"].chunks == (37, 2)
        assert file["features"].chunks == (37, 16)
        assert {name: file[name].shape for name in ("attention", "weight", "cell")} == dict.fromkeys(
            ("attention", "weight", "cell"), (37,)
        )
        attributes = dict(file["coords"].attrs)
    assert attributes["name"] == "even"
    assert attributes["save_path"] == str(bag.path.parent)
    assert (attributes["level0_width"], attributes["level0_height"]) == (2048, 1536)


def test_a_bags_patches_cover_what_was_read_for_clam_and_for_trident(bag):
    with h5py.File(bag.path, "r") as file:
        at = dict(file["coords"].attrs)
    # TRIDENT: level-0 side from the two magnifications
    assert round(at["patch_size"] * at["level0_magnification"] / at["target_magnification"]) == 256
    assert at["patch_size_level0"] == 256
    # CLAM: patch_size pixels at patch_level, 2x coarser than level 0 here
    assert at["patch_level"] == 1
    assert at["patch_size"] * at["downsample"][0] == 256
    assert tuple(at["level_dim"]) == (1024, 768)
    assert (at["target_mpp"], tuple(at["mpp_level0"])) == (0.5, (0.25, 0.25))


def test_bags_of_nothing_and_of_much_and_of_unequal_lengths(tmp_path, slides_folder):
    facts = open_slide(slides_folder / "even.tif", mpp=0.5).facts

    def write(n: int, cells: int) -> None:
        write_samples_h5(
            tmp_path / "s.h5",
            slide_id="s",
            facts=facts,
            patch_px=64,
            patch_mpp=0.5,
            boxes_level0=np.zeros((n, 4)),
            cells=np.zeros(cells),
            features=np.zeros((n, 3)),
            attention=np.zeros(n),
            weights=np.zeros(n),
        )

    for n in (0, 3000):
        write(n, n)
        with h5py.File(tmp_path / "s.h5", "r") as file:
            assert file["features"].shape == (n, 3)
            assert file["features"].chunks == (max(1, min(n, 1024)), 3)
    with pytest.raises(ValueError, match="one row for each patch in every dataset"):
        write(5, 4)
    with h5py.File(tmp_path / "s.h5", "r") as file:
        assert len(file["coords"]) == 3000
    assert names(tmp_path) == {"s.h5"}


def test_the_level_for_clam_is_the_nearest_in_scale(tmp_path, slides_folder):
    facts = open_slide(slides_folder / "odd.tif", mpp=0.5).facts  # levels of 0.5 and 2 µm/px
    assert facts.mpp == Mpp(0.5, 0.5)
    assert facts.levels[1] == level_raster((1803, 2401), (450, 600))
    levels = {}
    for patch_mpp in (0.5, 0.9, 1.2, 2.0, 8.0):
        write_samples_h5(
            tmp_path / "s.h5",
            slide_id="s",
            facts=facts,
            patch_px=64,
            patch_mpp=patch_mpp,
            boxes_level0=np.zeros((1, 4)),
            cells=[0],
            features=np.zeros((1, 3)),
            attention=[1],
            weights=[1],
        )
        with h5py.File(tmp_path / "s.h5", "r") as file:
            levels[patch_mpp] = int(file["coords"].attrs["patch_level"])
    assert levels == {0.5: 0, 0.9: 0, 1.2: 1, 2.0: 1, 8.0: 1}
