"""Megapixel MNIST: what is in an image, where, and that its sparse form gives the pixels' own values."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.paper.mnist import BOX, Digits, SparseImages, draw_strokes, hide, load_digits, make_images, read_idx


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Ten squares of full ink for each class, whose grey level names the class."""
    labels = np.repeat(np.arange(10), 10)
    return Digits(np.broadcast_to((100 + labels)[:, None, None], (100, BOX, BOX)).astype(np.uint8), labels)


def crop(image: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    row, col = corner.tolist()
    return image[row : row + BOX, col : col + BOX, 0]


def test_three_of_five_digits_are_of_the_labels_class_and_the_others_are_not(digits: Digits) -> None:
    images = make_images(digits, "train", 50, side=200, noise="under", strokes=3)
    classes = images.boxes[:, :5, 0, 0].long() - 100
    assert ((classes == images.labels[:, None]) == torch.tensor([True, True, True, False, False])).all()
    assert set(images.labels.tolist()) == set(range(10))


def test_digits_never_overlap_and_lie_inside(digits: Digits) -> None:
    corners = make_images(digits, "train", 100, side=138, noise="under", strokes=0).corners
    assert corners.min() >= 0
    assert corners.max() <= 138 - BOX
    gap = (corners[:, :, None] - corners[:, None]).abs()
    assert ((gap >= BOX).any(-1) | torch.eye(5, dtype=torch.bool)).all()


def test_an_image_depends_on_seed_split_and_index_alone(digits: Digits) -> None:
    few = make_images(digits, "train", 3, side=300, noise="over", seed=1)
    many = make_images(digits, "train", 6, side=300, noise="over", seed=1)[:3]
    assert torch.equal(few.boxes, many.boxes)
    assert torch.equal(few.corners, many.corners)
    assert not torch.equal(few.corners[0], few.corners[1])
    for seed, split in ((2, "train"), (1, "test")):
        other = make_images(digits, split, 3, side=300, noise="over", seed=seed)
        assert not torch.equal(few.corners, other.corners)


def test_noise_under_the_digits_leaves_them_whole(digits: Digits) -> None:
    images = make_images(digits, "train", 10, side=150, noise="under")
    for image, corners, boxes in zip(images.dense(), images.corners, images.boxes, strict=True):
        for corner, box in zip(corners[:5], boxes[:5], strict=True):
            assert torch.equal(crop(image, corner), box)
            assert (box >= 100).all()


def test_noise_over_the_digits_hides_part_of_some(digits: Digits) -> None:
    """Where the last stroke lies, nothing but the last stroke is seen."""
    images = make_images(digits, "train", 10, side=150, noise="over")
    assert (images.boxes[:, :5] == 0).any()
    for image, corners, boxes in zip(images.dense(), images.corners, images.boxes, strict=True):
        assert torch.equal(crop(image, corners[-1]), boxes[-1])


def test_later_boxes_replace_earlier_ones() -> None:
    """The sum of what is left of all boxes is what a painter's canvas shows."""
    rng = np.random.default_rng(0)
    boxes = rng.integers(1, 256, (12, BOX, BOX), np.uint8)
    corners = rng.integers(0, 60, (12, 2))
    turn = rng.permutation(12)
    canvas = np.zeros((88, 88), np.uint8)
    for i in np.argsort(turn):
        row, col = corners[i]
        canvas[row : row + BOX, col : col + BOX] = boxes[i]
    hide(boxes, corners, turn)
    labels = torch.zeros(1, dtype=torch.long)
    left = SparseImages(88, torch.from_numpy(boxes)[None], torch.from_numpy(corners)[None], labels)
    assert np.array_equal(left.dense()[0, :, :, 0].numpy(), canvas)


def shares(side: int, view: int) -> NDArray[np.float64]:
    """(view, side): how much of each cell each pixel fills along one axis."""
    edges = np.arange(view + 1) * side / view
    pixel = np.arange(side)
    return (np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)).clip(0) * view / side


@pytest.mark.parametrize(("side", "view"), [(250, 30), (240, 30), (200, 150), (150, 150)])
def test_low_view_is_the_exact_area_mean(digits: Digits, side: int, view: int) -> None:
    images = make_images(digits, "train", 4, side=side, noise="over")
    weights = shares(side, view)
    expected = weights @ images.dense()[..., 0].numpy() @ weights.T
    np.testing.assert_allclose(images.low(view)[..., 0].numpy(), expected, atol=1e-4)


def test_low_view_of_a_huge_image_keeps_its_ink(digits: Digits) -> None:
    images = make_images(digits, "train", 1, side=16_000, noise="over")
    ink = images.boxes.double().sum() / 16_000**2
    assert images.low(1920).double().mean().item() == pytest.approx(ink.item(), rel=1e-5)


@pytest.mark.parametrize("px", [9, 50])
def test_patches_are_the_pixels_and_black_beyond_the_image(digits: Digits, px: int) -> None:
    images = make_images(digits, "train", 3, side=150, noise="over")
    corners = torch.randint(-20, 160, (3, 40, 2), generator=torch.Generator().manual_seed(0))
    patches = images.patches(corners, px)
    padded = torch.nn.functional.pad(images.dense(), (0, 0, 100, 100, 100, 100))
    for b in range(3):
        for n in range(40):
            row, col = (corners[b, n] + 100).tolist()
            assert torch.equal(patches[b, n], padded[b, row : row + px, col : col + px])


def test_a_megapixel_image_takes_few_bytes(digits: Digits) -> None:
    images = make_images(digits, "train", 2, side=1500, noise="over")
    held = sum(t.numel() * t.element_size() for t in (images.boxes, images.corners, images.labels))
    assert held / 2 < 0.02 * 1500**2


def test_a_stroke_has_as_much_ink_as_a_digit() -> None:
    """Attention cannot tell them apart by brightness; a digit of MNIST has the ink of 102 white pixels on average."""
    ink = draw_strokes(np.random.default_rng(0), 500).astype(float).sum((1, 2)) / 255
    assert ink.mean() == pytest.approx(102, rel=0.1)


@pytest.mark.parametrize(("side", "noise", "words"), [(137, "over", "at least 138"), (200, "beside", "'beside'")])
def test_impossible_images_are_refused(digits: Digits, side: int, noise: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_images(digits, "train", 1, side=side, noise=noise)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\x08\x01" + struct.pack(">I", 5) + b"1234", "cut short"),
        (b"\0\0\x0d\x01" + struct.pack(">I", 1) + b"1234", "unsigned bytes"),
        (b"\0\0\x08\x03\0\0", "cut short"),
        (b"", "unsigned bytes"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=words):
        read_idx(path)


@pytest.mark.realdata
def test_digits_of_the_splits_never_mix(shared_data: Path) -> None:
    seen: set[bytes] = set()
    for split, count in (("train", 50_000), ("val", 10_000), ("test", 10_000)):
        digits = load_digits(shared_data / "mnist", split)  # type: ignore[arg-type]
        assert len(digits.images) == len(digits.labels) == count
        images = {image.tobytes() for image in digits.images}
        assert not seen & images
        seen |= images
