"""Build docs/interop.md: open everything that Saccade writes with everybody else's readers, and see where they find it.

A slide is made, with a dark square at a known place; a model whose attention is not even (and that has learned nothing)
runs on it; the run is exported in every format, the slide is cached in every profile. Then each reader opens what is
there, in a process of its own, and says where it finds the square, or the cell of highest attention.

    python docs/interop.py [--python OTHER/bin/python ...] [--keep FOLDER]

A reader that is missing here is looked for in the other interpreters: no environment holds all of them. What needs a
screen (QuPath, a DICOM viewer) is not in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "interop.md"
WITH_CODEC = {**os.environ, "PYTHONPATH": str(ROOT)}
"""Where Saccade is installed, zarr finds its codec: in the first interpreter, that is."""
READERS = ROOT / "docs" / "interop_readers.py"
PLACED, LOST = "opens, at its place", "opens; place lost"
"""As docs/interop_readers.py says it."""
SIZE, MPP, SQUARE = (2901, 2103), 0.5, (1700, 900, 96)
"""(width, height) of the slide, which no level divides; µm of a pixel; x, y and side of the square."""
HEAD = """\
<!-- Built by `python docs/interop.py`: change that. -->

# What opens where

Everything that Saccade writes of a slide, opened by other people's readers, which know nothing of Saccade but, where
that is said, its codec. The slide is {width} x {height} px, which no level divides, and holds a dark square.

- **At its place**: by its own scales and offsets the reader finds the square, or the cell of highest attention, where
  it is in level-0 pixels, to within a pixel of what it opened.
- **Place lost**: what it opens is right, but it does not say where on the slide that lies.

Made by `python docs/interop.py` on {when}. What needs a screen, such as QuPath, is not in it.

| what | opens, at its place | opens, place lost | does not open |
|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], help="another interpreter, whose readers count, too")
    parser.add_argument("--keep", type=Path, help="a new folder for what is opened; default: a temporary one")
    parser.add_argument("--page", type=Path, default=PAGE, help="what is built")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        make(folder, asked.python)
        found: dict[tuple[str, str], dict[str, str]] = {}
        for python in (sys.executable, *asked.python):
            told = subprocess.run([python, READERS, folder], capture_output=True, text=True, env=WITH_CODEC)
            if told.returncode:
                sys.exit(f"{python}: {told.stderr}")
            for row in map(json.loads, told.stdout.splitlines()):
                key = row["what"], row["reader"]
                if key not in found or (not found[key]["version"] and row["version"]):
                    found[key] = row
    asked.page.write_text(page(found.values()), encoding="utf-8")


def make(folder: Path, pythons: list[str]) -> None:
    """Fill a folder with all that is opened, and ``truth.json`` with where it is to be found."""
    import numpy as np
    import skimage.data
    import tifffile
    import torch

    import saccade
    from pipeline.export.formats import FORMATS
    from pipeline.model.checkpoint import save_model
    from pipeline.model.sampler import AttentionSampler
    from pipeline.model.spec import ModelSpec
    from pipeline.output.attention_map import read_attention_zarr

    piece = skimage.data.immunohistochemistry()
    image = np.tile(np.concatenate([piece, piece[:, ::-1]], 1), (5, 3, 1))[: SIZE[1], : SIZE[0]].copy()
    image[:300], image[-300:], image[:, :300], image[:, -300:] = 244, 244, 244, 244
    x, y, side = SQUARE
    image[y : y + side, x : x + side] = 0
    slide = folder / "slide.tif"
    with tifffile.TiffWriter(slide) as tiff:
        for level in range(3):
            by = 2**level
            height, width = SIZE[1] // by, SIZE[0] // by
            part = image[: height * by, : width * by].reshape(height, by, width, by, 3).mean((1, 3)).astype(np.uint8)
            per_cm = (1e4 / MPP / by,) * 2
            how = {
                "resolution": per_cm,
                "resolutionunit": "CENTIMETER",
                "subfiletype": int(level > 0),
                "metadata": None,
            }
            tiff.write(part, tile=(256, 256), photometric="rgb", compression="jpeg", **how)
    torch.manual_seed(1)
    model = AttentionSampler(
        ModelSpec(
            classes=("normal", "tumour"),
            attention_mpp=8.0,
            patch_mpp=1.0,
            patch_px=32,
            attention="learned",
            encoder="small",
            dim=8,
            scheme="systematic",
            samples=12,
        )
    ).eval()
    for parameter in list(model.attention.parameters())[-2:]:
        torch.nn.init.normal_(parameter, std=20)
    save_model(model, folder / "model.safetensors")
    saccade.run(slide, model=folder / "model.safetensors", out=folder / "run")
    for profile in ("native", "portable"):
        saccade.cache(slide, out=folder / profile, profile=profile, everything=True)
    saccade.cache(slide, out=folder / "ngff04", ngff="0.4", everything=True)
    for name in FORMATS:
        code = f"import saccade, sys; sys.exit(saccade.export({str(folder / 'run')!r}, {name!r}).failed or None)"
        for python in (sys.executable, *pythons):  # the package that a format needs may be in another
            if not subprocess.run([python, "-c", code], capture_output=True, cwd=ROOT).returncode:
                break
    attention, raster = read_attention_zarr(folder / "run" / "slides" / "slide" / "attention.zarr")
    at = int(attention.argmax())
    cell = raster.centres_level0([at])[0].tolist()
    truth = {
        "square": [x + side / 2, y + side / 2],
        "cell": cell,
        "cell_side": [raster.scale_x, raster.scale_y],
        "cells": [raster.width, raster.height],
        "size": SIZE,
        "mpp": MPP,
    }
    (folder / "truth.json").write_text(json.dumps(truth))


def page(rows: Iterable[Mapping[str, str]]) -> str:
    """The page."""
    by_product: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        reader = f"{row['reader']} {row['version']}".strip()
        cells = by_product.setdefault(row["what"], {PLACED: [], LOST: [], "": []})
        if row["found"] in (PLACED, LOST):
            cells[row["found"]].append(reader)
        else:
            cells[""].append(f"{reader}: {row['found'].removeprefix('does not open: ')}")
    lines = [
        f"| {what} | " + " | ".join(", ".join(c) for c in cells.values()) + " |" for what, cells in by_product.items()
    ]
    head = HEAD.format(width=SIZE[0], height=SIZE[1], when=f"{datetime.now(UTC):%Y-%m-%d}")
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
