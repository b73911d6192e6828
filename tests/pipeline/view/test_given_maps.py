"""Maps that somebody else made, as layers: at their places on the slide, and refused where they are not of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from makers import saccade
from numpy.typing import NDArray
from viewing import change_json, data_in, get, served

from pipeline.errors import UsageError
from pipeline.view.findings import find
from pipeline.view.given_maps import GivenMaps, named_maps
from pipeline.view.layers import STEPS, Layer
from pipeline.view.links import Links
from pipeline.view.run_folder import open_run
from pipeline.view.view import make_viewer
from pipeline.view.viewer import Viewer

pytest.importorskip("bokeh")

WIDTH, HEIGHT = 2048, 1536
LESION = (1280, 512, 256)
"""x, y and side, level-0 pixels of the slide "even", where maps are high."""
TILE = 64


def tiles() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Corners (N, 2) of tiles all over the slide, and .9 for those in the lesion, else .1."""
    x, y = np.meshgrid(np.arange(0, WIDTH, TILE), np.arange(0, HEIGHT, TILE))
    corners = np.stack([x.ravel(), y.ravel()], 1)
    start = np.array(LESION[:2])
    return corners, np.where(((corners >= start) & (corners < start + LESION[2])).all(1), 0.9, 0.1)


def write_clam(path: Path, *, shift: int = 0, scores: Any = None) -> None:
    corners, values = tiles()
    with h5py.File(path, "w") as file:
        file["coords"] = corners + shift
        file["attention_scores"] = (values if scores is None else scores)[:, None]
        file["coords"].attrs["patch_size_level0"] = TILE


def write_qupath(path: Path, *, shift: int = 0) -> None:
    ring = np.array([(0, 0), (TILE, 0), (TILE, TILE), (0, TILE), (0, 0)])
    objects = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [(ring + corner + shift).tolist()]},
            "properties": {"objectType": "detection", "measurements": {"tumour": value, "size": 1}},
        }
        for corner, value in zip(*tiles(), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": objects}))


def write_ome(path: Path, *, mpp: float = 32.0) -> None:
    """Of 64 level-0 pixels of .5 µm a pixel, unless told otherwise."""
    values = tiles()[1].reshape(HEIGHT // TILE, WIDTH // TILE).astype(np.float32)
    sizes = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, values, ome=True, metadata={"axes": "YX", **sizes})


FORMS = {
    "clam": ("even_blockmap.h5", write_clam),
    "qupath": ("even.geojson", write_qupath),
    "ome": ("even.ome.tif", write_ome),
    "plain": ("even.npy", lambda path: np.save(path, tiles()[1].reshape(HEIGHT // TILE, WIDTH // TILE))),
}


@pytest.fixture
def maps(tmp_path: Path) -> dict[str, Path]:
    """A folder of each form."""
    for form, (name, write) in FORMS.items():
        (tmp_path / form).mkdir()
        write(tmp_path / form / name)
    return {form: tmp_path / (f"{form}#tumour" if form == "qupath" else form) for form in FORMS}


def shown(run: Path, maps: dict[str, Path]) -> list[Layer | str]:
    slide = open_run(run).slides[0]
    ground = find(slide).ground
    assert ground is not None
    return list(GivenMaps(maps).of(slide, ground))


def at(layer: Layer, x: float, y: float) -> int:
    column, row = np.floor(layer.raster.from_level0(np.array([[x, y]]))[0]).astype(int)
    return int(layer.steps[row, column])


@pytest.mark.parametrize("form", FORMS)
def test_a_lesion_in_a_map_of_any_form_is_where_it_is_on_the_slide(
    form: str, viewed: Path, maps: dict[str, Path]
) -> None:
    [layer] = shown(viewed, {form: maps[form]})
    assert isinstance(layer, Layer), layer
    x, y, side = LESION
    near = TILE / 8
    for u, v in ((x, y), (x + side, y), (x, y + side), (x + side, y + side)):
        for du, dv in ((-near, -near), (near, -near), (-near, near), (near, near)):
            inside = x < u + du < x + side and y < v + dv < y + side
            assert at(layer, u + du, v + dv) == (STEPS - 1 if inside else 1 + round((STEPS - 2) / 9)), (u, v, du, dv)
    assert [words for _, words in layer.ticks] == ["0", "0.45", "0.9"]
    assert (layer.label, layer.title) == (form, f"{form}, as given")


def test_maps_that_are_finer_than_a_screen_are_shown_by_their_means(viewed: Path, tmp_path: Path) -> None:
    fine = np.zeros((1200, 1600))
    fine[::2] = 1.0
    np.save(tmp_path / "even.npy", fine)
    [layer] = shown(viewed, {"fine": tmp_path})
    assert isinstance(layer, Layer), layer
    assert max(layer.raster.shape) == 768
    assert layer.raster.extent_level0 == pytest.approx((0, 0, WIDTH, HEIGHT))
    assert layer.top == pytest.approx(0.5, abs=0.07), "means of its own values"


def test_few_that_are_high_are_told_in_multiples(viewed: Path, tmp_path: Path) -> None:
    """As attention from logits is: the rest would look like nothing at all."""
    scores = np.full(len(tiles()[0]), -4.0)
    scores[100], scores[200] = 4.0, 1.0
    write_clam(tmp_path / "even.h5", scores=scores)
    [layer] = shown(viewed, {"clam": tmp_path})
    assert isinstance(layer, Layer), layer
    shares = np.exp(scores) / np.exp(scores).sum()
    assert layer.top == pytest.approx(shares.max() * len(scores))
    assert layer.title == "clam, in multiples of its mean where it is not 0"
    x, y = tiles()[0][200] + TILE / 2
    assert 1 < at(layer, x, y) < STEPS - 1


def test_what_is_not_of_the_slide_is_refused_in_one_true_line(viewed: Path, tmp_path: Path) -> None:
    for name in ("far", "wide", "scale", "empty", "off", "two", "broken", "several", "none"):
        (tmp_path / name).mkdir()
    write_clam(tmp_path / "far/even.h5", shift=3000)
    np.save(tmp_path / "wide/even.npy", np.ones((30, 90)))
    write_ome(tmp_path / "scale/even.ome.tif", mpp=40.0)
    np.save(tmp_path / "empty/even.npy", np.zeros((24, 32)))
    off = np.zeros((24, 32))
    off[0, 0] = 1.0
    np.save(tmp_path / "off/even.npy", off)
    for suffix in (".npy", ".png"):
        (tmp_path / f"two/even{suffix}").touch()
    (tmp_path / "broken/even.h5").write_bytes(b"no")
    write_qupath(tmp_path / "several/even.geojson")
    for name, words in {
        "far": "are another slide's, or of another level",
        "wide": "give a map that covers the whole slide, and nothing else",
        "scale": "it is another slide's, or states another resolution",
        "empty": "is 0 everywhere",
        "off": "is 0 on all of the slide's tissue",
        "two": "found even.npy and even.png",
        "broken": "as HDF5 with coords and attention_scores",
        "several": "say which one by #NAME after the folder",
        "none": "found none",
    }.items():
        [found] = shown(viewed, {name: tmp_path / name})
        assert isinstance(found, str), name
        assert words in found
        assert found.startswith(f"The map {name} is not shown: ")
        assert "\n" not in found


def test_a_page_has_them_beside_the_run_s_own_and_so_have_pages_without_a_server(
    viewed: Path, maps: dict[str, Path]
) -> None:
    viewer = Viewer(open_run(viewed), maps=maps)
    with served(viewer) as address:
        page = get(f"{address}s/0/")[1].decode()
        other = get(f"{address}s/1/")[1].decode()
    assert [layer["label"] for layer in data_in(page)["layers"]] == ["attention", "evidence", *FORMS]
    assert [layer["label"] for layer in data_in(other)["layers"]] == ["attention", "evidence"]
    assert other.count("is not shown: expected one map") == len(FORMS), "what a slide lacks is said"
    written = data_in(viewer.page(viewer.run.slides[0], Links(served=False)))
    assert [layer["label"] for layer in written["layers"]] == ["attention", "evidence", *FORMS]
    assert json.dumps(written["figure"]).count("given-3-colours") == 1


def test_the_run_knows_where_they_lie_without_its_slides(run: Path, maps: dict[str, Path], tmp_path: Path) -> None:
    """In another frame than level 0's, which only the run tells by then."""
    shutil.rmtree(run / "slides/even/evidence.zarr")
    x, y, side = LESION

    def moved(told: dict[str, Any]) -> None:
        told.update(path="/nowhere/even.tif", origin_level0=[x, y])

    change_json(run / "slides/even/prediction.json", moved)
    with h5py.File(run / "slides/even/samples.h5", "r+") as file:
        file["coords"].attrs["bounds_level0"] = (x, y, side, side)
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    told = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "qupath/even.geojson").write_text(
        json.dumps([{**told, "properties": {"measurements": {"tumour": 1.0}}}])
    )
    sizes = {"PhysicalSizeX": 16.0, "PhysicalSizeY": 16.0, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    path = tmp_path / "ome/even.ome.tif"
    tifffile.imwrite(path, np.ones((8, 8), np.float32), ome=True, metadata={"axes": "YX", **sizes})
    drawn, part = shown(run, {"qupath": maps["qupath"], "ome": maps["ome"]})
    assert isinstance(drawn, Layer), drawn
    assert isinstance(part, Layer), part
    assert part.raster.extent_level0 == pytest.approx((x, y, x + side, y + side)), "an OME-TIFF of what was scanned"
    assert (at(drawn, x + 4, y + 4), at(drawn, x + side - 4, y + side - 4)) == (STEPS - 1, STEPS - 1)
    assert (at(drawn, x - 4, y + 4), at(drawn, x + 4, y + side + 4)) == (0, 0)
    viewer = Viewer(open_run(run), outlines=tmp_path / "qupath", maps={"tumour": maps["qupath"]})
    page = viewer.page(viewer.run.slides[0], Links(served=False))
    assert [layer["label"] for layer in data_in(page)["layers"]] == ["attention", "tumour"]
    assert "is not shown" not in page
    assert outline_in(page) == [[x, x + side, x + side, x, x], [-y, -y, -y - side, -y - side, -y]]


def outline_in(page: str) -> list[list[float]]:
    """Corners u and v of the only outline in a page's figure."""
    found: list[list[float]] = []

    def look(part: Any) -> None:
        if isinstance(part, dict):
            entries = part.get("entries") or []
            for key, value in entries if isinstance(entries, list) else []:
                if key in ("xs", "ys") and isinstance(value, list):
                    found.extend(value)
            for value in part.values():
                look(value)
        elif isinstance(part, list):
            for value in part:
                look(value)

    look(data_in(page)["figure"])
    return found


def test_a_map_that_is_written_anew_is_read_anew(viewed: Path, tmp_path: Path) -> None:
    for top in (0.5, 0.7):
        np.save(tmp_path / "even.npy", np.full((24, 32), top))
        [layer] = shown(viewed, {"own": tmp_path})
        assert isinstance(layer, Layer)
        assert layer.top == top


def test_names_are_text_whatever_they_are(viewed: Path, maps: dict[str, Path]) -> None:
    name = "</script><script>alert(1)</script>"
    viewer = Viewer(open_run(viewed), maps={name: maps["plain"]})
    page = viewer.page(viewer.run.slides[0], Links(served=False))
    assert "<script>alert" not in page
    assert data_in(page)["layers"][2]["label"] == name


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("maps", "--map maps: expected NAME=FOLDER, such as clam=heatmaps/"),
        ("=maps", "expected NAME=FOLDER"),
        ("attention=maps", "the run has its own attention: give it another name"),
    ],
)
def test_what_names_no_map_is_refused(told: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        named_maps([told])


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two are called a"):
        named_maps(["a=x", "a=y"])
    assert named_maps(["a=x=y", "b=z#of"]) == {"a": Path("x=y"), "b": Path("z#of")}


def test_folders_without_any_map_of_the_run_are_refused_before_anything_is_shown(viewed: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other/somebody.npy", np.ones((2, 2)))
    for place, words in (
        ("nowhere", f"there is no folder {tmp_path / 'nowhere'}"),
        ("other/somebody.npy", "is a file, expected a folder of maps"),
        ("other", "no slide of the run has a map in"),
    ):
        with pytest.raises(UsageError, match=r"^--map a: ") as told:
            make_viewer(viewed, maps={"a": tmp_path / place})
        assert words in str(told.value)
        assert "\n" not in str(told.value)
    done = saccade("view", viewed, "--map", f"a={tmp_path / 'other'}", "--static", tmp_path / "pages")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("saccade: error: --map a: no slide of the run has a map in"), done.stderr
    assert not (tmp_path / "pages").exists()
