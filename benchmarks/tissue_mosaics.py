"""Cohorts of whole slides made of real, labelled, stain-matched tiles: a lesion is a patch of positive tiles.

    python benchmarks/tissue_mosaics.py OUT [--lesion 0.05] [--train 44] [--test 40] [--swap] [--jobs 1]   five minutes
    python benchmarks/tissue_mosaics.py OUT --tiles FOLDER --labels TABLE.csv        of your own tiles

A slide is 40 x 40 tiles of 224 px at 0.5 µm/px: glass, and over 50 to 70 % of it tissue of negative tiles. A positive
slide holds an irregular lesion of positive tiles, sometimes two, that makes up ``--lesion`` of its tissue. Tiles are
crops, turned and mirrored, of $SACCADE_DATA/crchistophenotypes (default ../shared/data; 0.55 µm/px taken as 0.5),
positive where an image shows epithelial nuclei. Train and test slides are made of pools that share no source;
``--swap`` exchanges the pools. Each source is brought to one stain and contrast, then each slide gets a stain and a
scanner around its site's; labels are dealt so that neither tells anything of them.

OUT gets ``cohort.csv`` (slide, patient, label, site, split), ``slides/`` (Aperio-like pyramids), ``truth/`` (for
judging only: the lesion and the image of every tile), ``recipe.json`` and ``cues.json``: how well colour, contrast,
size and the like tell the classes, of tiles and of slides. The same command again goes on where it ended; the same
seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mosaics.cues import cue_table, pool_cues, slide_cues
from benchmarks.mosaics.plan import Planned, Recipe, appearance_of, check, generators, plan_cohort
from benchmarks.mosaics.scenes import draw_scene
from benchmarks.mosaics.slides import compose, write_pyramid
from benchmarks.mosaics.tiles import (
    POOLS,
    LabelledImage,
    TilesError,
    TileStock,
    crchistophenotypes,
    labelled_tiles,
    make_stock,
)
from benchmarks.places import data_folder
from stages.disk import new_file

CLASSES = ("negative", "positive")


def make_slide(path: Path, truth: Path, stock: TileStock, recipe: Recipe, planned: Planned) -> None:
    """Write one slide and its truth; the truth is last, so that it says that the slide is whole.

    The truth holds, for each tile (rows, columns) of ``tile_px`` level-0 pixels from (0, 0): ``lesion``, the share of
    ``tissue``, and the number of its ``image`` in the stock, -1 on glass.
    """
    shape, _, glass = generators(recipe, planned.number)
    appearance = appearance_of(recipe, planned.number, planned.site)
    pool = planned.split if not recipe.swap else POOLS[1 - POOLS.index(planned.split)]
    lesion = recipe.lesion if planned.label else 0.0
    scene = draw_scene(stock, pool, side=recipe.side, lesion=lesion, rng=shape)
    size = recipe.side * recipe.tile_px
    with new_file(path) as beside:
        write_pyramid(
            beside, compose(stock, scene, appearance, glass), size, recipe.levels, appearance.quality, recipe.mpp
        )
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, lesion=scene.lesion, tissue=scene.tissue, image=scene.image, tile_px=np.int64(stock.tile_px)
    )
    with new_file(truth) as beside:
        beside.write_bytes(buffer.getvalue())


def make_cohort(out: Path, images: Sequence[LabelledImage], recipe: Recipe, *, jobs: int = 1) -> TileStock:
    """Make what is missing of a cohort in ``out``; gives the stock that it was made of.

    Raises:
        TilesError: it cannot be made, or ``out`` holds another cohort.
    """
    check(recipe)
    stock = make_stock(images, tile_px=recipe.tile_px, seed=recipe.pools_seed, stain_only=recipe.stain_only)
    key = hashlib.sha256(repr([(i.path.name, i.label, i.source) for i in images]).encode()).hexdigest()
    document = json.dumps({**asdict(recipe), "images": key, "dropped": stock.dropped}, indent=2) + "\n"
    written = out / "recipe.json"
    if written.exists() and written.read_text() != document:
        raise TilesError(f"{out} holds a cohort of another recipe (see {written}): choose another folder")
    for folder in ("slides", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with new_file(written) as beside:
        beside.write_text(document)
    planned = plan_cohort(recipe)
    missing = [slide for slide in planned if not places(out, slide)[1].exists()]
    started = time.monotonic()
    if jobs > 1:
        with ProcessPoolExecutor(jobs, get_context("spawn"), _share, (out, stock, recipe)) as pool:
            for count, _ in enumerate(pool.map(_make_shared, missing), 1):
                say(count, len(missing), started)
    else:
        for count, slide in enumerate(missing, 1):
            make_slide(*places(out, slide), stock, recipe, slide)
            say(count, len(missing), started)
    with new_file(out / "cohort.csv") as beside, beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "patient", "label", "site", "split"])
        for slide in planned:
            path = places(out, slide)[0].relative_to(out).as_posix()
            writer.writerow([path, slide.name, CLASSES[slide.label], f"site{slide.site}", slide.split])
    return stock


_shared: list[tuple[Path, TileStock, Recipe]] = []


def _share(*what: Any) -> None:
    _shared[:] = [what]  # once for each process: it keeps the matched images


def _make_shared(slide: Planned) -> None:
    ((out, stock, recipe),) = _shared
    make_slide(*places(out, slide), stock, recipe, slide)


def places(out: Path, slide: Planned) -> tuple[Path, Path]:
    """A slide's file and its truth."""
    return out / "slides" / f"{slide.name}.svs", out / "truth" / f"{slide.name}.npz"


def say(count: int, total: int, started: float) -> None:
    print(f"{count} of {total} slides, {(time.monotonic() - started) / count:.1f} s each", flush=True)


def report_cues(out: Path, stock: TileStock, recipe: Recipe, *, tiles: int) -> None:
    """Print and write what simple measures tell of tiles, by pool, and of slides, by split and over all."""
    planned = plan_cohort(recipe)
    by_tile = pool_cues(stock, tiles=tiles)
    by_slide = slide_cues(
        [places(out, slide)[0] for slide in planned],
        [slide.label for slide in planned],
        [slide.split for slide in planned],
    )
    print(cue_table(by_tile), cue_table(by_slide), sep="\n\n")
    found = {
        column: {name: asdict(cue) for name, cue in cues.items()} for column, cues in {**by_tile, **by_slide}.items()
    }
    with new_file(out / "cues.json") as beside:
        beside.write_text(json.dumps(found, indent=2) + "\n")


def main() -> None:
    default = Recipe()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--lesion", type=float, default=default.lesion, help="share of the tissue: 0.03, 0.05, 0.1, 0.3"
    )
    parser.add_argument("--train", type=int, default=default.train, help="slides")
    parser.add_argument("--test", type=int, default=default.test, help="slides")
    parser.add_argument("--side", type=int, default=default.side, help="tiles along a slide")
    parser.add_argument("--tile-px", type=int, default=default.tile_px)
    parser.add_argument("--mpp", type=float, default=default.mpp, help="µm per level-0 pixel that the slides claim")
    parser.add_argument("--levels", type=int, nargs="*", default=default.levels, help="downsamples after the first")
    parser.add_argument("--sites", type=int, default=default.sites)
    parser.add_argument("--swap", action="store_true", help="exchange the pools of train and test")
    parser.add_argument("--stain-only", action="store_true", help="do not match contrast: thumbnails tell more")
    parser.add_argument("--pools-seed", type=int, default=default.pools_seed)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--tiles", type=Path, help="a folder of labelled images instead of the colon-cancer set")
    parser.add_argument("--labels", type=Path, help="their table: tile, label (0 or 1), source")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cue-tiles", type=int, default=400, help="of each class and pool, for the cues")
    args = vars(parser.parse_args())
    out, folder, table, jobs, tiles = (args.pop(name) for name in ("out", "tiles", "labels", "jobs", "cue_tiles"))
    if (folder is None) != (table is None):
        parser.error("--tiles and --labels go together")
    recipe = replace(Recipe(**args), levels=tuple(args["levels"]))
    try:
        images = labelled_tiles(folder, table) if folder else crchistophenotypes(data_folder())
        stock = make_cohort(out, images, recipe, jobs=jobs)
    except TilesError as exc:
        parser.error(str(exc))
    if stock.dropped:
        print(f"no tile of theirs is half tissue: {', '.join(stock.dropped)}")
    report_cues(out, stock, recipe, tiles=tiles)


if __name__ == "__main__":
    main()
