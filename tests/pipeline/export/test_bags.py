"""The patches of a run as CLAM, TRIDENT and torchmil load them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
from numpy.typing import NDArray

from pipeline.export.export import export_run
from pipeline.view.run_folder import open_run
from pipeline.view.samples import read_samples
from stages.bags.bag import BagError, read_bag

AWKWARD_NAME = "Fälle 12%0Aü, %22x%22.d"


@pytest.fixture(scope="module")
def exported(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bags in every form."""
    out = tmp_path_factory.mktemp("exported")
    assert export_run(ran, ["clam", "trident", "torchmil"], out=out).written == 3
    return out


def patches_of(run: Path, name: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Corners and features of the patches that a run read."""
    with h5py.File(run / "slides" / name / "samples.h5") as file:
        return file["coords"][:], file["features"][:]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_clam_s_dataset_finds_table_tensors_and_coordinates(ran: Path, exported: Path) -> None:
    """What Generic_MIL_Dataset does: a row's slide_id leads to both files, its label and case are there."""
    torch = pytest.importorskip("torch")
    rows = read_csv(exported / "clam" / "slides.csv")
    assert rows == [
        {"case_id": "p1", "slide_id": "bounded", "label": "tumour"},
        {"case_id": "p2", "slide_id": AWKWARD_NAME, "label": "normal"},
    ]
    for name in (*(row["slide_id"] for row in rows), "odd"):
        corners, features = patches_of(ran, name)
        tensor = torch.load(exported / "clam" / "pt_files" / f"{name}.pt", weights_only=True)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), features)
        with h5py.File(exported / "clam" / "h5_files" / f"{name}.h5") as file:
            np.testing.assert_array_equal(file["features"][:], features)
            np.testing.assert_array_equal(file["coords"][:], corners)
            assert file["coords"].dtype == np.int64


def test_a_label_that_is_gone_leaves_clam_s_table(run: Path, tmp_path: Path) -> None:
    """The run was told other labels since; slides of other exports keep their rows, an empty table its header."""
    record = run / "run.json"
    told = json.loads(record.read_text())
    export_run(run, ["clam"], out=tmp_path)
    for name, left in (("bounded", [AWKWARD_NAME]), (AWKWARD_NAME, [])):
        del told["labels"][name]["label"]
        record.write_text(json.dumps(told))
        export_run(run, ["clam"], out=tmp_path, only=[name])
        assert [row["slide_id"] for row in read_csv(tmp_path / "clam" / "slides.csv")] == left
    assert (tmp_path / "clam" / "slides.csv").read_text() == "case_id,slide_id,label\n"


def test_trident_reads_at_its_coordinates_what_the_features_were_made_of(
    ran: Path, exported: Path, checkpoint: Path
) -> None:
    """By the arithmetic of its WSIPatcher, through OpenSlide: patch_size * level0_magnification / target_magnification
    level-0 pixels from coords on. The run's encoder makes the same features of that, within bounds and without."""
    from torch import from_numpy, no_grad

    from pipeline.model.checkpoint import load_model

    encoder = load_model(checkpoint).encoder
    job = exported / "trident" / "20x_64px_0px_overlap"
    [folder] = job.glob("features_*")
    for one in open_run(ran).slides[:2]:
        with h5py.File(job / "patches" / f"{one.name}_patches.h5") as file:
            said, coords = dict(file["coords"].attrs), file["coords"][:]
        with h5py.File(folder / f"{one.name}.h5") as file:
            wanted = file["features"][:]
            np.testing.assert_array_equal(file["coords"][:], coords)
        side = round(said["patch_size"] * said["level0_magnification"] / said["target_magnification"])
        assert side == said["patch_size_level0"] == 64
        with openslide.OpenSlide(str(one.row["path"])) as slide:
            regions = [slide.read_region((x, y), 0, (side, side)).convert("RGB") for x, y in coords.tolist()]
        with no_grad():
            features = encoder(from_numpy(np.stack([np.asarray(region) for region in regions]))).numpy()
        np.testing.assert_allclose(features, wanted, atol=1e-4)


def test_trident_s_list_of_slides_leads_to_them(ran: Path, exported: Path) -> None:
    rows = {row["slide_id"]: row for row in read_csv(exported / "trident" / "slides.csv")}
    assert set(rows) == {"bounded", "odd", AWKWARD_NAME}
    assert all((ran.parent / row["wsi"]).is_file() and float(row["mpp"]) == 0.5 for row in rows.values())
    assert [rows[name]["label_number"] for name in ("bounded", "odd", AWKWARD_NAME)] == ["1", "", "0"]


def test_torchmil_s_folders_hold_what_its_dataset_reads_by_name(ran: Path, exported: Path) -> None:
    for name in ("bounded", "odd", AWKWARD_NAME):
        corners, features = patches_of(ran, name)
        for key, values in (("features", features), ("coords", corners)):
            with h5py.File(exported / "torchmil" / key / f"{name}.h5") as file:
                np.testing.assert_array_equal(file[key][:], values)
    for name, label in (("bounded", 1), (AWKWARD_NAME, 0)):
        with h5py.File(exported / "torchmil" / "labels" / f"{name}.h5") as file:
            assert file["labels"][:].tolist() == [label]
    assert not (exported / "torchmil" / "labels" / "odd.h5").exists()


@pytest.mark.filterwarnings("default")
def test_torchmil_loads_its_own_folders_and_trident_s(ran: Path, exported: Path) -> None:
    """By its own classes, which build the neighbours of patches from coordinates, too. Labels are in a folder: of its
    table TridentWSIDataset cuts off what follows the last dot of each name, again with each bag."""
    datasets = pytest.importorskip("torchmil.datasets")
    folder, labelled = exported / "torchmil", [AWKWARD_NAME, "bounded"]
    keys = ["X", "Y", "coords", "adj"]
    paths = {f"{name}_path": str(folder / name) for name in ("features", "labels", "coords")}
    bags = datasets.ProcessedMILDataset(**paths, bag_names=labelled, bag_keys=keys, file_ext=".h5", dist_thr=96)
    every = datasets.ProcessedMILDataset(features_path=paths["features_path"], bag_keys=["X"], file_ext=".h5")
    assert every.get_bag_names() == sorted(("bounded", "odd", AWKWARD_NAME))
    [job] = [path for path in (exported / "trident").iterdir() if path.is_dir()]
    [features] = job.glob("features_*")
    how = {"feature_extractor": features.name.removeprefix("features_"), "patch_size": 64, "wsi_names": labelled}
    tridents = datasets.TridentWSIDataset(f"{job}/", paths["labels_path"], bag_keys=keys, **how)
    how |= {"wsi_name_col": "slide_id", "wsi_label_col": "label_number", "wsi_names": ["bounded"]}
    by_table = datasets.TridentWSIDataset(f"{job}/", str(exported / "trident" / "slides.csv"), bag_keys=["Y"], **how)
    assert by_table[0]["Y"].tolist() == [1]
    for i, (name, label) in enumerate(zip(labelled, (0, 1), strict=True)):
        corners, wanted = patches_of(ran, name)
        for bag in (bags[i], tridents[i]):
            np.testing.assert_array_equal(bag["X"].numpy(), wanted)
            assert bag["Y"].tolist() == [label]
            assert bag["adj"].shape == (len(corners), len(corners))
        np.testing.assert_array_equal(bags[i]["coords"].numpy(), corners)
        np.testing.assert_array_equal(tridents[i]["coords"].numpy(), corners // 64)


@pytest.mark.parametrize(
    "path", ["clam/h5_files/odd.h5", "torchmil/features/odd.h5", "trident/20x_64px_0px_overlap/features_*/odd.h5"]
)
def test_drawn_patches_are_not_taken_for_all_of_a_slide(ran: Path, exported: Path, path: str) -> None:
    """Read back as bags of whole slides they are refused as the run's own are: their weights came along."""
    [bag] = exported.glob(path)
    with pytest.raises(BagError, match="which stand for the others by their weights"):
        read_bag(bag)
    with h5py.File(bag) as file:
        np.testing.assert_allclose(file["weight"][:], read_samples(ran / "slides" / "odd" / "samples.h5").weights)


def test_slides_of_several_exports_are_in_one_table(ran: Path, tmp_path: Path) -> None:
    for name in (AWKWARD_NAME, "bounded", AWKWARD_NAME):
        export_run(ran, ["clam"], out=tmp_path, only=[name])
    assert [row["slide_id"] for row in read_csv(tmp_path / "clam" / "slides.csv")] == [AWKWARD_NAME, "bounded"]
