"""Open what docs/interop.py made by each reader that is installed, and print where it finds things, a JSON line each.

Nothing of Saccade is imported here, so that this also runs where it is not installed.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Point = tuple[float, float] | None
"""Of level 0's edge coordinates, in pixels; None: the reader does not say."""

FOLDER = Path(sys.argv[1])
TRUTH = json.loads((FOLDER / "truth.json").read_text())
MPP = TRUTH["mpp"]
RUN = FOLDER / "run" / "slides" / "slide"
EXPORT = FOLDER / "run" / "export"
PYRAMIDS = {
    "Pyramid, native (`saccade cache`), with Saccade's codec installed": FOLDER / "native" / "slide.ome.zarr",
    "Pyramid, portable (`--profile portable`)": FOLDER / "portable" / "slide.ome.zarr",
    "Pyramid, OME-Zarr 0.4 (`--ngff 0.4`)": FOLDER / "ngff04" / "slide.ngff04.ome.zarr",
}
MAPS = {
    "Attention of a run (`attention.zarr`)": RUN / "attention.zarr",
    "Export `ome-zarr`: the maps": EXPORT / "ome-zarr" / "slide.ome.zarr",
    "Export `ome-zarr`: label image of regions": EXPORT / "ome-zarr" / "slide.ome.zarr" / "labels" / "regions",
}


def square(pixels: Any) -> tuple[float, float]:
    """Centre (column, row) of the dark square in edge coordinates of an image whose colours are an axis of 3."""
    image = np.squeeze(np.asarray(pixels))
    image = image if image.shape[-1] == 3 else np.moveaxis(image, 0, -1)
    dark = image.max(-1) < 40
    rows, columns = np.nonzero(dark)
    return float(np.median(columns)) + 0.5, float(np.median(rows)) + 0.5


def hottest(values: Any) -> tuple[float, float]:
    """Centre (column, row) of the highest values in edge coordinates: of the first channel where there are several."""
    image = np.asarray(values)
    image = image.reshape(-1, *image.shape[-2:])[0]
    rows, columns = np.nonzero(image == image.max())
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def from_centres(at: tuple[float, float], scale: dict[str, float], move: dict[str, float]) -> Point:
    """Level-0 place of edge coordinates, by a scale and a translation in µm of pixels' centres: OME-Zarr's."""
    x, y = ((v - 0.5) * scale[k] + move[k] for v, k in zip(at, "xy", strict=True))
    return x / MPP + 0.5, y / MPP + 0.5


# --- each returns where it finds what it looks for


def zarr_level(path: Path) -> Point:
    import zarr

    square(zarr.open_group(path, mode="r")["1"][:])
    return None


def xarray_level(path: Path) -> Point:
    import xarray

    others = [name.name for name in path.iterdir() if name.is_dir() and name.name not in ("1", "labels")]
    array = xarray.open_zarr(path, consolidated=False, drop_variables=others)["1"]
    assert array.dims[-2:] == ("y", "x")
    square(array)
    return None


def xarray_map(path: Path) -> Point:
    import xarray

    array = xarray.open_zarr(path, consolidated=False, drop_variables=["told", "labels"])["0"]
    assert array.dims[-2:] == ("y", "x")
    hottest(array)
    return None


def ngff_zarr_image(path: Path, look: Callable[[Any], tuple[float, float]], level: int) -> Point:
    import ngff_zarr

    image = ngff_zarr.from_ngff_zarr(str(path)).images[level]
    return from_centres(look(image.data), image.scale, image.translation)


def ome_zarr_image(path: Path, look: Callable[[Any], tuple[float, float]], level: int) -> Point:
    import ome_zarr.io
    import ome_zarr.reader

    location = ome_zarr.io.parse_url(path, mode="r")
    nodes = list(ome_zarr.reader.Reader(location)())
    node = next((one for one in nodes if "labels" in path.parts and one.zarr.basename() == path.name), nodes[0])
    steps = {step["type"]: step[step["type"]] for step in node.metadata["coordinateTransformations"][level]}
    scale = dict(zip("yx", steps["scale"][-2:], strict=True))
    return from_centres(
        look(node.data[level]), scale, dict(zip("yx", steps.get("translation", (0, 0))[-2:], strict=True))
    )


def ngio_image(path: Path, look: Callable[[Any], tuple[float, float]], level: int) -> Point:
    import ngio

    if path.parent.name == "labels":
        image = ngio.open_ome_zarr_container(path.parent.parent).get_label(path.name)
    else:
        image = ngio.open_ome_zarr_container(path).get_image(path=str(level))
    scale = {"x": image.pixel_size.x, "y": image.pixel_size.y}
    move = dict(zip("yx", tuple(image.dataset.translation)[-2:], strict=True))
    return from_centres(look(image.get_as_numpy()), scale, move)


def napari_image(path: Path, look: Callable[[Any], tuple[float, float]], level: int) -> Point:
    from napari_ome_zarr import napari_get_reader

    layers = napari_get_reader(str(path))(str(path))
    kind = "labels" if path.parent.name == "labels" else "image"
    data, told, _ = next(layer for layer in layers if layer[2] == kind)
    at = look(data[level] if isinstance(data, list) else data)
    # napari scales by the first level, whose pixels others are stretched over
    full = np.array(data[0].shape[-2:]) if isinstance(data, list) else np.array(data.shape[-2:])
    factor = full / np.array((data[level] if isinstance(data, list) else data).shape[-2:])
    index = np.array([at[1], at[0]]) * factor - 0.5
    affine = np.asarray(getattr(told.get("affine"), "affine_matrix", np.eye(3)))
    place = affine[-3:, -3:] @ [*(index * np.asarray(told.get("scale", (1, 1)))[-2:]), 1]
    return place[1] / MPP + 0.5, place[0] / MPP + 0.5


def tifffile_map(path: Path) -> Point:
    import tifffile

    with tifffile.TiffFile(path) as file:
        told = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        level = file.series[0].levels[-1]
        factor = np.array(file.series[0].levels[0].shape[:0:-1]) / level.shape[:0:-1]
        x, y = np.array(hottest(level.asarray())) * factor * (told["PhysicalSizeX"], told["PhysicalSizeY"]) / MPP
    return x, y


def openslide_colours(path: Path) -> Point:
    import openslide

    with openslide.OpenSlide(path) as slide:
        level = slide.level_count - 1
        image = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3].astype(float)
        side = float(slide.properties["openslide.mpp-x"]) * slide.level_downsamples[level] / MPP
    x, y = hottest(-image[..., 2])
    return x * side, y * side


def vips_map(path: Path) -> Point:
    import pyvips

    image = pyvips.Image.new_from_file(str(path), subifd=0)
    x, y = hottest(np.squeeze(image.numpy()))
    return x * 1000 / image.xres / MPP, y * 1000 / image.yres / MPP


def highdicom_map(path: Path) -> Point:
    import highdicom

    image = highdicom.imread(sorted(path.glob("attention-*.dcm"))[-1])
    x, y = hottest(image.get_total_pixel_matrix(apply_real_world_transform=True))
    down, across = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    return x * float(across) * 1000 / MPP, y * float(down) * 1000 / MPP


def highdicom_regions(path: Path) -> Point:
    import highdicom

    group = highdicom.ann.annread(path / "annotations.dcm").get_annotation_groups()[1]
    values = group.get_measurements()[1][:, 1]
    outline = group.get_graphic_data("2D")[int(np.argmax(values))]
    return _inside(outline)


def wsidicom_regions(path: Path) -> Point:
    from pydicom import dcmread
    from wsidicom.graphical_annotations import AnnotationInstance

    group = AnnotationInstance.open_dataset(dcmread(path / "annotations.dcm")).groups[1]
    strongest = max(group.annotations, key=lambda one: one.measurements[1].value)
    return _inside(np.array([(p.x, p.y) for p in strongest.geometry.points]))


def _inside(outline: Any) -> Point:
    """The true place where it is in the outline's box, else the box's centre."""
    low, high = outline.min(0), outline.max(0)
    true = np.array(TRUTH["cell"])
    return tuple(true) if ((low <= true) & (true <= high)).all() else tuple((low + high) / 2)


def spatialdata_cells(path: Path) -> Point:
    import spatialdata
    from spatialdata.transformations import get_transformation

    store = spatialdata.read_zarr(path)
    table = store.tables["cells_table"]
    strongest = int(table.obs["object"].iloc[int(np.argmax(np.asarray(table.X)[:, 0]))])
    labels = store.labels["cells"]
    rows, columns = np.nonzero(np.asarray(labels) == strongest)
    matrix = get_transformation(labels, "global").to_affine_matrix(("x", "y"), ("x", "y"))
    x, y, _ = matrix @ [columns.mean() + 0.5, rows.mean() + 0.5, 1]
    return x, y


def torchmil_bag(path: Path) -> Point:
    from torchmil.datasets import ProcessedMILDataset

    bags = ProcessedMILDataset(
        features_path=str(path / "features"), coords_path=str(path / "coords"), bag_keys=["X", "coords"], file_ext=".h5"
    )
    found = np.asarray(bags[0]["coords"], float)
    import h5py

    with h5py.File(RUN / "samples.h5") as file:
        own = np.asarray(file["coords"][:], float)
    return tuple(TRUTH["cell"]) if found.shape == own.shape and np.allclose(found, own) else None


def rows() -> list[tuple[str, str, str, Callable[[], Point], str, float]]:
    """What, by which reader, of which distribution, how, what is looked for, and how large its pixels are."""
    found: list[tuple[str, str, str, Callable[[], Point], str, float]] = []
    images = {
        "ome-zarr": ("ome-zarr", ome_zarr_image),
        "ngff-zarr": ("ngff-zarr", ngff_zarr_image),
        "napari-ome-zarr": ("napari-ome-zarr", napari_image),
        "ngio": ("ngio", ngio_image),
    }
    native = next(iter(PYRAMIDS.values()))
    what = "Pyramid, native, without Saccade"
    found.append((what, "zarr with imagecodecs-zarr", "imagecodecs-zarr", lambda: zarr_level(native), "square", 2))
    for what, path in PYRAMIDS.items():
        found.append((what, "zarr", "zarr", lambda path=path: zarr_level(path), "square", 2))
        found.append((what, "xarray", "xarray", lambda path=path: xarray_level(path), "square", 2))
        for reader, (name, read) in images.items():
            found.append((what, reader, name, lambda p=path, r=read: r(p, square, 1), "square", 2))
    side = max(TRUTH["cell_side"])
    for what, path in MAPS.items():
        found.append((what, "xarray", "xarray", lambda path=path: xarray_map(path), "cell", side))
        for reader, (name, read) in images.items():
            look = labelled if "labels" in path.parts else hottest
            found.append((what, reader, name, lambda p=path, r=read, k=look: r(p, k, 0), "cell", side))
    tiff, colours = EXPORT / "ome-tiff" / "slide.ome.tif", EXPORT / "ome-tiff" / "slide.colours.tif"
    what = "Export `ome-tiff`"
    found.append((what, "tifffile", "tifffile", lambda: tifffile_map(tiff), "cell", side))
    found.append((what, "libvips (pyvips)", "pyvips", lambda: vips_map(tiff), "cell", side))
    found.append(
        (f"{what}: the colours", "OpenSlide", "openslide-python", lambda: openslide_colours(colours), "cell", side)
    )
    what, path = "Export `dicom`", EXPORT / "dicom" / "slide"
    found.append((f"{what}: parametric map", "highdicom", "highdicom", lambda: highdicom_map(path), "cell", side))
    found.append((f"{what}: annotations", "highdicom", "highdicom", lambda: highdicom_regions(path), "cell", side))
    found.append((f"{what}: annotations", "wsidicom", "wsidicom", lambda: wsidicom_regions(path), "cell", side))
    store = EXPORT / "spatialdata" / "slide.zarr"
    found.append(("Export `spatialdata`", "spatialdata", "spatialdata", lambda: spatialdata_cells(store), "cell", side))
    bags = EXPORT / "torchmil"
    found.append(("Export `torchmil`", "torchmil", "torchmil", lambda: torchmil_bag(bags), "cell", side))
    return found


def labelled(numbers: Any) -> tuple[float, float]:
    """The pixel of the hottest cell, if its region is there: a label image has no values of its own."""
    image = np.squeeze(np.asarray(numbers))
    column, row = (int(v / s) for v, s in zip(TRUTH["cell"], TRUTH["cell_side"], strict=True))
    assert image.shape == tuple(TRUTH["cells"][::-1]), f"found {image.shape}"
    assert image[row, column] > 0, "the hottest cell is in no region"
    return column + 0.5, row + 0.5


def outcome(read: Callable[[], Point], wanted: str, pixel: float) -> str:
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            found = read()
    except Exception as exc:
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())[:140]
        return f"does not open: `{reason}`"
    if found is None:
        return "opens; place lost"
    off = np.abs(np.array(found) - TRUTH[wanted]).max()
    return "opens, at its place" if off <= pixel else f"opens, {off:.0f} level-0 pixels off"


def main() -> None:
    for what, reader, distribution, read, wanted, pixel in rows():
        try:
            told = version(distribution)
        except PackageNotFoundError:
            told = ""
        found = outcome(read, wanted, pixel) if told else "not installed where this was made"
        print(json.dumps({"what": what, "reader": reader, "version": told, "found": found}), flush=True)


if __name__ == "__main__":
    main()
