"""A slide's appearance against a cohort's: what is told, what is not, and how often by mistake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from scipy import ndimage

from stages import appearance as module
from stages.appearance import FARTHEST, Appearance, CohortAppearance, appearance, cohort_appearance

Pixels = NDArray[np.uint8]
CLEAN = 244


def density(rgb: Pixels) -> NDArray[np.float64]:
    return np.log(256 / (rgb + 1.0))


def of_density(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(256 * np.exp(-values) - 1), 0, 255).astype(np.uint8)


def slide(seed: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """A thumbnail of stained tissue on glass, with its mask: another piece, a bit stronger or weaker, for each seed."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 512 - 440, 2)
    piece = density(skimage.data.immunohistochemistry()[y : y + 440, x : x + 440])
    rgb = np.full((540, 540, 3), CLEAN, np.uint8)
    rgb[50:490, 50:490] = of_density(piece * rng.normal(1, 0.05) * rng.normal(1, 0.03, 3))
    mask = np.zeros((540, 540), bool)
    mask[50:490, 50:490] = True
    return rgb, mask


@pytest.fixture(scope="module")
def own() -> list[Appearance]:
    return [appearance(*slide(seed)) for seed in range(16)]


@pytest.fixture(scope="module")
def cohort(own: list[Appearance]) -> CohortAppearance:
    return cohort_appearance(own)


def fluorescent(rgb: Pixels) -> Pixels:
    """Where there was stain, green light on black."""
    light = np.zeros_like(rgb)
    light[..., 1] = np.minimum(90 * np.maximum(density(rgb).mean(2) - 0.06, 0), 255)
    return light


def blurred(rgb: Pixels) -> Pixels:
    return np.rint(ndimage.gaussian_filter(rgb.astype(float), (2, 2, 0))).astype(np.uint8)


def grey(rgb: Pixels) -> Pixels:
    return np.repeat(rgb.mean(2, keepdims=True).astype(np.uint8), 3, 2)


CHANGES: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "twice as dark": (lambda rgb: of_density(2 * density(rgb)), "darker"),
    "half as dark": (lambda rgb: of_density(density(rgb) / 2), "paler"),
    "washed out": (lambda rgb: (rgb + 0.6 * (CLEAN - rgb.astype(float))).astype(np.uint8), "paler"),
    "blue for red": (lambda rgb: rgb[..., ::-1], "of another colour"),
    "pink for brown": (lambda rgb: of_density(density(rgb) * (0.5, 1.2, 0.7)), "of another colour"),
    "grey": (grey, "of another colour"),
    "out of focus": (blurred, "out of focus"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_unlike_the_cohort_is_told_and_how(cohort: CohortAppearance, change: str) -> None:
    rgb, mask = slide(99)
    change_pixels, words = CHANGES[change]
    found = cohort.compare(appearance(change_pixels(rgb), mask))
    assert found.score is not None
    assert found.score > 1
    assert found.warning is not None
    assert words in found.warning
    assert "the 16 slides" in found.warning
    assert "\n" not in found.warning


def test_slides_of_the_same_kind_pass_in_silence(cohort: CohortAppearance) -> None:
    found = [cohort.compare(appearance(*slide(seed))) for seed in range(100, 125)]
    assert sum(one.warning is not None for one in found) <= 1
    assert all((one.score or 0) <= 1 or one.warning for one in found)


@pytest.mark.parametrize(("reverse", "words"), [(False, "bright on dark"), (True, "dark on bright")])
def test_the_other_field_is_as_far_as_can_be(own: list[Appearance], reverse: bool, words: str) -> None:
    """Fluorescence for a brightfield model, and brightfield for a fluorescence model."""
    rgb, mask = slide(3)
    other = appearance(fluorescent(rgb), mask)
    glowing = [appearance(fluorescent(pixels), mask) for pixels, mask in map(slide, range(5))]
    found = cohort_appearance(glowing).compare(own[0]) if reverse else cohort_appearance(own).compare(other)
    assert found.score == FARTHEST
    assert (found.warning or "").startswith(f"it is {words}")
    assert cohort_appearance(glowing).compare(other).warning is None


def test_the_field_is_that_of_the_tissue_whatever_pads_the_scan() -> None:
    rgb, mask = slide(0)
    padded = rgb.copy()
    padded[:270][~mask[:270]] = 0
    assert appearance(padded, mask).field == "brightfield"
    tight = np.where(mask[..., None], rgb, 0).astype(np.uint8)
    tight[mask & ~ndimage.binary_erosion(mask)] //= 3  # scan and padding averaged
    assert appearance(tight, mask).field == "brightfield"
    assert appearance(rgb[60:480, 60:480], mask[60:480, 60:480]).field == "brightfield"
    light = np.where(mask[..., None], fluorescent(rgb), 255).astype(np.uint8)
    assert appearance(light, mask).field == "dark field"


def test_it_is_the_tissue_that_counts_not_the_glass_around_it() -> None:
    rgb, mask = slide(0)
    wide = np.pad(rgb, [(0, 0), (70, 30), (0, 0)], constant_values=CLEAN)
    assert appearance(wide, np.pad(mask, [(0, 0), (70, 30)])) == appearance(rgb, mask)
    with pytest.raises(ValueError, match="no tissue"):
        appearance(rgb, ~np.ones_like(mask))


def test_a_large_slide_looks_like_the_part_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twelfth of its pixels tell the same to a fifth of what slides of one laboratory differ by."""
    rgb, mask = slide(0)
    part = appearance(rgb, mask)
    monkeypatch.setattr(module, "SAMPLE", mask.size)
    apart = np.subtract(part.values, appearance(rgb, mask).values) / module.PRIOR_SPREAD
    assert 0 < np.abs(apart).max() < 0.2


def test_too_few_slides_give_no_score_and_no_warning(own: list[Appearance]) -> None:
    assert cohort_appearance(own[:3]).compare(own[5]) == module.Likeness(None)
    assert cohort_appearance(own[:4]).compare(own[5]).score is not None


def test_too_few_slides_of_one_field_are_said(own: list[Appearance]) -> None:
    rgb, mask = slide(3)
    other = appearance(fluorescent(rgb), mask)
    found = cohort_appearance([*own, other, other]).compare(other)
    assert found.score is None
    assert "of the 18 slides that the model was trained on only 2 are, too few" in (found.warning or "")


@pytest.mark.parametrize(("slides", "times"), [(4, 1), (4, 20), (12, 20), (60, 1)])
def test_at_most_one_slide_in_a_hundred_of_the_cohort_passes_the_limit(slides: int, times: float) -> None:
    """In the mean over 60 cohorts of correlated normal values, 100 slides each; the standard error is below 0.2 %."""
    rng = np.random.default_rng(slides)
    mixing = np.diag(module.PRIOR_SPREAD) @ np.linalg.qr(rng.normal(size=(8, 8)))[0] @ np.diag(np.linspace(0.3, 1.5, 8))
    mixing *= times  # as varied as is usual, or more than the prior can help with
    passed = []
    for _ in range(60):
        values = rng.normal(size=(slides + 100, 8)) @ mixing.T
        found = [Appearance("brightfield", tuple(one)) for one in values.tolist()]
        cohort = cohort_appearance(found[:slides])
        passed.append(np.mean([(cohort.compare(one).score or 0) > 1 for one in found[slides:]]))
    assert np.mean(passed) < 0.01


def test_a_stray_slide_among_those_trained_on_does_not_hide_its_kind(own: list[Appearance]) -> None:
    rgb, mask = slide(3)
    stray = appearance(CHANGES["blue for red"][0](rgb), mask)
    rgb, mask = slide(77)
    another = appearance(CHANGES["blue for red"][0](rgb), mask)
    assert (cohort_appearance([*own[1:], stray]).compare(another).score or 0) > 2


def test_copies_of_one_slide_leave_room_for_others_like_it(own: list[Appearance]) -> None:
    """A cohort that varies in nothing must not call every other slide strange: what is usual elsewhere counts."""
    cohort = cohort_appearance([own[0]] * 6)
    assert [(cohort.compare(one).score or 0) < 1 for one in own].count(True) >= 14


def test_what_is_strange_only_in_combination_is_said_so() -> None:
    """Values that always rise together fall apart; each by itself is as ever."""
    rng = np.random.default_rng(0)
    together = rng.normal(size=(200, 1)) * module.PRIOR_SPREAD
    cohort = cohort_appearance([Appearance("brightfield", tuple(one)) for one in together.tolist()])
    apart = np.array([1.5, -1.5] * 4) * module.PRIOR_SPREAD
    found = cohort.compare(Appearance("brightfield", tuple(apart.tolist())))
    assert "it combines darkness, colour and texture as none of them does" in (found.warning or "")
