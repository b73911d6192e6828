"""Every slide of a folder as Saccade sees it, on one page to be looked at.

    python benchmarks/gallery.py OUT [--slides FOLDER] [--mpp 8]                                         two minutes

For each slide in the folder (default: the data folder's ``slides``): what `saccade info` says of it or why it is
refused; its thumbnail with the outline of the tissue; the overlay of a prediction with hematoxylin attention and an
untrained encoder; the thumbnail with the GeoJSON drawn over it. Slides too coarse for the patches get the first two.
Pictures with pen (the data folder's ``pen``) and pictures with known truth (`tissue_pictures`) get the outline.
Writes ``index.html`` and PNGs into OUT, which must be new.
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.places import data_folder
from benchmarks.tissue_pictures import (
    FILLS,
    LAYOUTS,
    MPP,
    PENS,
    STAINS,
    hand_marked,
    outlined,
    pen,
    ring,
    slide,
    sparse,
)
from pipeline.cohort.files import find_slides
from pipeline.info import describe
from pipeline.model.sampler import AttentionSampler
from pipeline.model.spec import ModelSpec
from pipeline.predict import SlidePrediction, predict_slide
from stages.overlay.geojson import geojson
from stages.overlay.picture import draw_overlay
from stages.pyramid.open import open_pyramid
from stages.tissue.mask import find_tissue, tissue_mask
from stages.tissue.quality import tissue_warnings
from stages.tissue.thumbnail import read_thumbnail

SHOWN = 700
"""Pixels along a picture's longer side, at the most."""


def shown(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Image.Image:
    return smaller(outlined(rgb, mask, width=max(1, max(mask.shape) // SHOWN)))


def smaller(picture: Image.Image) -> Image.Image:
    picture.thumbnail((SHOWN, SHOWN))
    return picture


def objects(found: SlidePrediction) -> Image.Image:
    """What the GeoJSON says, drawn over the thumbnail where QuPath would draw it."""
    origin = found.slide.facts.origin
    document = geojson(
        found.attention,
        found.attention_raster,
        found.patch_boxes_level0,
        attention_at=found.patch_attention,
        weights=found.patch_weights,
        origin=origin,
    )
    picture = Image.fromarray(found.thumbnail.rgb.copy())
    draw = ImageDraw.Draw(picture)
    for feature in document["features"]:
        shape = feature["geometry"]
        polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        colour = (255, 0, 0) if feature["properties"]["objectType"] == "detection" else (255, 200, 0)
        for line in (line for polygon in polygons for line in polygon):
            points = found.thumbnail.raster.from_level0(np.asarray(line, float) + origin)
            draw.line([(float(x), float(y)) for x, y in points], fill=colour, width=2)
    return smaller(picture)


def entries(folder: Path, out: Path, mpp: float) -> Iterator[tuple[str, list[str], list[str]]]:
    """(title, lines, names of pictures) of each slide."""
    torch.manual_seed(0)
    spec = ModelSpec(
        classes=("a", "b"),
        attention_mpp=mpp,
        patch_mpp=mpp / 16,
        patch_px=64,
        attention="hematoxylin",
        encoder="small",
        dim=16,
        scheme="systematic",
        samples=24,
    )
    model = AttentionSampler(spec).eval()
    for number, path in enumerate(find_slides(folder)):
        title, pictures = path.relative_to(folder).as_posix(), []
        try:
            facts = describe(path)
            opened = open_pyramid(path)
            lines = [f"{key}: {facts[key]}" for key in ("vendor", "mpp", "warnings") if facts.get(key)]
            coarse = max(opened.facts.require_mpp().x, mpp)
            thumbnail = read_thumbnail(opened, coarse)
            tissue = find_tissue(thumbnail)
            lines += tissue_warnings(tissue, coarse)
            pictures.append(save(shown(thumbnail.rgb, tissue.mask), out / f"{number}-tissue.png"))
            found = predict_slide(opened, model)
            draw_overlay(
                out / f"{number}-overlay.jpg",
                found.thumbnail,
                found.attention,
                found.attention_raster,
                found.patch_boxes_level0,
                title=title,
                mpp_level0=opened.facts.require_mpp(),
            )
            pictures += [f"{number}-overlay.jpg", save(objects(found), out / f"{number}-objects.png")]
        except Exception as refused:  # the page shows why
            lines = [*(lines if pictures else []), f"{type(refused).__name__}: {refused}"]
        yield title, lines, pictures


def save(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return path.name


def marked(folder: Path, out: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(title, lines, names of pictures) of each picture with pen."""
    for name, rgb, _ in hand_marked(folder):
        yield name, [], [save(shown(rgb, tissue_mask(rgb, MPP)), out / f"{name}.png")]


def known(out: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(title, lines, names of pictures) of one picture of each stain, fill, layout and pen."""
    fills, layouts = list(FILLS), list(LAYOUTS)
    for number, stain in enumerate(STAINS):
        fill, layout = fills[number % len(fills)], layouts[number // len(fills) % len(layouts)]
        picture = sparse(slide(stain), 0.4, layout, FILLS[fill])
        mask = tissue_mask(picture.rgb, MPP)
        lines = [f"{layout}, {fill}: kept {picture.kept(mask):.1%}, glass {picture.counted(mask, picture.glass):.1%}"]
        yield stain, lines, [save(shown(picture.rgb, mask), out / f"stain-{number}.png")]
    for name, colour in PENS.items():
        picture = pen(slide("H&E"), colour, ring())
        yield f"{name} pen", [], [save(shown(picture.rgb, tissue_mask(picture.rgb, MPP)), out / f"pen-{name}.png")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--slides", type=Path)
    parser.add_argument("--mpp", type=float, default=8.0, help="of the attention, in µm/px")
    options = parser.parse_args()
    data = data_folder()
    options.out.mkdir(parents=True)
    page = ["<!doctype html><meta charset=utf-8><title>Saccade: gallery</title><style>img{max-width:32%}</style>"]
    of_slides = entries(options.slides or data / "slides", options.out, options.mpp)
    for source in (of_slides, marked(data / "pen", options.out), known(options.out)):
        for title, lines, pictures in source:
            print(title, *lines, sep="\n    ", flush=True)
            page.append(f"<h2>{html.escape(title)}</h2><pre>{html.escape(chr(10).join(lines))}</pre>")
            page += [f'<img src="{html.escape(name)}" alt="{html.escape(title)}">' for name in pictures]
    (options.out / "index.html").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
