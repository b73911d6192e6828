"""OME-Zarr images that others wrote, as slides: of any version and axes, in any chunks that zarr reads."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.disk import refusal
from stages.geometry import Box, Mpp, Raster
from stages.passing import UnreadableError
from stages.place import Place, Url, each, exists, read, read_start, reading
from stages.pyramid.arrays import SAMPLES, ArrayTiles, Files, Plane, files_of, open_array, tile_of
from stages.pyramid.levels import OFF, choose_plane, place_level, refuse_absurd, warn_of_gaps
from stages.pyramid.multiscales import (
    Dataset,
    Multiscales,
    find_images,
    pixel_micrometres,
    read_multiscales,
)
from stages.slide.facts import SlideError, SlideFacts, keep_levels, unreadable
from stages.slide.levels import find_levels
from stages.slide.ome import OmeImage, read_ome
from stages.slide.protocol import Slide
from stages.slide.resolution import MPP_REMEDY, check_mpp, doubt_mpp
from stages.slide.revision import revision_of
from stages.slide.tiles import DamagedTilesError

ALIKE = 4
"""Of several images in a folder the largest is the slide where it has so many times the pixels of any other."""
SAMPLE_BYTES = 2**16
"""How far a fingerprint looks into each of `SAMPLES` files of a level."""


class ForeignSlide(Slide):
    """An OME-Zarr image that somebody else wrote.

    Args:
        facts: of the slide.
        levels: folders of its levels' arrays.
        plane: what is read of them.
        exact: whether it is known how long their chunks are.
    """

    def __init__(self, facts: SlideFacts, levels: Sequence[Place], plane: Plane, *, exact: bool) -> None:
        self.facts, self._levels, self._plane, self._exact = facts, tuple(levels), plane, exact
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._grids: list[ArrayTiles] = []

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("facts", "_levels", "_plane", "_exact")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _grid(self, level: int) -> ArrayTiles:
        with self._lock:
            if self._pid != os.getpid():
                self._grids, self._pid = [ArrayTiles(folder, self._plane) for folder in self._levels], os.getpid()
            return self._grids[level]

    @unreadable()
    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`."""
        try:
            return self._grid(level).read_many(boxes, out=out)
        except DamagedTilesError as exc:
            box = boxes[exc.boxes[0]]
            raise SlideError(
                f"cannot read level {level} ({self._levels[level].name}) at ({box.x}, {box.y}): {exc}; a chunk is "
                "damaged: copy the folder again"
            ) from exc

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: of the chunks, without the indices of shards."""
        try:
            return self._grid(level).byte_counts
        except OSError as exc:
            folder = self._levels[level]
            why = str(exc) if isinstance(folder, Url) else refusal(exc, folder, writing=False)
            raise SlideError(f"cannot read level {level}: {why}") from exc

    def direct(self, level: int) -> bool:
        """See `Slide.direct`: its chunks are what is read; how long they are is known where they can be listed."""
        return self._exact


def open_foreign(path: Place) -> ForeignSlide:
    """Open an OME-Zarr image that others wrote.

    Args:
        path: the image's folder, or the root of bioformats2raw's layout.

    Raises:
        SlideError: it holds no image, several slides, or one that is no RGB of 8 bits or cannot be read.
    """
    images = [_Image(folder) for folder in find_images(path)]
    image = max(images, key=lambda found: found.pixels)  # the first of equals
    warnings: list[str] = []
    others = [f"{found.folder.name} ({found.in_words})" for found in images if found is not image]
    if any(ALIKE * found.pixels > image.pixels for found in images if found is not image):
        listed = f"{image.folder.name} ({image.in_words}), {', '.join(others)}"
        raise SlideError(
            f"it holds several pictures of like size: {listed}; name one, as {path.name}/{image.folder.name}"
        )
    if others:
        warnings.append(
            f"of its {len(images)} pictures the largest is read, {image.folder.name}; not {', '.join(others)}"
        )
    return image.as_slide(path, warnings)


def _with_true_levels(slide: ForeignSlide, folders: list[Place], plane: Plane) -> ForeignSlide:
    """The slide without the levels that do not show what the level before them shows."""
    facts = slide.facts

    def read(level: int, box: Box) -> NDArray[np.uint8] | None:
        try:
            return slide.read_boxes(level, [box])[0]
        except SlideError:
            return None

    found = find_levels([(raster.width, raster.height) for raster in facts.levels], facts.tile_sizes, read)
    if not found.left_out:
        return slide
    placed = replace(found, rasters=tuple(facts.levels[i] for i in found.numbers))  # where the metadata put them
    return ForeignSlide(keep_levels(facts, placed), [folders[i] for i in found.numbers], plane, exact=slide.direct(0))


class _Image:
    """An image of a folder, its first level looked at."""

    def __init__(self, folder: Place) -> None:
        self.folder, self.said = folder, read_multiscales(folder)
        self.arrays = [(dataset, open_array(folder / dataset.path)) for dataset in self.said.datasets]
        for dataset, array in self.arrays:
            if array.ndim != len(self.said.axes):
                raise SlideError(
                    f"its level {dataset.path} has {array.ndim} dimensions, its axes are {', '.join(self.said.axes)}"
                )
        # the specification asks for the finest first, and some write them as they come
        self.arrays.sort(key=lambda found: -math.prod(self._size(found[1])))

    def _size(self, array: Any) -> tuple[int, int]:
        """(width, height) of a level."""
        return array.shape[self.said.axes.index("x")], array.shape[self.said.axes.index("y")]

    def _kind(self, array: Any) -> tuple[Any, ...]:
        """What the levels of an image have in common."""
        others = (n for n, axis in zip(array.shape, self.said.axes, strict=True) if axis not in ("y", "x"))
        return array.dtype, *others

    @property
    def pixels(self) -> int:
        return math.prod(self._size(self.arrays[0][1]))

    @property
    def in_words(self) -> str:
        width, height = self._size(self.arrays[0][1])
        return f"{width} x {height} px"

    def as_slide(self, path: Place, warnings: list[str]) -> ForeignSlide:
        """The image as a slide at a path, which may be the folder that it is in.

        Args:
            path: of the slide.
            warnings: what is to be said of it.
        """
        revision = None if isinstance(path, Url) else revision_of(path)
        first, finest = self.arrays[0]
        plane, size = choose_plane(finest, self.said, warnings), self._size(finest)
        kept: list[tuple[Dataset, Any]] = []
        rasters: list[Raster] = []
        for dataset, array in self.arrays:
            raster = place_level(first, size, dataset, self._size(array))
            if isinstance(raster, Raster) and self._kind(array) != self._kind(finest):
                raster = f"it holds other samples than level {first.path}"
            elif isinstance(raster, Raster) and rasters and raster.scale_x <= rasters[-1].scale_x * (1 + OFF):
                raster = f"it is as fine as level {kept[-1][0].path}"
            if isinstance(raster, str):
                warnings.append(f"level {dataset.path} is left out: {raster}")
                continue
            refuse_absurd(dataset.path, raster, array, plane)
            kept.append((dataset, array))
            rasters.append(raster)
        tiles = [tile_of(array, plane) for _, array in kept]
        folders = [self.folder / dataset.path for dataset, _ in kept]
        files = [files_of(folder, array) for folder, (_, array) in zip(folders, kept, strict=True)]
        for (dataset, array), found in zip(kept, files, strict=True):
            if found.complete:
                warn_of_gaps(dataset.path, array, len(found.sizes), warnings)
        described = self._ome()
        mpp, problem = self._mpp(first, described)
        power = described.objective_power if described else None
        facts = SlideFacts(
            path=path,
            vendor=f"ome-zarr {self.said.version}".strip(),
            levels=tuple(rasters),
            tile_sizes=tuple((min(t[0], r.width), min(t[1], r.height)) for t, r in zip(tiles, rasters, strict=True)),
            mpp=mpp,
            mpp_source="none" if mpp is None and first.scale is None else "file",
            mpp_problem=problem,
            bounds=Box(0, 0, *size),
            background=(255, 255, 255),
            objective_power=power,
            associated=(),
            fingerprint=fingerprint_of(self.said, folders, files),
            file_bytes=sum(found.total for found in files),
            mpp_doubt=None if mpp is None else doubt_mpp(mpp, power=power, description="", tag=None),
            warnings=tuple(warnings),
            revision=revision,
        )
        exact = all(found.complete for found in files)
        return _with_true_levels(ForeignSlide(facts, folders, plane, exact=exact), folders, plane)

    def _ome(self) -> OmeImage | None:
        """What the OME-XML that bioformats2raw wrote beside the image says of it."""
        try:
            number = int(self.folder.name)
            return read_ome(read(self.folder.parent / "OME" / "METADATA.ome.xml").decode())[number]
        except (OSError, ValueError, IndexError):
            return None
        except UnreadableError as exc:
            if exc.passing:
                raise
            return None

    def _mpp(self, first: Dataset, described: OmeImage | None) -> tuple[Mpp | None, str | None]:
        """µm of a pixel of level 0, and why they are not known."""
        if first.scale is None:
            found: tuple[float, float] | str = "the file does not say its resolution"
        else:
            found = pixel_micrometres(self.said.units, first.scale)
        if isinstance(found, str) and described is not None and described.mpp is not None:
            found = described.mpp.y, described.mpp.x
        if isinstance(found, str):
            return None, f"{found}: {MPP_REMEDY}"
        y, x = found
        problem = check_mpp(x, y)
        return (None, problem) if problem else (Mpp(x, y), None)


def fingerprint_of(said: Multiscales, levels: Sequence[Place], files: Sequence[Files]) -> str:
    """SHA-256 over what an image says, the sizes of its files and samples of their content; not over where it lies.

    Args:
        said: its metadata.
        levels: folders of its arrays.
        files: of each level, see `files_of`.
    """
    digest = hashlib.sha256(repr(said).encode())
    for folder, found in zip(levels, files, strict=True):
        digest.update(read(folder / (".zarray" if exists(folder / ".zarray") else "zarr.json")))
        names = sorted(found.sizes)
        digest.update(repr([(name, found.sizes[name]) for name in names]).encode())
        places = sorted({i * (len(names) - 1) // (SAMPLES - 1) for i in range(SAMPLES)} if names else ())
        for start in each(folder, partial(_start, folder), [names[place] for place in places]):
            digest.update(start)
    return digest.hexdigest()


def _start(folder: Place, name: str) -> bytes:
    with reading(folder / name):
        return read_start(folder / name, SAMPLE_BYTES)
