"""Hidden spots: a thumbnail must not show them, an intermediate level must, and only full resolution their kind."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import openslide
import pytest
from makers import Pixels, pixels, thumbnail
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from pipeline.demo.painting import render, write_slide
from pipeline.demo.scene import COARSE, MPP, Scene, make_scene

SEED, SIZE, SLIDES = 78, 2560, 16


def hidden(index: int, *, size: int, label: str = "tumour") -> Scene:
    return make_scene(SEED, index, label=label, size=size, kind="hidden")


def test_half_of_many_small_spots_are_lesions_and_only_where_the_label_says_so() -> None:
    for index in range(10):
        scene = hidden(index, size=4096)
        assert len(scene.suspects) == 2 * len(scene.lesions) == 16
        normal = hidden(index, size=4096, label="normal")
        assert normal.suspects == scene.suspects
        assert normal.lesions == ()
        for i, spot in enumerate(scene.suspects):
            assert 70 <= 2 * np.sqrt(spot.area / np.pi) * MPP <= 100
            for other in scene.suspects[:i]:
                assert np.hypot(spot.x - other.x, spot.y - other.y) > (spot.radius + other.radius) + 100 / MPP


def test_a_spot_keeps_the_mean_colours_of_its_place_and_nothing_finer() -> None:
    """Against the same tissue without spots: at 32 um a pixel a few grey values of 255, at 4 um many."""
    change: dict[int, list[Pixels]] = {64: [], 8: []}
    for index in range(2):
        scene = hidden(index, size=1024)
        spotted, plain = (render(p).astype(float) for p in (scene, replace(scene, suspects=())))
        for factor, found in change.items():
            difference = thumbnail(spotted, factor) - thumbnail(plain, factor)
            y, x = ((np.arange(n) + 0.5) * factor for n in difference.shape[:2])
            inside = np.max([spot.depth(x[None], y[:, None]) for spot in scene.suspects], axis=0) > 0
            found.append(difference[inside])
    coarse, fine = (np.concatenate(found) for found in change.values())
    assert np.abs(coarse.mean(axis=0)).max() < 1
    assert coarse.std() < 5
    assert fine.std() > 25


# --- what a classifier sees of the files at each resolution


class Place(NamedTuple):
    """A spot or, elsewhere in the tissue, a place where one could be, with what is seen of it at each resolution."""

    slide: int
    is_spot: bool
    is_lesion: bool
    cues: dict[float, list[float]]  # by micrometres a pixel
    patches: NDArray[np.uint8]  # (5, 128, 128, 3) of level 0 around it


def cues(window: Pixels) -> list[float]:
    """Colours, their spread, and local contrast at two distances in a window."""
    grey = window.mean(axis=2)
    near = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    far = [np.abs(grey[2:] - grey[:-2]).mean(), np.abs(grey[:, 2:] - grey[:, :-2]).mean()]
    spread = grey.std() + 1
    ratios = [sum(near) / spread, sum(far) / spread, sum(near) / (sum(far) + 1)]
    return [*window.mean((0, 1)), *window.std((0, 1)), *near, *far, *ratios, grey.min(), grey.max()]


def elsewhere(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """As many places (x, y) as there are spots, drawn as the spots were, and none of them near a spot."""
    rows, cols = ((np.arange(n) - 1.0) * COARSE for n in scene.depth.shape)
    room = ndimage.distance_transform_edt(scene.depth > 0) * COARSE > 110 + COARSE
    for spot in scene.suspects:
        room &= np.hypot(cols[None] - spot.x, rows[:, None] - spot.y) > spot.reach + 150
    chosen = rng.choice(np.flatnonzero(room), len(scene.suspects), replace=False)
    return [(cols[k % cols.size], rows[k // cols.size]) for k in chosen]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    path = tmp_path_factory.mktemp("hidden") / "slide.tif"
    found = []
    for index in range(SLIDES):
        scene = hidden(index, size=SIZE)
        write_slide(path, render(scene))
        others = elsewhere(scene, np.random.default_rng((SEED, index)))
        with openslide.OpenSlide(path) as slide:
            views = {mpp: view(slide, mpp) for mpp in (32.0, 4.0, 0.5)}
        for k, (x, y) in enumerate([*((spot.x, spot.y) for spot in scene.suspects), *others]):
            seen = {mpp: look(views[mpp], mpp, x, y) for mpp in views}
            found.append(Place(index, k < len(scene.suspects), k < len(scene.lesions), seen, around(views[0.5], x, y)))
    return found


def view(slide: openslide.OpenSlide, mpp: float) -> Pixels:
    """The whole slide at ``mpp``, from the next finer level."""
    level = slide.get_best_level_for_downsample(mpp / MPP + 0.01)
    return thumbnail(
        pixels(slide, 0, 0, *slide.level_dimensions[level], level=level),
        round(mpp / MPP / slide.level_downsamples[level]),
    )


def look(image: Pixels, mpp: float, x: float, y: float) -> list[float]:
    """The cues around level-0 pixel (x, y): at 32 um all 3 x 3 pixels that a spot touches, else 48 um across."""
    side = 3 if mpp == 32 else round(48 / mpp)
    left, top = (int(at * MPP / mpp) - (side - 1) // 2 for at in (x, y))
    window = image[top : top + side, left : left + side]
    return [*cues(window), *(window.ravel() if mpp == 32 else ())]


def around(image: Pixels, x: float, y: float) -> NDArray[np.uint8]:
    """Patches of 64 um in the middle of a spot and 20 um off it."""
    corners = [(int(y) - 64 + dy, int(x) - 64 + dx) for dy, dx in ((0, 0), (-40, 0), (40, 0), (0, -40), (0, 40))]
    return np.stack([image[top : top + 128, left : left + 128] for top, left in corners]).astype(np.uint8)


def auroc(places: list[Place], label: NDArray[np.bool_], mpp: float) -> tuple[float, float]:
    """AUROC of a random forest on slides that it was not trained on, and its standard error if it saw nothing."""
    forest = RandomForestClassifier(200, min_samples_leaf=3, class_weight="balanced", random_state=0)
    seen, slides = np.array([place.cues[mpp] for place in places]), [place.slide for place in places]
    score = cross_val_predict(forest, seen, label, groups=slides, cv=GroupKFold(8), method="predict_proba")[:, 1]
    positive, negative = int(label.sum()), int((~label).sum())
    return float(roc_auc_score(label, score)), float(np.sqrt((label.size + 1) / (12 * positive * negative)))


@pytest.mark.slow
def test_an_intermediate_level_shows_the_spots_and_a_thumbnail_does_not(places: list[Place]) -> None:
    is_spot = np.array([place.is_spot for place in places])
    value, error = auroc(places, is_spot, 32.0)
    assert value < 0.5 + 3 * error
    assert auroc(places, is_spot, 4.0)[0] > 0.95


@pytest.mark.slow
def test_full_resolution_tells_a_lesion_from_a_decoy_and_a_thumbnail_does_not(places: list[Place]) -> None:
    """The contrast that a small encoder learns from slide labels shows at 4 um a pixel too, if less surely."""
    spots = [place for place in places if place.is_spot]
    is_lesion = np.array([place.is_lesion for place in spots])
    value, error = auroc(spots, is_lesion, 32.0)
    assert value < 0.5 + 3 * error
    full, middle = auroc(spots, is_lesion, 0.5)[0], auroc(spots, is_lesion, 4.0)[0]
    assert full > 0.95
    assert full > middle


@pytest.mark.slow
def test_the_small_encoder_learns_lesions_from_labelled_patches(places: list[Place]) -> None:
    import torch

    from stages.encoder.build import build_encoder

    spots = [place for place in places if place.is_spot]
    patches = torch.from_numpy(np.stack([spot.patches for spot in spots]))
    lesion = torch.tensor([float(spot.is_lesion) for spot in spots])
    train = torch.tensor([spot.slide % 4 > 0 for spot in spots])
    seen, label = patches[train].flatten(0, 1), lesion[train].repeat_interleave(5)
    torch.manual_seed(0)
    encoder, head = build_encoder("small", dim=64), torch.nn.Linear(64, 1)
    encoder.standardise(seen)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(30):
        for batch in torch.randperm(len(seen)).split(64):
            score = head(10 * encoder(seen[batch]))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(score, label[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        score = head(encoder(patches[~train][:, 0]))[:, 0]
    assert roc_auc_score(lesion[~train], score) > 0.95
