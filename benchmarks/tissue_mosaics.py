"""Cohorts of whole slides made of real, labelled, stain-matched tiles: a lesion is a patch of positive tiles.

    python benchmarks/tissue_mosaics.py OUT [--lesion 0.05] [--train 44] [--test 40] [--swap] [--jobs 1]   ten minutes
    python benchmarks/tissue_mosaics.py OUT --tiles FOLDER --labels TABLE.csv        of your own tiles

A slide is 40 x 40 tiles of 224 px at 0.5 µm/px: glass, and over 50 to 70 % of it tissue of negative tiles. A positive
slide holds an irregular lesion of positive tiles, sometimes two, that makes up ``--lesion`` of its tissue. Tiles are
crops, turned and mirrored, of $SACCADE_DATA/crchistophenotypes (default ../shared/data; 0.55 µm/px taken as 0.5),
positive where an image shows epithelial nuclei. Train and test slides are made of pools that share no source;
``--swap`` exchanges the pools. Each source is brought to one stain, then each slide gets a stain around its site's, and
its site's scanner; sites are independent of labels.

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
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.mosaics.cues import cue_table, pool_cues, slide_cues
from benchmarks.mosaics.scenes import Appearance, draw_appearance, draw_scene, draw_sites, draw_tissue
from benchmarks.mosaics.slides import BLOCK_PX, compose, write_pyramid
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
DEALS = 2000
TYPICAL_DENSITIES = np.array([0.25, 0.45, 0.2], np.float32)
"""Optical densities of H&E, red, green, blue, with which stains are compared."""
Floats64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a cohort is made by; each value changes the slides.

    Attributes:
        lesion: share of the tissue in positive slides.
        train, test: slides of each split.
        side: tiles along a slide.
        tile_px: side of a tile.
        mpp: µm per level-0 pixel that the slides claim.
        levels: downsamples of the levels after the first; each a multiple of the one before.
        sites: laboratories.
        swap: whether train slides are made of the test pool and the other way round.
        pools_seed: deals sources to pools.
        seed: everything else.
    """

    lesion: float = 0.05
    train: int = 44
    test: int = 40
    side: int = 40
    tile_px: int = 224
    mpp: float = 0.5
    levels: tuple[int, ...] = (4, 16)
    sites: int = 4
    swap: bool = False
    pools_seed: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """One slide to be made: its row of the table, and the number that all its randomness follows from."""

    name: str
    label: int
    site: int
    split: str
    number: int


def plan_cohort(recipe: Recipe) -> list[Planned]:
    """Both labels equally often in each split, and at each site; otherwise dealt so that looks tell nothing of them.

    Of `DEALS` random deals it takes the one whose classes differ least in stain, scanner and amount of tissue (Morgan &
    Rubin, "Rerandomization to improve covariate balance in experiments", Annals of Statistics 2012): in forty slides a
    single deal often leaves mean colour with an AUC of .6.
    """
    planned: list[Planned] = []
    rng = np.random.default_rng([recipe.seed, 1])
    for split in POOLS:
        sites = rng.permutation(np.arange(getattr(recipe, split)) // 2 % recipe.sites)
        numbers = range(len(planned), len(planned) + len(sites))
        looks = np.array([looks_of(recipe, number, int(site)) for number, site in zip(numbers, sites, strict=True)])
        labels = deal_labels(looks, sites, rng)
        planned += [
            Planned(f"slide{number:03d}", int(label), int(site), split, number)
            for number, label, site in zip(numbers, labels, sites, strict=True)
        ]
    return planned


def generators(recipe: Recipe, number: int) -> tuple[np.random.Generator, ...]:
    """For a slide's shape, its stain and scan, and its glass."""
    shape, look, glass = (np.random.default_rng([recipe.seed, 2, number, part]) for part in range(3))
    return shape, look, glass


def appearance_of(recipe: Recipe, number: int, site: int) -> Appearance:
    sites = draw_sites(recipe.sites, np.random.default_rng([recipe.seed, 3]))
    return draw_appearance(sites[site], generators(recipe, number)[1])


def looks_of(recipe: Recipe, number: int, site: int) -> list[float]:
    """What a slide without a lesion would show at a glance: mean densities, amount of tissue, blur, quality."""
    appearance = appearance_of(recipe, number, site)
    densities = appearance.stain.of(TYPICAL_DENSITIES[None])[0]
    tissue = draw_tissue(recipe.side, generators(recipe, number)[0])
    return [*(float(v) for v in densities), float((tissue > 0).mean()), appearance.blur_px, float(appearance.quality)]


def deal_labels(looks: Floats64, sites: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels (n,), half of each site's slides, over looks (n, k)."""
    standard = (looks - looks.mean(0)) / (looks.std(0) + 1e-12)
    best, least = np.zeros(len(sites), np.int64), np.inf
    for _ in range(DEALS):
        labels = np.zeros(len(sites), np.int64)
        for site in np.unique(sites):
            members = np.flatnonzero(sites == site)
            labels[rng.permutation(members)[: len(members) // 2]] = 1
        apart = float(np.abs((2 * labels - 1) @ standard).max())
        if apart < least:
            best, least = labels, apart
    return best


def make_slide(path: Path, truth: Path, stock: TileStock, recipe: Recipe, planned: Planned) -> None:
    """Write one slide and its truth; the truth is last, so that it says that the slide is whole."""
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


def check(recipe: Recipe) -> None:
    """Refuse what cannot be made.

    Raises:
        TilesError: says what to ask for.
    """
    size = recipe.side * recipe.tile_px
    if not 0 < recipe.lesion < 1:
        raise TilesError(f"--lesion {recipe.lesion} is a share of the tissue, between 0 and 1 (5 % is 0.05)")
    for before, factor in zip((1, *recipe.levels), recipe.levels, strict=False):
        if factor <= before or factor % before or size % factor or BLOCK_PX % recipe.levels[0]:
            raise TilesError(
                f"--levels {' '.join(map(str, recipe.levels))}: each is a multiple of the one before, the first "
                f"divides {BLOCK_PX}, all divide a slide's {size} px"
            )


def make_cohort(out: Path, images: Sequence[LabelledImage], recipe: Recipe, *, jobs: int = 1) -> TileStock:
    """Make what is missing of a cohort in ``out``; gives the stock that it was made of.

    Raises:
        TilesError: it cannot be made, or ``out`` holds another cohort.
    """
    check(recipe)
    stock = make_stock(images, tile_px=recipe.tile_px, seed=recipe.pools_seed)
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
