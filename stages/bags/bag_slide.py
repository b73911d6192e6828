"""A bag in a slide's place: where its tiles lie on the level-0 frame, and their features; no pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.bags.bag import Bag, BagError, read_bag, read_features
from stages.bags.grid import lay
from stages.disk import Version, refuse_changed, version_of
from stages.geometry import Box, Mpp, Raster
from stages.passing import patiently
from stages.slide.companions import fingerprint_of, state_of
from stages.slide.facts import MAX_SIDE, SlideError, SlideFacts, override_mpp, unreadable
from stages.slide.protocol import Slide
from stages.slide.resolution import check_mpp

VENDOR = "bag"
NO_PIXELS = "a bag has features and no pixels: give the slide where pixels are needed"
_GIVE_MPP = "give its slide's µm per level-0 pixel in the table's column mpp, or with --mpp"


class FeatureMemory:
    """Features of bags that are read again and again, kept while there is room: those that come first, for of bags that
    are gone through in turn whoever keeps the last ones finds none.

    Args:
        room: bytes that are kept, at most.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._known: dict[str, NDArray[np.float32]] = {}

    def of(self, content: str, read: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """The features of a bag of this content, by ``read`` where they are not here."""
        if content in self._known:
            return self._known[content]
        found = read()
        if found.nbytes <= self._room:
            self._room -= found.nbytes
            self._known[content] = found
        return found


class BagSlide(Slide):
    """A slide of which only the tiles' features are there.

    Attributes:
        facts: of the file; their one level is the frame that its coordinates are in.
        corners: top-left corners (N, 2) x, y of the tiles in level-0 pixels, no two alike.
        side: (x, y) of a tile in level-0 pixels.
        patch_px: side of a tile in its own pixels.
        dim: length of a feature.
        encoder: what made them, as the bag calls it; None: it does not say.
        cells: a grid that has a cell for each tile.
        cell_of: which cell each tile has, (N,), row-major.
        memory: where its features are kept, in this process; None: they are read each time.
    """

    def __init__(self, facts: SlideFacts, bag: Bag, rows: NDArray[np.int64], side: tuple[float, float]) -> None:
        self.facts, self.side = facts, side
        self.corners, self.patch_px = bag.coords[rows], bag.patch_px
        self.dim, self.encoder = int(bag.features.shape[1]), bag.encoder
        self.cells, self.cell_of = lay(self.corners, side)
        self._rows, self._shape = rows, bag.features.shape
        self._opened: Version = version_of(facts.file.stat())
        self.memory: FeatureMemory | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "memory": None}

    @property
    def off_grid(self) -> int:
        """How many tiles lie more than a hundredth of their side from the middle of their cell."""
        middle = self.cells.centres_level0(self.cell_of) - np.array(self.side) / 2
        apart = np.abs(middle - self.corners).max(1)
        return int((apart > max(1.0, max(self.side) / 100)).sum())

    @property
    def patch_mpp(self) -> float:
        """µm per pixel of a tile, by its extent on the slide.

        Raises:
            SlideError: the slide's resolution is unknown.
        """
        mpp = self.facts.require_mpp()
        return math.sqrt(self.side[0] * mpp.x * self.side[1] * mpp.y) / self.patch_px

    @unreadable()
    def features(self, tiles: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features (M, D) of tiles (M,), numbered as ``corners`` are.

        Raises:
            SlideError: the file is another than was opened, or cannot be read.
        """
        refuse_changed(patiently(self.facts.file.stat), self._opened)
        found = self._read() if self.memory is None else self.memory.of(self.facts.content, self._read)
        features: NDArray[np.float32] = found[tiles]
        return features

    def _read(self) -> NDArray[np.float32]:
        try:
            stored = read_features(self.facts.file)
            found = (stored[0] if stored.ndim == 3 else stored).astype(np.float32)
            if found.shape != self._shape:
                raise ValueError(f"{found.shape} where {self._shape} were")
        except (OSError, RuntimeError, ValueError, KeyError) as exc:
            raise BagError(f"its features cannot be read ({' '.join(str(exc).split())}): write the bag anew") from exc
        features: NDArray[np.float32] = found[self._rows]
        return features

    def feature_bytes(self, count: int) -> int:
        """Bytes of so many features, as they are used."""
        return 4 * self.dim * count

    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`: it has none."""
        raise SlideError(NO_PIXELS)

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: it has none."""
        raise SlideError(NO_PIXELS)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`: what features take is told exactly."""
        return True

    def _repr_html_(self) -> str:
        return f"<p>{len(self.corners)} tiles with {self.dim} features each, no pixels</p>"


@unreadable()
def open_bag(path: Path, *, mpp: float | None = None) -> BagSlide:
    """Open a bag in its slide's place.

    Args:
        path: the file.
        mpp: µm per level-0 pixel that replaces the bag's own.

    Raises:
        SlideError: it cannot be used; see `read_bag`. Two tiles at one place have other features, or tiles lie off any
            slide.
    """
    bag = read_bag(path)
    given = None if mpp is None or check_mpp(mpp, mpp) else Mpp(mpp, mpp)
    side = _side(bag, given)
    rows, twice = _once(bag)
    own = _own_mpp(bag, side)
    corners = bag.coords[rows]
    if (corners < -np.array(side)).any() or (corners + side > MAX_SIDE).any():
        low, high = corners.min(), corners.max()
        raise BagError(
            f"its coordinates reach from {low:g} to {high:g}, outside of any slide: they are damaged, or of other "
            "units than level-0 pixels; write the bag anew"
        )
    width, height = (
        max(size, math.ceil(end)) for size, end in zip(bag.size_level0, (corners + side).max(0), strict=True)
    )
    if own is None:
        problem: str | None = f"nothing in the bag says how many µm a pixel is: {_GIVE_MPP}"
    else:
        problem = check_mpp(own.x, own.y)
    told = repr((bag.patch_px, side, bag.mpp, bag.mpp_level0))  # which may stand in another file
    others = () if bag.coords_in is None else (bag.coords_in,)
    facts = SlideFacts(
        path=path,
        vendor=VENDOR,
        levels=(Raster(0, 0, 1, 1, width, height),),
        tile_sizes=((max(1, round(side[0])), max(1, round(side[1]))),),
        mpp=None if problem else own,
        mpp_source="none" if own is None else "file",
        mpp_problem=problem,
        bounds=Box(0, 0, width, height),
        background=(255, 255, 255),
        objective_power=None,
        associated=(),
        fingerprint=fingerprint_of(path, {"openslide.quickhash-1": told}, others),
        file_bytes=sum(patiently(file.stat).st_size for file in (path, *others)),
        warnings=(f"{twice} of its {len(bag)} tiles are there twice: each counts once",) if twice else (),
        revision=state_of(path, {}, others),
    )
    return BagSlide(override_mpp(facts, mpp), bag, rows, side)


def _side(bag: Bag, given: Mpp | None) -> tuple[float, float]:
    """Sides of a tile in level-0 pixels."""
    if bag.side_level0 is not None:
        return bag.side_level0
    mpp = given or bag.mpp_level0
    assert bag.mpp is not None
    if mpp is None:
        raise BagError(f"nothing in the bag says how many level-0 pixels a tile is: {_GIVE_MPP}")
    return bag.patch_px * bag.mpp / mpp.x, bag.patch_px * bag.mpp / mpp.y


def _own_mpp(bag: Bag, side: tuple[float, float]) -> Mpp | None:
    """µm per level-0 pixel by the bag itself: as it says, or by how many µm and how many pixels a tile is."""
    if bag.mpp_level0 is not None or bag.mpp is None:
        return bag.mpp_level0
    extent = bag.patch_px * bag.mpp
    return Mpp(extent / side[0], extent / side[1])


def _once(bag: Bag) -> tuple[NDArray[np.int64], int]:
    """Rows of a bag's tiles in its order, each place once, and how many others there are."""
    _, first, which = np.unique(bag.coords, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(bag):
        return np.arange(len(bag)), 0
    again = first[which.ravel()]
    if not np.allclose(bag.features, bag.features[again], rtol=1e-3, atol=1e-5):
        raise BagError(
            f"{len(bag) - len(first)} of its {len(bag)} tiles are at places of others and have other features: it is "
            "of two runs; write the bag anew"
        )
    return np.sort(first), len(bag) - len(first)
