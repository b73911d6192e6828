"""What a cohort is made by, and its slides: split, site and label of each, before any pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.mosaics.scenes import Appearance, draw_appearance, draw_sites, draw_tissue
from benchmarks.mosaics.slides import BLOCK_PX
from benchmarks.mosaics.tiles import POOLS, TilesError

DEALS = 2000
"""Of labels, of which the most even one is taken."""
TYPICAL_DENSITIES = np.array([0.25, 0.45, 0.2], np.float32)
"""Optical densities of H&E, red, green, blue, with which stains are compared."""


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
        stain_only: whether contrast at two scales is left as it is, which a thumbnail shows.
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
    stain_only: bool = False
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


def deal_labels(looks: NDArray[np.float64], sites: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
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
