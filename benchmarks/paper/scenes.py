"""Speed limits in the Swedish traffic signs set: road scenes of 960 x 1280 pixels, one small sign decides the class.

The set is that of F. Larsson and M. Felsberg, "Using Fourier Descriptors and Spatial Models for Traffic Sign
Recognition", SCIA 2011; it is not part of this project. Its folder holds ``Set1`` and ``Set2``, each with images and an
``annotations.txt``. The task is that of Katharopoulos & Fleuret (ICML 2019): which limit is seen, 50, 70, 80 or none?

The format and the choice of images were taken from what public code of others reads, not from the set itself, which
was not at hand: this module is tested on drawn images only. A line is ``IMAGE:SIGN;SIGN;...``, a sign
``VISIBILITY, x, y, x, y, TYPE, NAME`` with two opposite corners, or ``MISC_SIGNS`` for signs that were not annotated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.paper.config import Sight
from benchmarks.paper.views import padded, shrunk, view_of, window_reader
from pipeline.model.values import View

LIMITS = ("50_SIGN", "70_SIGN", "80_SIGN")
CLASSES = ("none", "50", "70", "80")
VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")
FOLDERS = {"train": "Set1", "test": "Set2"}
# the published file has a number that ends in a stray letter
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)[a-z]?")


@dataclass(frozen=True, slots=True)
class Sign:
    """An annotated sign.

    Attributes:
        visibility: one of `VISIBILITIES`.
        box: left, top, right, bottom in pixels of the image.
        kind: such as PROHIBITORY.
        name: such as 70_SIGN.
    """

    visibility: str
    box: tuple[float, float, float, float]
    kind: str
    name: str

    @property
    def area(self) -> float:
        """Square pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


@dataclass(frozen=True, slots=True)
class Scene:
    """An image of the task: its file, its class as an index into `CLASSES`, and its annotated signs."""

    path: Path
    label: int
    signs: tuple[Sign, ...]


def load_scenes(folder: Path, split: Literal["train", "test"]) -> list[Scene]:
    """The images of ``folder/Set1`` (training) or ``folder/Set2`` (test) that `label_of` gives a class.

    Raises:
        FileNotFoundError: there is no annotations.txt, or an image of it is missing.
        ValueError: a line is malformed, an image is annotated twice, or none has a class.
    """
    table = folder / FOLDERS[split] / "annotations.txt"
    if not table.is_file():
        raise FileNotFoundError(f"{table} is missing: expected a folder with Set1 and Set2 of the traffic signs set")
    scenes = []
    for name, signs in read_annotations(table).items():
        label = label_of(signs)
        if label is None:
            continue
        path = table.parent / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, but {table} annotates it: unpack all images of the set")
        scenes.append(Scene(path, label, signs))
    if not scenes:
        raise ValueError(f"{table}: no image shows a limit of 50, 70 or 80 or no sign at all")
    return scenes


def label_of(signs: Sequence[Sign]) -> int | None:
    """The class of an image with these annotated signs, or None where it is no part of the task.

    No annotated sign is class "none", though there may be signs that nobody annotated. Else the largest *visible* one
    of the three limits decides. Images whose limits are all blurred, occluded or of a side road are left out, for
    nobody can say whether a limit is seen; so are images with other signs only. This is the rule of the authors' code.
    """
    if not signs:
        return CLASSES.index("none")
    seen = [sign for sign in signs if sign.name in LIMITS and sign.visibility == "VISIBLE"]
    if not seen:
        return None
    return 1 + LIMITS.index(max(seen, key=lambda sign: sign.area).name)


def read_annotations(path: Path) -> dict[str, tuple[Sign, ...]]:
    """Each image's annotated signs, by the image's file name; signs that nobody annotated are left out.

    Raises:
        ValueError: a line is malformed or an image comes twice; names the file and the line.
    """
    scenes: dict[str, tuple[Sign, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        name, colon, rest = line.partition(":")
        name = name.strip()
        try:
            if not colon or not name or Path(name).name != name:
                raise ValueError("expected 'IMAGE:SIGN;SIGN;...' with the name of an image file")
            if name in scenes:
                raise ValueError(f"{name} was annotated before")
            fields = [field.strip() for field in rest.split(";")]
            scenes[name] = tuple(_sign(field) for field in fields if field not in ("", "MISC_SIGNS"))
        except ValueError as exc:
            raise ValueError(f"{path}, line {number}: {exc}") from exc
    return scenes


class SceneViews:
    """Scenes by number as the product sees them, read from their files when asked for.

    With a generator they are shifted by up to ``shift`` of each side, the rim repeated, and made brighter or darker by
    up to ``brightness``; the paper's code does the like.
    """

    def __init__(self, scenes: Sequence[Scene], sight: Sight, *, shift: float = 0.05, brightness: float = 0.2) -> None:
        self.scenes, self.sight, self.shift, self.brightness = scenes, sight, shift, brightness

    def __call__(self, index: int, generator: torch.Generator | None) -> View:
        """A scene.

        Raises:
            ValueError: the file is no image.
        """
        pixels = read_pixels(self.scenes[index].path)
        if generator is not None:
            pixels = self._varied(pixels, generator)
        low = shrunk(pixels, self.sight.low_px)
        scale = (pixels.shape[0] / low.shape[0], pixels.shape[1] / low.shape[1])
        px = self.sight.patch_px
        return view_of(low, window_reader(padded(pixels, px), px), self.sight, scale)

    def _varied(self, pixels: NDArray[np.uint8], generator: torch.Generator) -> NDArray[np.uint8]:
        """Another view of the same scene."""
        y, x, light = (2 * torch.rand(3, generator=generator) - 1).tolist()
        rows, cols = (
            np.clip(np.arange(n) + round(move * self.shift * n), 0, n - 1)
            for n, move in zip(pixels.shape[:2], (y, x), strict=True)
        )
        table = np.clip(np.arange(256) * (1 + light * self.brightness), 0, 255).astype(np.uint8)
        varied: NDArray[np.uint8] = table[pixels[rows][:, cols]]
        return varied


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """An image's pixels (H, W, 3).

    Raises:
        ValueError: the file is no image.
    """
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except OSError as exc:
        raise ValueError(f"{path} cannot be read as an image ({exc}): fetch it again") from exc


def _sign(text: str) -> Sign:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 7:
        raise ValueError(f"expected 'VISIBILITY, x, y, x, y, TYPE, NAME', found {text!r}")
    visibility, *corners, kind, name = parts
    if visibility not in VISIBILITIES:
        raise ValueError(f"expected a visibility of {', '.join(VISIBILITIES)}, found {visibility!r}")
    if not kind or not name:
        raise ValueError(f"expected a type and a name of the sign, found {text!r}")
    x, y, x2, y2 = map(_number, corners)
    return Sign(visibility, (min(x, x2), min(y, y2), max(x, x2), max(y, y2)), kind, name)


def _number(text: str) -> float:
    match = NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a coordinate in pixels, found {text!r}")
    return float(match[1])
