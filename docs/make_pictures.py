"""Make the pictures of the documentation (`python docs/make_pictures.py`), each from slides, none by hand.

    demo-overlay.jpg    the overlay of a slide of the demo: `make demo` comes first
    drawing.jpg         a real slide in SACCADE_DATA's folder: CMU-1-Small-Region of OpenSlide's test data (CC0)
    intervals.png       the example of reading-results.md

What its slides are missing for is left as it is, and said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import zarr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import saccade  # noqa: E402 - of this checkout
from benchmarks.places import data_folder  # noqa: E402
from pipeline.model.sampler import AttentionSampler  # noqa: E402
from pipeline.model.spec import ModelSpec  # noqa: E402
from stages.disk import new_file  # noqa: E402

LARGEST = 200_000
"""Bytes of a picture, at most: pages are to be there at once."""
EXAMPLE = {"A": (0.92, 0.90, 0.94), "B": (0.64, 0.61, 0.67), "C": (0.50, 0.35, 0.65), "D": (0.05, 0.02, 0.11)}
"""Slides of reading-results.md: probability of tumour and its interval."""
SURPRISE = 0.42
"""The limit of its calibration at a stated error of 10 %."""
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#808080"


def overlay(demo: Path) -> bytes:
    """Of a slide of the demo as a run draws it today."""
    slide = demo / "cohort" / "slides" / "slide-006.tif"
    if not slide.is_file():
        raise FileNotFoundError(f"no demo in {demo}: `make demo`, or --demo FOLDER")
    out = demo / "pictures"
    if saccade.run(slide, demo / "training", out=out, features=demo / "features").failed:
        raise RuntimeError(f"the slide failed: {out / 'predictions.csv'} says why")
    return (out / "slides" / "slide-006" / "overlay.jpg").read_bytes()


def drawing(demo: Path) -> Figure:
    """How a slide is looked at: its thumbnail, an attention over it, and the few patches that are read."""
    path = data_folder() / "slides" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name}: set SACCADE_DATA")
    torch.manual_seed(0)
    spec = ModelSpec(
        classes=("normal", "tumour"),
        attention_mpp=8.0,
        patch_mpp=0.5,
        patch_px=128,
        attention="hematoxylin",  # needs no training, and shows what is meant
        encoder="small",
        dim=8,
        scheme="systematic",
        samples=12,
    )
    slide = saccade.open_slide(path)
    found = saccade.predict(slide, AttentionSampler(spec).eval())
    pixels = zarr.open_group(saccade.SlideStore(slide), mode="r")["0"]
    assert isinstance(pixels, zarr.Array)
    left, top, right, bottom = found.thumbnail.raster.extent_level0
    frame = (left, right, bottom, top)
    figure, panels = plt.subplots(1, 4, figsize=(11, 3.9), width_ratios=(1, 1, 1, 1.33), layout="constrained")
    titles = (
        "1  all of it, at 8 µm/px",
        "2  where to look",
        f"3  {found.patches_read} of {found.cells} cells are drawn",
        "4  and read at 0.5 µm/px",
    )
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, loc="left", fontsize=10)
        panel.axis("off")
    for panel in panels[:3]:
        panel.imshow(found.thumbnail.rgb, extent=frame)
    raster = found.attention_raster
    left, top, right, bottom = raster.extent_level0
    shown = np.ma.masked_less(found.attention * found.cells, 1)  # below an even share the tissue shows as it is
    panels[1].imshow(shown, extent=(left, right, bottom, top), cmap="viridis", alpha=0.7)
    for panel in panels[:3]:
        panel.set(xlim=frame[:2], ylim=frame[2:])
    for x, y, width, height in found.patch_boxes_level0:
        panels[2].add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="black", linewidth=1.5))
    tiles = [
        np.moveaxis(pixels[:, int(y) : int(y + h), int(x) : int(x + w)], 0, -1)
        for x, y, w, h in found.patch_boxes_level0
    ]
    side = max(max(tile.shape[:2]) for tile in tiles) + 8
    sheet = np.full((4 * side, 3 * side, 3), 255, np.uint8)
    for k, tile in enumerate(tiles):
        row, column = divmod(k, 3)
        sheet[row * side : row * side + tile.shape[0], column * side : column * side + tile.shape[1]] = tile
    panels[3].imshow(sheet)
    return figure


def intervals(demo: Path) -> Figure:
    """Four slides with their intervals, and what becomes of them at a stated error."""
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    for begin, end, colour, text in (
        (0, SURPRISE, BLUE, "called normal"),
        (SURPRISE, 1 - SURPRISE, GREY, "referred"),
        (1 - SURPRISE, 1, ORANGE, "called tumour"),
    ):
        axes.axvspan(begin, end, color=colour, alpha=0.15, linewidth=0)
        axes.text((begin + end) / 2, -0.9, text, ha="center", va="center", color=colour, fontsize=9)
    for row, (name, (p, low, high)) in enumerate(EXAMPLE.items()):
        axes.plot((low, high), (row, row), color="black", linewidth=2, solid_capstyle="butt")
        axes.plot(p, row, "o", color="black", markersize=6)
        axes.text(-0.02, row, f"slide {name}", ha="right", va="center", fontsize=10)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(len(EXAMPLE) - 0.5, -1.3), yticks=[], xlabel="probability of tumour, and its interval")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return figure


PICTURES: dict[str, Callable[[Path], bytes | Figure]] = {
    "demo-overlay.jpg": overlay,
    "drawing.jpg": drawing,
    "intervals.png": intervals,
}


def make(name: str, out: Path, *, demo: Path) -> None:
    """Write a picture into a folder.

    Raises:
        FileNotFoundError: what it is made from is not there.
        ValueError: it would be too large.
    """
    made = PICTURES[name](demo)
    with new_file(out / name) as temporary:
        if isinstance(made, bytes):
            temporary.write_bytes(made)
        else:
            kind = Path(name).suffix[1:]
            made.savefig(temporary, dpi=110, format=kind, **({"pil_kwargs": {"quality": 85}} if kind == "jpg" else {}))
            plt.close(made)
        if temporary.stat().st_size > LARGEST:
            raise ValueError(f"{name} would have {temporary.stat().st_size:,} bytes, at most {LARGEST:,} are wanted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "data" / "demo", help="what `make demo` wrote")
    told = parser.parse_args()
    for name in PICTURES:
        try:
            make(name, ROOT / "docs", demo=told.demo)
            print(f"docs/{name}")
        except FileNotFoundError as exc:
            print(f"docs/{name} is left as it is: {exc}", file=sys.stderr)


if __name__ == "__main__":
    main()
