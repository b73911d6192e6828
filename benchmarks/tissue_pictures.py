"""Thumbnails with known truth: stained tissue on glass, in a scan that leaves gaps, with what else lies on a slide.

Each picture is made in optical density: the texture of real stained tissue times a stain's density, on glass with its
own colour, illumination and noise, then cut out of a scan whose gaps are filled with one colour.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

SIDE = 640
MPP = 8.0
"""µm per pixel of every picture."""

Colour = tuple[float, float, float]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

GLASS: Colour = (243, 242, 244)
PINK: Colour = (185, 110, 165)
STAINS: dict[str, tuple[Colour, Colour | None]] = {
    "H&E": (PINK, (110, 80, 150)),
    "pale H&E": ((226, 205, 222), (190, 170, 205)),
    "melanin": (PINK, (48, 33, 28)),
    "anthracosis": (PINK, (35, 33, 34)),
    "Sirius red": ((232, 215, 150), (190, 35, 45)),
    "Masson blue": ((190, 70, 90), (65, 105, 170)),
    "Masson red": ((90, 130, 190), (185, 40, 55)),
    "Alcian blue": ((225, 200, 215), (55, 135, 185)),
    "Perls": ((235, 150, 165), (45, 85, 165)),
    "DAB": ((215, 215, 230), (70, 40, 25)),
    "DAB-nickel": ((215, 215, 230), (45, 42, 48)),
    "oil red": ((200, 195, 225), (200, 40, 35)),
    "Giemsa": ((190, 160, 200), (60, 70, 150)),
    "Grocott": ((150, 190, 160), (50, 45, 45)),
    "light green": ((60, 55, 60), (70, 150, 110)),
    "silver": ((120, 117, 114), None),
    "silver, brown": ((130, 122, 108), None),
    "toluidine blue": ((90, 95, 140), None),
    "PAS": ((205, 120, 180), (170, 40, 120)),
    "Congo red": ((225, 170, 180), (205, 70, 70)),
    "van Gieson": ((225, 190, 110), (40, 35, 60)),
    "pale IHC": ((234, 234, 238), None),
    "pale IHC, brown": ((232, 232, 237), (190, 160, 130)),
    "eosin": ((236, 205, 222), None),
}
"""The colours that a stain gives to the tissue and to its special part."""
PENS: dict[str, Colour] = {
    "blue": (40, 60, 170),
    "black": (30, 30, 32),
    "green": (30, 130, 70),
    "red": (200, 30, 40),
    "yellow": (230, 215, 60),
    "orange": (235, 140, 40),
    "purple": (110, 40, 150),
    "cyan": (60, 180, 220),
    "pink": (235, 90, 160),
    "light blue": (120, 160, 225),
    "brown": (120, 70, 40),
}
FILLS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "light grey": (230, 230, 230),
    "grey": (192, 192, 192),
    "dark grey": (128, 128, 128),
    "black": (0, 0, 0),
}


@dataclass(frozen=True)
class Picture:
    """A thumbnail and what is on it.

    Attributes:
        rgb: (H, W, 3) uint8, at `MPP`.
        tissue: (H, W); true where it shows tissue.
        glass: (H, W); scanned, no tissue, nothing drawn.
        fill: (H, W); never scanned.
        drawn: (H, W); pen, dirt.
    """

    rgb: NDArray[np.uint8]
    tissue: Mask
    glass: Mask
    fill: Mask
    drawn: Mask

    def kept(self, mask: Mask) -> float:
        """Share of the tissue in a mask."""
        return float(mask[self.tissue].mean())

    def counted(self, mask: Mask, what: Mask, rim: int = 3) -> float:
        """Share of something else in a mask, ``rim`` pixels from tissue at the least; 0 of nothing."""
        far = what & ~ndimage.binary_dilation(self.tissue, iterations=rim) if rim else what
        return float(mask[far].mean()) if far.any() else 0.0


def field(seed: int, size: float, side: int = SIDE) -> Floats:
    """Smooth noise (side, side) of unit deviation."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), size, mode="wrap")
    return np.asarray(values / values.std())


def texture(side: int = SIDE) -> Floats:
    """Relative density (side, side), mean 1: real tissue at about 8 µm/px, laid side by side."""
    tile = Image.fromarray(skimage.data.immunohistochemistry()).convert("L").reduce(3)
    density = -np.log(np.asarray(tile, float).clip(20, 235) / 243)
    both = np.hstack([density, density[:, ::-1]])
    whole = np.vstack([both, both[::-1]])
    repeated = np.tile(whole, (side // whole.shape[0] + 1, side // whole.shape[1] + 1))[:side, :side]
    return np.asarray((repeated / repeated.mean()).clip(0.45, 1.8))


def piece(seed: int = 9, radius: float = 0.33, centre: tuple[float, float] = (0.5, 0.5), side: int = SIDE) -> Mask:
    """An irregular piece of tissue."""
    y, x = np.mgrid[:side, :side] / side
    inside = ((x - centre[0]) / radius) ** 2 + ((y - centre[1]) / (0.9 * radius)) ** 2
    return np.asarray(inside + 0.12 * field(seed, 25, side) + 0.05 * field(seed + 1, 4, side) < 1)


def part(tissue: Mask, share: float, seed: int = 3, size: float = 22) -> Mask:
    """A share of the tissue, in patches."""
    values = field(seed, size, tissue.shape[0])
    return np.asarray(tissue & (values > np.quantile(values[tissue], 1 - share)))


def stained(
    layers: list[tuple[Mask, Colour, float]],
    *,
    glass: Colour = GLASS,
    noise: float = 1.0,
    shade: float = 0.0,
    seed: int = 1,
) -> NDArray[np.uint8]:
    """Layers (where, colour, variation of its density) on glass whose light falls off by ``shade`` across."""
    side = layers[0][0].shape[0] if layers else SIDE
    rng = np.random.default_rng(seed)
    grain = 0.6 * (texture(side) - 1) + 0.25 * field(seed + 5, 1.2, side)
    density = np.zeros((side, side, 3))
    for where, colour, variation in layers:
        soft = ndimage.gaussian_filter(where.astype(float), 0.7)[..., None]
        layer = (
            -np.log(np.minimum(np.array(colour, float) / np.array(glass), 1))
            * np.clip(1 + variation / 0.35 * grain, 0.2, None)[..., None]
        )
        density = density * (1 - soft) + layer * soft
    light = np.array(glass) * (1 - shade * np.linspace(0, 1, side))[None, :, None]
    return np.clip(np.rint(light * np.exp(-density) + rng.normal(0, noise, density.shape)), 0, 255).astype(np.uint8)


def slide(stain: str, *, share: float = 0.25, tissue: Mask | None = None, **options: float | Colour) -> Picture:
    """Tissue of one stain, a ``share`` of it in the stain's special colour, on glass."""
    tissue = piece() if tissue is None else tissue
    colour, special = STAINS[stain]
    layers = [(tissue, colour, 0.3)]
    if special is not None:
        layers.append((part(tissue, share), special, 0.3))
    nothing = np.zeros_like(tissue)
    return Picture(stained(layers, **options), tissue, ~tissue, nothing, nothing)  # type: ignore[arg-type]


def scanned(tissue: Mask, share: float, layout: str) -> Mask:
    """Where a scanner went, leaving out about a ``share`` of the whole.

    ``tiles``: fields of view around the tissue, so that little glass is left; ``touching``: the same, but some on
    tissue are missing as well; ``frame``: all but a border; ``rotated``: a scan turned by 12 degrees; ``strips``: two
    regions with a gap between them, one without tissue.
    """
    side = tissue.shape[0]
    y, x = np.mgrid[:side, :side]
    if layout in ("tiles", "touching"):
        step = 36
        grid = -(-side // step)
        distance = ndimage.distance_transform_edt(~tissue) + 3 * field(4, 20, side)
        padded = np.pad(distance, ((0, grid * step - side),) * 2, mode="edge")
        nearest = padded.reshape(grid, step, grid, step).min(axis=(1, 3)) + np.random.default_rng(2).uniform(
            0, 1, (grid, grid)
        )
        if layout == "touching":
            holes = np.random.default_rng(5).random((grid, grid)) < share / 3
            nearest = np.where(holes, 1e6, nearest)
        wanted = np.sort(nearest.ravel())[round((1 - share) * grid * grid) - 1]
        return np.kron(nearest <= wanted, np.ones((step, step), bool))[:side, :side]
    if layout == "frame":
        border = side * (1 - (1 - share) ** 0.5) / 2
        return np.asarray((np.minimum(x, y) >= border) & (np.maximum(x, y) < side - border))
    if layout == "strips":
        return np.asarray((x < (0.95 - share) * side) | (x >= 0.95 * side))
    angle = np.deg2rad(12)
    u = (x - side / 2) * np.cos(angle) + (y - side / 2) * np.sin(angle)
    v = -(x - side / 2) * np.sin(angle) + (y - side / 2) * np.cos(angle)
    reach = np.sort(np.maximum(np.abs(u), np.abs(v)).ravel())[int((1 - share) * side * side) - 1]
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) <= reach)


LAYOUTS = ("tiles", "touching", "frame", "rotated", "strips")


def sparse(picture: Picture, share: float, layout: str, fill: Colour) -> Picture:
    """The picture as a scan that leaves out a share of it, filled with one colour."""
    seen = scanned(picture.tissue, share, layout)
    rgb = picture.rgb.copy()
    rgb[~seen] = np.array(fill, np.uint8)
    return Picture(rgb, picture.tissue & seen, picture.glass & seen, ~seen, picture.drawn & seen)


def pen(picture: Picture, colour: Colour, strokes: list[list[tuple[float, float]]], width: int = 20) -> Picture:
    """The picture with strokes of ink over it, through points in shares of its side."""
    side = picture.tissue.shape[0]
    ink = Image.new("L", (side, side))
    for points in strokes:
        ImageDraw.Draw(ink).line([(x * side, y * side) for x, y in points], fill=255, width=width, joint="curve")
    alpha = ndimage.gaussian_filter(np.asarray(ink) / 255.0, 1.5)[..., None] * (1 + 0.08 * field(8, 6, side)[..., None])
    density = -np.log(np.minimum(np.array(colour, float) / np.array(GLASS), 1)) * alpha.clip(0)
    rgb = np.clip(np.rint(picture.rgb * np.exp(-density)), 0, 255).astype(np.uint8)
    drawn = np.asarray(ink) > 0
    return replace(picture, rgb=rgb, glass=picture.glass & ~drawn, drawn=drawn & ~picture.tissue)


def ring(radius: float = 0.43) -> list[list[tuple[float, float]]]:
    """A stroke around the tissue."""
    angles = np.linspace(0, 2 * np.pi, 60)
    return [[(0.5 + radius * np.cos(a), 0.5 + radius * np.sin(a)) for a in angles]]


def compressed(picture: Picture, quality: int = 75) -> Picture:
    """The picture after JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture.rgb).save(file, "JPEG", quality=quality)
    return replace(picture, rgb=np.asarray(Image.open(file).convert("RGB")))


def hand_marked(folder: Path) -> Iterator[tuple[str, NDArray[np.uint8], Mask]]:
    """(name, picture, pen) of the pictures in a folder whose pen somebody marked by hand, in ``NAME_mask.png``."""
    for path in sorted(folder.glob("*_mask.png")):
        name = path.stem.removesuffix("_mask")
        rgb = np.asarray(Image.open(path.with_name(f"{name}.png")).convert("RGB"))
        yield name, rgb, np.asarray(Image.open(path).convert("L")) > 127


def outlined(rgb: NDArray[np.uint8], mask: Mask, *, width: int = 2) -> Image.Image:
    """A mask's outline over its picture, what it leaves out darker."""
    picture = rgb.copy()
    picture[~mask] = (0.7 * picture[~mask]).astype(np.uint8)
    picture[mask ^ ndimage.binary_erosion(mask, iterations=width)] = (0, 255, 0)
    return Image.fromarray(picture)
