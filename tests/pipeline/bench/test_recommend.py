"""How many patches are enough."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.bench.recommend import recommend
from pipeline.task.classes import Classes
from pipeline.task.value import Value

TWO = Classes(("a", "b"))


def rows(*tried: tuple[int, float, float | None]) -> list[dict[str, Any]]:
    """Of reading everything, and of N patches, the agreement and the AUROC."""
    whole = {"way": "everything", "setting": None, "patches": 100.0, "agreement": 1.0, "slides": 40}
    found = [
        {
            "way": "attention",
            "setting": n,
            "patches": float(n),
            "agreement": agree,
            "decisions": 100,
            "auroc": auroc,
            "difference": 1 / n,
        }
        for n, agree, auroc in tried
    ]
    labelled = tried[0][2] is not None
    return [{**whole, **({"auroc": 0.9} if labelled else {})}, *found, {**found[0], "way": "uniform", "agreement": 1.0}]


@pytest.mark.parametrize(
    ("tried", "samples"),
    [
        ([(4, 0.9, 0.9), (8, 0.99, 0.9), (16, 1.0, 0.9)], 8),
        ([(4, 1.0, 0.9), (8, 0.98, 0.9), (16, 1.0, 0.9)], 16),  # 4 was lucky
        ([(4, 1.0, 0.906), (8, 1.0, 0.896), (16, 1.0, 0.9)], 8),
        ([(4, 1.0, None), (8, 1.0, None)], 4),
        ([(4, 1.0, 0.9), (8, 0.98, 0.9)], None),
        ([(4, 1.0, 0.8), (8, 1.0, 0.85)], None),
    ],
)
def test_the_smallest_number_from_which_on_nothing_is_lost(tried: list[Any], samples: int | None) -> None:
    found = recommend(rows(*tried), TWO, own=20)
    assert found.samples == samples
    if samples is None:
        assert "No number" in found.words
        assert "--samples" in found.words
    else:
        assert f"`samples: {samples}`" in found.words
        assert f"--samples {samples}`" in found.words


def test_the_models_own_number_is_left_as_it_is() -> None:
    assert "leave it as it is" in recommend(rows((8, 1.0, 0.9)), TWO, own=8).words


def test_patches_that_tell_less_than_their_noise_are_too_few() -> None:
    without = {"way": "no patch", "setting": None, "difference": 0.1, "agreement": 1.0, "auroc": 0.9, "patches": 0.0}
    found = recommend([*rows((4, 1.0, 0.9), (8, 1.0, 0.9), (16, 1.0, 0.9)), without], TWO, own=20)
    assert found.samples == 16
    assert "than without any patch" in found.words
    assert found.words.startswith("The coarse scale alone decides as reading everything does, in 100.0%")


def test_few_slides_are_said_to_be_few() -> None:
    tried = rows((8, 1.0, 0.9))
    assert "slides only" not in recommend(tried, TWO, own=20).words
    assert "of 2 slides only: try it on more" in recommend([{**row, "slides": 2} for row in tried], TWO, own=20).words


def test_reading_on_is_named_where_it_takes_fewer() -> None:
    decided = {"way": "decide", "setting": 0.5, "difference": 0.1, "agreement": 1.0, "auroc": 0.9, "decisions": 100}
    tried = rows((8, 0.9, 0.9), (16, 1.0, 0.9))
    for patches, named in ((12.0, True), (20.0, False)):
        words = recommend([*tried, {**decided, "patches": patches}], TWO, own=20).words
        assert ("saccade run --decide 0.5" in words) is named
    for agreement, named in ((1.0, True), (0.9, False)):
        words = recommend([*tried[:2], {**decided, "patches": 20.0, "agreement": agreement}], TWO, own=20).words
        assert ("saccade run --decide 0.5" in words) is named


def test_of_a_number_predictions_are_counted_and_its_own_metric() -> None:
    tried = [{**row, "pearson": row.pop("auroc")} for row in rows((8, 1.0, 0.9), (16, 1.0, 0.9)) if "auroc" in row]
    words = recommend(tried, Value(), own=20).words
    assert "at least 99% of the predictions within 0.2 standard deviations are those of reading everything" in words
    assert "correlation 0.900 against 0.900" in words
