"""Cohorts made of labelled tiles: only the lesion tells a positive slide, and the files are what they claim."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.mosaics.cues import COLOURS, Measured, auc, cue_aucs, discriminant, pixel_cues, pool_cues
from benchmarks.mosaics.plan import Recipe, deal_labels, plan_cohort
from benchmarks.mosaics.scenes import grow_lesion
from benchmarks.mosaics.stains import DENSITIES, moments, parted
from benchmarks.mosaics.tiles import (
    POOLS,
    LabelledImage,
    TilesError,
    crchistophenotypes,
    labelled_tiles,
    make_stock,
    read_image,
)
from benchmarks.tissue_mosaics import make_cohort
from pipeline.cohort.training_table import read_training_table
from stages.geometry import Box, Mpp
from stages.slide.files import open_slide

RECIPE = Recipe(lesion=0.2, train=4, test=4, side=8, tile_px=64, sites=2)
SIZE = RECIPE.side * RECIPE.tile_px


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """Three sources of each class, two images each; positives are darker, redder and of more contrast."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        label, source = number % 2, number // 4 * 2 + number % 2
        texture = ndimage.gaussian_filter(rng.normal(size=(90, 100)), 1 + source / 3)[..., None]
        texture *= (0.1 + 0.1 * label) / texture.std()
        densities = (texture + rng.normal(0, 0.03, (90, 100, 3)) + 0.5 + 0.2 * label) * [0.5, 1, 0.6 - 0.2 * label]
        Image.fromarray((255 * np.exp(-densities.clip(0))).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", label, f"patient{source}"))
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("tile", "label", "source"), *rows])
    return labelled_tiles(folder, table)


@pytest.fixture(scope="module")
def cohort(images: list[LabelledImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    make_cohort(out, images, RECIPE)
    return out


def truth(out: Path, number: int) -> dict[str, NDArray[np.int64]]:
    with np.load(out / "truth" / f"slide{number:03d}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("stain_only", [False, True])
def test_sources_are_brought_to_one_stain(stain_only: bool, images: list[LabelledImage]) -> None:
    """Means and contrasts of optical density that told the classes apart are the same for every source, and unless it
    is stain only, so are the contrasts of coarse structure."""
    stock = make_stock(images, tile_px=64, seed=0, stain_only=stain_only)
    sources = sorted({image.source for image in images})
    assert len(sources) == 6
    means, whole, coarse = [], [], []
    for source in sources:
        own = [i for i, image in enumerate(stock.images) if image.source == source]
        densities = [DENSITIES[stock.matched(i)] for i in own]
        found = [moments(d, stock.corners[i], 64) for i, d in zip(own, densities, strict=True)]
        broad = [moments(parted(d)[1], stock.corners[i], 64) for i, d in zip(own, densities, strict=True)]
        means.append(np.mean([mean for mean, _ in found], 0))
        whole.append(np.sqrt(np.mean([np.trace(covariance) for _, covariance in found])))
        coarse.append(np.sqrt(np.mean([np.trace(covariance) for _, covariance in broad])))
    assert np.ptp(means, axis=0).max() < 0.01
    assert np.ptp(whole) < 0.1 * np.mean(whole)
    assert (np.ptp(coarse) < 0.1 * np.mean(coarse)) is not stain_only


def test_pools_share_no_source_and_both_have_both_classes(images: list[LabelledImage]) -> None:
    stock = make_stock(images, tile_px=64, seed=0)
    sources = {pool: {i.source for i, p in zip(stock.images, stock.pools, strict=True) if p == pool} for pool in POOLS}
    assert not sources["train"] & sources["test"]
    assert all(len(stock.members(pool, label)) for pool in POOLS for label in (0, 1))


def test_the_table_is_one_to_train_on(cohort: Path) -> None:
    """Both labels in each split, and sites that tell nothing of them; nothing leads to the truth."""
    slides = read_training_table(cohort / "cohort.csv").slides
    assert Counter((s.split, s.label, s.site) for s in slides) == Counter(
        {
            (split, label, site): 1
            for split in POOLS
            for label in ("negative", "positive")
            for site in ("site0", "site1")
        }
    )
    assert all(s.path.is_file() and s.problem is None for s in slides)
    assert "truth" not in (cohort / "cohort.csv").read_text()


def test_labels_are_dealt_evenly_over_looks() -> None:
    """Half of each site's slides; the mean looks of the classes lie closer than one deal would leave them."""
    rng = np.random.default_rng(0)
    looks, sites = rng.normal(size=(40, 5)), np.arange(40) // 2 % 4
    labels = deal_labels(looks, sites, rng)
    assert all(labels[sites == site].mean() == 0.5 for site in range(4))
    assert np.abs(looks[labels == 1].mean(0) - looks[labels == 0].mean(0)).max() < 0.2  # a single deal: about 0.5


def test_a_slide_opens_as_a_pyramid(cohort: Path) -> None:
    """Whole downsamples, the claimed resolution, and levels that are means of the first, nowhere shifted."""
    slide = open_slide(cohort / "slides/slide000.svs")
    assert (slide.facts.vendor, slide.facts.mpp) == ("aperio", Mpp(0.5, 0.5))
    assert [(level.width, level.scale_x) for level in slide.facts.levels] == [
        (SIZE, 1),
        (SIZE // 4, 4),
        (SIZE // 16, 16),
    ]
    fine = slide.read_level(0, Box(0, 0, SIZE, SIZE)).astype(float)
    for level, factor in ((1, 4), (2, 16)):
        side = SIZE // factor
        mean = fine.reshape(side, factor, side, factor, 3).mean((1, 3))
        found = slide.read_level(level, Box(0, 0, side, side))
        assert np.abs((found - mean).mean((0, 1))).max() < 1
        error = np.abs(found - mean).mean()
        assert error < 0.7 * np.abs(np.roll(found, 1, 1) - mean).mean()


def test_only_the_lesion_is_of_positive_tiles(cohort: Path, images: list[LabelledImage]) -> None:
    """Of the asked share of tissue, on tissue alone, from the split's own pool; negative slides have none."""
    stock = make_stock(images, tile_px=64, seed=0)
    for slide in plan_cohort(RECIPE):
        found = truth(cohort, slide.number)
        lesion, image = found["lesion"], found["image"]
        assert lesion.sum() == (round(RECIPE.lesion * found["tissue"].sum()) if slide.label else 0)
        assert (found["tissue"][lesion] == 1).all()
        assert 0.4 < found["tissue"].mean() < 0.8
        for label, where in ((1, lesion), (0, ~lesion & (image >= 0))):
            assert set(image[where]) <= set(stock.members(slide.split, label))


def test_the_truth_is_where_the_pixels_are(cohort: Path) -> None:
    """Tissue of the truth is what is not glass, tile by tile."""
    found = truth(cohort, 0)
    slide = open_slide(cohort / "slides/slide000.svs")
    grey = slide.read_level(0, Box(0, 0, SIZE, SIZE)).mean(-1).reshape(8, 64, 8, 64).mean((1, 3))
    glass = grey[found["tissue"] == 0]
    assert len(glass)
    assert grey[found["tissue"] == 1].max() < glass.min()


def test_swap_exchanges_the_pools(images: list[LabelledImage], tmp_path: Path) -> None:
    stock = make_cohort(tmp_path, images, replace(RECIPE, train=2, test=2, swap=True))
    for slide in plan_cohort(replace(RECIPE, train=2, test=2)):
        used = truth(tmp_path, slide.number)["image"]
        other = POOLS[1 - POOLS.index(slide.split)]
        assert {stock.pools[i] for i in used[used >= 0]} == {other}


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cohort_goes_on_where_it_ended_with_the_same_bytes(
    jobs: int, cohort: Path, images: list[LabelledImage], tmp_path: Path
) -> None:
    """Also in several processes; what is there is not made again."""
    for name in ("slides", "truth"):
        (tmp_path / name).mkdir()
        for path in sorted((cohort / name).iterdir())[:5]:
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "slides/slide001.svs").write_bytes(b"half of one")
    (tmp_path / "truth/slide001.npz").unlink()
    untouched = (tmp_path / "slides/slide002.svs").stat().st_mtime_ns
    make_cohort(tmp_path, images, RECIPE, jobs=jobs)
    for path in (p for p in cohort.rglob("*") if p.is_file()):
        assert (tmp_path / path.relative_to(cohort)).read_bytes() == path.read_bytes(), path.name
    assert (tmp_path / "slides/slide002.svs").stat().st_mtime_ns == untouched


def test_a_lesion_is_contiguous_or_two(images: list[LabelledImage]) -> None:
    whole = np.ones((30, 30), np.bool_)
    pieces = Counter(ndimage.label(grow_lesion(whole, 60, np.random.default_rng(i)))[1] for i in range(40))
    assert set(pieces) == {1, 2}
    assert pieces[1] > pieces[2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lesion": 5.0}, "5 % is 0.05"),
        ({"lesion": 0.95}, "smaller --lesion"),
        ({"levels": (4, 6)}, "multiple of the one before"),
        ({"seed": 1}, "another recipe"),
        ({"tile_px": 96}, "at least two sources"),
    ],
)
def test_what_cannot_be_made_is_refused(
    change: dict[str, float], says: str, images: list[LabelledImage], cohort: Path, tmp_path: Path
) -> None:
    out = cohort if "seed" in change else tmp_path
    with pytest.raises(TilesError, match=says):
        make_cohort(out, images, replace(RECIPE, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("slide,label\na.png,1", "no column 'tile'"),
        ("tile,label\na.png,tumour", "line 2: label 'tumour' is neither 0 nor 1"),
        ("tile,label\na.png,1", "line 2: no file"),
    ],
)
def test_a_table_of_tiles_is_read_strictly(lines: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(TilesError, match=says):
        labelled_tiles(tmp_path, tmp_path / "labels.csv")


def test_a_tile_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"none")
    np.save(tmp_path / "b.npy", np.zeros((90, 90)))
    for name, says in (("a.png", "cannot be read as a picture"), ("b.npy", r"float64 of shape \(90, 90\)")):
        with pytest.raises(TilesError, match=f"{name} .*{says}"):
            read_image(tmp_path / name)


def test_cues_find_what_tells_the_classes() -> None:
    """A darker class by its colours, with an interval from groups; ties count half."""
    assert auc(np.array([1.0, 2, 2, 3]), np.array([0, 0, 1, 1])) == 0.875
    rng = np.random.default_rng(0)
    labels = [0, 1] * 20
    values = [pixel_cues((rng.uniform(100, 110, (8, 8, 3)) + 9 * label).astype(np.uint8)) for label in labels]
    cues = cue_aucs(Measured(values, labels, range(40)))
    assert cues["red"].low > 0.9
    assert cues["hematoxylin"].high < 0.1
    rows = rng.normal(size=(40, 3)) + np.outer(labels, [3, 0, 3])
    assert auc(discriminant(rows[:20], np.array(labels[:20]), rows[20:]), np.array(labels[20:])) > 0.9


@pytest.mark.slow
@pytest.mark.realdata
def test_colour_does_not_tell_epithelium(shared_data: Path) -> None:
    """In neither pool, by no mean of a channel or a stain; nor do roughness and the bytes of a JPEG beyond chance."""
    for cues in pool_cues(make_stock(crchistophenotypes(shared_data), tile_px=224, seed=0), tiles=250).values():
        assert all(0.45 <= cues[name].auc <= 0.55 for name in COLOURS)
        assert all(cues[name].low < 0.5 < cues[name].high for name in ("roughness", "JPEG bytes", "glass"))
