"""Which of a file's pyramid levels show level 0's picture, and where each of them lies on it.

A format's flags let any picture pass for a level: the macro photograph, another part, one that is mirrored. A level is
one that lies on level 0 at one factor along x and y, by its size, and shows there what the level before it shows. Its
factor is the whole number behind the sizes; where there is none, as in levels that are padded to whole tiles, the
factor at which the pictures fit best decides, of those that sizes and the level's own resolution tag allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Raster, level_raster

ALIKE = 0.6
"""Correlation of two windows that show the same; coarse levels that are sharpened, blurred, compressed harder or made
of every k-th pixel reach 0.8, other parts of the same tissue stay below 0.5."""
PLAIN = 0.9
"""... from which no other shift is tried."""
TEXTURE = 6.0
"""Grey levels of standard deviation (a plane taken out) from which a window shows anything: noisy glass is below, and
dim signal of which hard compression leaves little."""
BRIGHTNESS, HUE = 24.0, 14.0
"""Grey levels by which a level's mean colour may differ: averages taken in linear light stay below 10 and brighten all
channels alike; and by which one channel's difference may exceed another's."""
FLAT_BRIGHTNESS = 64.0
"""... where neither shows anything: glass, fill and what was never scanned are bright in different ways."""
WINDOW = 64
"""Pixels of the coarser level along a side of what is compared..."""
MOST_ACROSS = 768
"""... but of the finer one at most so many: some nine tiles."""
SMALLEST = 8
"""... and at least so many: what is smaller tells nothing, and nobody looks at it."""
FEW_PIXELS = 1024
"""Pixels that are compared at least, where there are so many."""
RANKED = 10
"""Windows of the coarsest level that are looked at for texture, so that what is compared shows something..."""
READ_WHOLE = 2**19
"""... or all of it where it has at most so many pixels: sparse tissue may lie anywhere."""
FEW, MANY = 4, 24
"""Windows that are tried for something to compare: where sizes tell the factor, and where they leave it open."""
MAX_TILE = 2**22
"""Pixels of a tile beyond which a level is not looked at: a slide that is one huge tile would be decoded to open it."""

_SHIFTS = sorted(((y, x) for y in range(3) for x in range(3)), key=lambda s: abs(s[0] - 1) + abs(s[1] - 1))
"""Of a window with a border of one pixel: none first."""

Pixels = NDArray[np.uint8]
Read = Callable[[int, Box], Pixels | None]


@dataclass(frozen=True, slots=True)
class Levels:
    """A file's levels as they may be used.

    Attributes:
        numbers: of each kept level in its file, finest first.
        rasters: of each kept level, on the level-0 frame.
        left_out: why each other one is no level.
    """

    numbers: tuple[int, ...]
    rasters: tuple[Raster, ...]
    left_out: tuple[str, ...]


def find_levels(
    sizes: Sequence[tuple[int, int]],
    tiles: Sequence[tuple[int, int]],
    read: Read,
    *,
    factors: Sequence[float | None] = (),
    bounds: Box | None = None,
) -> Levels:
    """The levels of a file, each compared with the one before it in a few small windows: some ten tiles in all.

    Args:
        sizes, tiles: (width, height) of each level and of its tiles, in pixels of that level; level 0 first.
        read: RGB (height, width, 3) of a box of a level; None where it cannot be read.
        factors: how many times coarser than level 0 each level says it is, by its own resolution tag.
        bounds: the scanned part, level-0 pixels, where there is something to compare.
    """
    if len(sizes) == 1:
        return Levels((0,), (level_raster(sizes[0], sizes[0]),), ())
    look = _Look(sizes, tiles, read, bounds or Box(0, 0, *sizes[0]))
    numbers, rasters, left_out = [0], [level_raster(sizes[0], sizes[0])], []
    for number in range(1, len(sizes)):
        told = factors[number] if number < len(factors) else None
        raster, why = _place(look, (numbers[-1], rasters[-1]), number, told)
        if raster is None:
            width, height = sizes[number]
            left_out.append(f"level {number} ({width} x {height} px) is left out: {why}")
        else:
            numbers.append(number)
            rasters.append(raster)
    return Levels(tuple(numbers), tuple(rasters), tuple(left_out))


def _place(look: _Look, before: tuple[int, Raster], number: int, told: float | None) -> tuple[Raster | None, str]:
    """A level on the level-0 frame; None and why, where it is none."""
    full, size, tile = look.sizes[0], look.sizes[number], look.tiles[number]
    by_size = level_raster(full, size) if _one_factor(full, size) else None
    if by_size is not None and by_size.scale_x == by_size.scale_y and _agrees(told, by_size.scale_x):
        found = look.compare(before, (number, by_size), wanted=1, most=FEW)
        if found.scores and (found.score < ALIKE or found.discoloured):
            found = look.compare(before, (number, by_size), wanted=5, most=MANY)
        why = found.complaint(before[0])
        return (by_size, "") if why is None else (None, why)
    candidates = [by_size] if by_size is not None else []
    for factor in dict.fromkeys((told, *_whole_factors(full, size))):
        if factor is not None and _covers(full, size, tile, factor):
            candidates.append(Raster(0.0, 0.0, factor, factor, *size))
    if not candidates:
        across, down = (whole / part for whole, part in zip(full, size, strict=True))
        return None, f"it is no picture of level 0 at one factor ({across:.4g}x along x, {down:.4g}x along y)"
    compared = [(look.compare(before, (number, raster), wanted=5, most=MANY), raster) for raster in candidates]
    if not any(found.scores for found, _ in compared):  # nothing to compare: by its size, or padded to whole tiles
        whole_tiles = not size[0] % tile[0] and not size[1] % tile[1]
        if by_size is not None or whole_tiles or told is not None:
            return candidates[0], ""
        return None, "its size is no part of level 0's, and there is nothing on it to tell its factor by"
    found, raster = max(compared, key=lambda pair: pair[0].score)
    why = found.complaint(before[0])
    return (raster, "") if why is None else (None, why)


def _one_factor(full: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one factor explains both sides, each rounded up or down."""
    low = max(whole / (part + 1) for whole, part in zip(full, size, strict=True))
    high = min(whole / max(part - 1, 0.5) for whole, part in zip(full, size, strict=True))
    return low <= high


def _agrees(told: float | None, factor: float) -> bool:
    return told is None or abs(told / factor - 1) < 0.02


def _whole_factors(full: tuple[int, int], size: tuple[int, int]) -> tuple[float, ...]:
    """Whole factors of a level that was padded: the next one, and the next power of two."""
    least = max(whole / part for whole, part in zip(full, size, strict=True))
    return float(math.ceil(least)), 2.0 ** math.ceil(math.log2(max(1.0, least)))


def _covers(full: tuple[int, int], size: tuple[int, int], tile: tuple[int, int], factor: float) -> bool:
    """Whether a level at this factor holds all of level 0, and beyond it less than a tile."""
    return all(
        whole / factor - 1 <= part < whole / factor + side for whole, part, side in zip(full, size, tile, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """What comparing two levels came to: of each window with something to see, its correlation, and its difference in
    colour as a share of what may be."""

    scores: tuple[float, ...]
    colours: tuple[float, ...]

    @property
    def score(self) -> float:
        return float(np.median(self.scores)) if self.scores else -1.0

    @property
    def discoloured(self) -> bool:
        return bool(self.colours) and float(np.median(self.colours)) > 1

    def complaint(self, before: int) -> str | None:
        """Why this is no level; None where nothing speaks against it."""
        if self.scores and self.score < ALIKE:
            return f"what it shows is not what level {before} shows there"
        if self.discoloured:
            return f"its colours are not those of level {before}"
        return None


class _Look:
    """Small windows of a file's levels, each read once."""

    def __init__(
        self, sizes: Sequence[tuple[int, int]], tiles: Sequence[tuple[int, int]], read: Read, bounds: Box
    ) -> None:
        self.sizes, self.tiles, self._read = sizes, tiles, read
        self._memory: dict[tuple[int, Box], Pixels | None] = {}
        self._spots = self._ranked(bounds)

    def _pixels(self, level: int, box: Box) -> Pixels | None:
        if math.prod(self.tiles[level]) > MAX_TILE:
            return None
        if (level, box) not in self._memory:
            self._memory[level, box] = self._read(level, box)
        return self._memory[level, box]

    def _ranked(self, bounds: Box) -> list[tuple[float, float]]:
        """Level-0 points to look at: first where the coarsest level shows something, then evenly spread."""
        n = np.arange(MANY)
        # an additive recurrence fills the square evenly, however many of its points are taken
        u, v = (0.5 + n * 0.7548776662) % 1, (0.5 + n * 0.5698402910) % 1
        x, y = bounds.x + bounds.width * (0.06 + 0.88 * u), bounds.y + bounds.height * (0.06 + 0.88 * v)
        spread = list(zip(x.tolist(), y.tolist(), strict=True))
        for number in range(len(self.sizes) - 1, 0, -1):
            best = self._shown(number, spread)
            if best:
                break
        return list(dict.fromkeys([*best, *spread]))

    def _shown(self, number: int, spread: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Level-0 points at which a level shows something."""
        raster = level_raster(self.sizes[0], self.sizes[number])
        scattered = [_window(raster, point, WINDOW) for point in spread[:RANKED]]
        few: Iterable[Box] = scattered[:FEW]
        more: Iterable[Box] = scattered[FEW:]
        if raster.width * raster.height <= READ_WHOLE:
            few, more = scattered[: FEW // 2], self._busiest(number, raster)
        boxes = [box for box in few if self._has_texture(number, box)]
        boxes = boxes or [box for box in more if self._has_texture(number, box)]
        middles = [raster.to_level0((box.x + box.width / 2, box.y + box.height / 2)).tolist() for box in boxes]
        return [(x, y) for x, y in middles]

    def _has_texture(self, number: int, box: Box) -> bool:
        pixels = self._pixels(number, box)
        return pixels is not None and float(_detrended(pixels).std()) >= TEXTURE

    def _busiest(self, number: int, raster: Raster) -> Iterator[Box]:
        """The two windows of a level in which most is to be seen; all of it is read when the first is asked for."""
        rows, columns = raster.height // WINDOW, raster.width // WINDOW
        whole = self._pixels(number, Box(0, 0, raster.width, raster.height)) if rows and columns else None
        if whole is None:
            return
        green = whole[: rows * WINDOW, : columns * WINDOW, 1].reshape(rows, WINDOW, columns, WINDOW)
        for i in np.argsort(green.std(axis=(1, 3)).ravel())[:-3:-1].tolist():
            yield Box(i % columns * WINDOW, i // columns * WINDOW, WINDOW, WINDOW)

    def compare(self, before: tuple[int, Raster], after: tuple[int, Raster], *, wanted: int, most: int) -> _Compared:
        """A coarser level with a finer one, in ``wanted`` windows that show something, of at most so many tried."""
        (fine, fine_raster), (coarse, raster) = before, after
        across = raster.scale_x / fine_raster.scale_x
        side = max(16, min(WINDOW, int(MOST_ACROSS / across)))
        wanted = max(wanted, FEW_PIXELS // side**2)  # small windows look alike by chance
        scores, colours, flat = [], [], []
        for box in dict.fromkeys(_window(raster, point, side) for point in self._spots[:most]):
            if min(box.width, box.height) < SMALLEST:
                break
            there = fine_raster.from_level0(raster.to_level0([(box.x, box.y), (box.x + box.width, box.y + box.height)]))
            (left, top), (right, bottom) = there.tolist()
            whole = Box(0, 0, fine_raster.width, fine_raster.height)
            x, y = math.floor(left + 1e-6), math.floor(top + 1e-6)
            part = Box(x, y, math.ceil(right - 1e-6) - x, math.ceil(bottom - 1e-6) - y).intersect(whole)
            if not part.area or right > whole.width + 1 or bottom > whole.height + 1:
                continue  # the padding of a level
            theirs, finer = self._pixels(coarse, box), self._pixels(fine, part)
            if theirs is None or finer is None:
                break  # damaged: where it is read, it will be said
            mine = _shrunk(finer, (left - part.x, top - part.y, right - part.x, bottom - part.y), box)
            off = mine.mean((0, 1)) - theirs.mean((0, 1))
            most_off = float(np.abs(off).max())
            a, b = _detrended(mine), _detrended(theirs)
            if max(a.std(), b.std()) < TEXTURE:
                flat.append(most_off / FLAT_BRIGHTNESS)
                continue
            scores.append(_correlation(a, b))
            colours.append(max(most_off / BRIGHTNESS, float(np.ptp(off)) / HUE))
            if len(scores) == wanted:
                break
        return _Compared(tuple(scores), tuple(colours if scores else flat))


def _window(raster: Raster, point: tuple[float, float], side: int) -> Box:
    """A square of a level at a level-0 point, moved inside the level; smaller where the level is."""
    (u, v) = raster.from_level0(point).tolist()
    width, height = min(side, raster.width), min(side, raster.height)
    # whole multiples of the side, so that few tiles are touched, here and in finer levels
    x, y = (int(at) // n * n for at, n in ((u, width), (v, height)))
    return Box(max(0, min(x, raster.width - width)), max(0, min(y, raster.height - height)), width, height)


def _shrunk(pixels: Pixels, box: tuple[float, float, float, float], onto: Box) -> Pixels:
    """The part of an image as many pixels, averaged by area."""
    from PIL import Image  # OpenSlide's own; nothing here needs it before a level is read

    left, top, right, bottom = box
    inside = (max(0.0, left), max(0.0, top), min(right, pixels.shape[1]), min(bottom, pixels.shape[0]))
    small = Image.fromarray(pixels).resize((onto.width, onto.height), Image.Resampling.BOX, box=inside)
    return np.asarray(small)


def _detrended(pixels: Pixels) -> NDArray[np.float32]:
    """Grey (height, width) less the plane through it: shading and gradients are alike wherever one looks."""
    grey: NDArray[np.float32] = pixels.sum(axis=2, dtype=np.float32) / np.float32(3)
    y, x = (np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2) for n in grey.shape)
    grey -= grey.mean()
    down, across = grey.mean(axis=1), grey.mean(axis=0)
    for values, at, axis in ((down, y, 1), (across, x, 0)):
        slope = np.float32(float(values @ at) / max(1.0, float(at @ at)))
        np.subtract(grey, np.expand_dims(at, axis) * slope, out=grey)
    return grey


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The best correlation of two windows moved by at most a pixel, of their pixels or of means of 2 x 2."""
    best = -1.0
    for one, other in ((a, b), (_halved(a), _halved(b))):
        rows, columns = one.shape
        if min(rows, columns) < SMALLEST:
            break
        core = one[1:-1, 1:-1] - one[1:-1, 1:-1].mean()
        for y, x in _SHIFTS:
            moved = other[y : rows - 2 + y, x : columns - 2 + x]
            spread = math.sqrt(float(np.vdot(core, core)) * float(moved.var()) * moved.size)
            best = max(best, float(np.vdot(core, moved)) / spread if spread else 0.0)  # the core's mean is 0
            if best >= PLAIN:
                return best
    return best


def _halved(a: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
    a = a[:rows, :columns]
    half: NDArray[np.float32] = (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) * np.float32(0.25)
    return half
