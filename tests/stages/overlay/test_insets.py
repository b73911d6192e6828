"""Marks of close-ups on a map, where patches lie side by side."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stages.geometry import Raster
from stages.overlay.insets import Inset, draw_marks

SIDE = 30


def inset(mark: str, x: float, y: float) -> Inset:
    return Inset(mark, Image.new("RGB", (8, 8)), (x, y, SIDE, SIDE), 64.0, "", (0, 0, 0))


def inked(marked: list[Inset], boxes: NDArray[np.float64], size: tuple[int, int] = (300, 300)) -> NDArray[np.bool_]:
    """Pixels (height, width) that marks change on a map."""
    image = Image.new("RGB", size, "teal")
    draw_marks(ImageDraw.Draw(image), Raster(0, 0, 1, 1, *size), marked, boxes, size)
    return (np.asarray(image) != np.asarray(Image.new("RGB", size, "teal"))).any(-1)


def within(ink: NDArray[np.bool_], box: NDArray[np.float64]) -> int:
    x, y, w, h = box.astype(int).tolist()
    return int(ink[y : y + h, x : x + w].sum())


@pytest.mark.parametrize("gap", [0, 1])
def test_a_mark_of_a_row_of_patches_lies_on_none_of_them(gap: int) -> None:
    """To the right, where it would be, is the next patch."""
    boxes = np.array([[50 + i * (SIDE + gap), 100, SIDE, SIDE] for i in range(5)], np.float64)
    for i, box in enumerate(boxes):
        ink = inked([inset("12", box[0], box[1])], boxes)
        assert ink.any()
        assert [within(ink, other) for other in boxes] == [0] * 5
        columns = np.flatnonzero(ink.any(0))
        assert abs((columns[0] + columns[-1]) / 2 - (box[0] + SIDE / 2)) < SIDE + 4, f"{i}: it is near its own"


def test_a_patch_among_patches_has_its_mark_on_itself() -> None:
    boxes = np.array([[50 + i * SIDE, 50 + j * SIDE, SIDE, SIDE] for i in range(5) for j in range(5)], np.float64)
    ink = inked([inset("7", *boxes[12, :2])], boxes)
    assert within(ink, boxes[12]) == ink.sum() > 0


def test_marks_do_not_lie_on_each_other_and_stay_on_the_map() -> None:
    boxes = np.array(
        [[268, 2, SIDE, SIDE], [268, 2 + SIDE, SIDE, SIDE], [150, 150, 4, 4], [156, 150, 4, 4]], np.float64
    )
    marked = [inset(str(n + 10), *box[:2]) for n, box in enumerate(boxes[:2])]
    marked += [
        Inset(str(n + 12), Image.new("RGB", (8, 8)), tuple(box), 64.0, "", (0, 0, 0)) for n, box in enumerate(boxes[2:])
    ]
    each = [inked(marked[: n + 1], boxes) for n in range(4)]
    for before, after in pairwise(each):
        assert (after & ~before).sum() > 40, "the next mark is seen whole"
    assert not each[-1][:, -1].any()
    assert not each[-1][0].any()


def test_alone_it_is_at_the_corner() -> None:
    ink = inked([inset("3", 100, 100)], np.array([[100, 100, SIDE, SIDE]], np.float64))
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    assert columns[0] >= 100 + SIDE
    assert 92 <= rows[0] < 100
