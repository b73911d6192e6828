"""Where to look on a slide, as somebody else says it: maps in files, or a network over the slide's thumbnail."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.encoder.exported import OnnxNetwork, normalisation, program_digest, said_beside
from stages.geometry import Raster, ResolutionError, choose_level, physical_raster
from stages.given import MAPS, Ground, read_given
from stages.given_map import MapError, find_map, in_cells
from stages.slide.protocol import Slide
from stages.slide.render import render_many

PX = 512
"""Side in pixels of the tiles that a network of no size of its own is given."""
AROUND = 1 / 8
"""Of a tile's side: what a network sees around the part of a tile that it is asked about."""
TILES = 8
"""That are read together."""
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True, slots=True)
class Prior:
    """What says where to look, beside a model's own attention.

    Attributes:
        place: a map's file, a folder of one for each slide, or an ``.onnx`` network that makes them, of several outputs
            with ``#OUTPUT``.
        mpp: µm/px of the thumbnail that a network is given; None: what the file beside it says, else the attention's.
        channel: which of a network's channels says where to look, from 0; None: its only one.
        measurement: which of QuPath's objects does; "": their only one.
    """

    place: Path
    mpp: float | None = None
    channel: int | None = None
    measurement: str = ""

    @property
    def is_network(self) -> bool:
        """Whether it is made by a network."""
        return self._program.suffix.lower() == ".onnx"

    def check(self) -> None:
        """Refuse what will not do for any slide.

        Raises:
            MapError, WeightsError: there is neither a folder nor a network, or the network makes no map.
            ImportError: onnxruntime is missing or broken.
        """
        if self.is_network:
            self._network()
        elif self.mpp is not None or self.channel is not None:
            raise MapError(f"a resolution and a channel are for an .onnx network, and {self.place} is none: leave them")
        elif not self.place.is_dir() and not (self.place.is_file() and self.place.suffix in MAPS):
            raise MapError(f"no folder {self.place}; give the folder of the maps, one a slide, or an .onnx network")

    def of(self, slide_id: str) -> Prior:
        """What says it for one slide; see `find_map`."""
        return replace(self, place=find_map(self.place, slide_id, MAPS)) if self.place.is_dir() else self

    def digest(self) -> str:
        """SHA-256 of what it depends on beside the slide: a map's file; or the network, its scale and channel."""
        if not self.is_network:
            digest = hashlib.sha256(self.place.read_bytes())
            digest.update(self.measurement.encode("utf-8", "surrogateescape"))
            return digest.hexdigest()
        said = sorted(said_beside(self._program).items())
        parts = (program_digest(self._program), _output(self.place), said, self.mpp, self.channel)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def on(self, slide: Slide, *, cells: Raster, tissue: NDArray[np.bool_], attention_mpp: float) -> PriorMap:
        """Each cell's share of it.

        Args:
            slide: opened.
            cells: their raster, in level-0 pixels.
            tissue: which of them may be drawn, (rows, columns).
            attention_mpp: µm/px that a network is given where nothing else is said.

        Raises:
            MapError: it cannot be read or made, is not this slide's, or is 0 on all of its tissue.
            SlideError: the slide cannot be read.
        """
        if self.is_network:
            network = self._network()
            mpp = self.mpp or network.mpp or attention_mpp
            shares, read = network.over(slide, mpp=mpp, cells=cells, tissue=tissue)
            found = PriorMap(shares, tuple(read), mpp, network.notes)
            told = f"{network.name} has no positive value on any of the slide's tissue: it does not say where to look; "
            told += f"name another channel of its {network.channels}" if network.channels > 1 else "give another"
        else:
            given = read_given(self.place, Ground.of(slide.facts), measurement=self.measurement)
            found = PriorMap(given.on(cells) * tissue)
            told = f"the map {self.place} is 0 on all of the slide's tissue: it does not say where to look"
        if not found.shares.sum() > 0:
            raise MapError(told)
        return replace(found, shares=found.shares / found.shares.sum())

    @property
    def _program(self) -> Path:
        output = _output(self.place)
        return Path(str(self.place).removesuffix(f"#{output}")) if output else self.place

    def _network(self) -> MapNetwork:
        if not self._program.is_file():
            raise MapError(f"no network {self._program}; correct the path")
        # by the time of its files, so that another one in its place is not taken for it
        beside = (self._program, self._program.with_name(f"{self._program.name}.json"))
        written = tuple(path.stat().st_mtime_ns for path in beside if path.is_file())
        return _opened(self._program, _output(self.place), self.channel, written)


@dataclass(frozen=True, slots=True)
class PriorMap:
    """Where to look on one slide.

    Attributes:
        shares: of each cell, (rows, columns), 0 off the tissue.
        read: the parts of the slide that were read for it, of one scale.
        mpp: theirs, in µm/px.
        notes: what was assumed, a line each.
    """

    shares: NDArray[np.float64]
    read: tuple[Raster, ...] = ()
    mpp: float | None = None
    notes: tuple[str, ...] = ()


class MapNetwork:
    """A segmentation network, as ONNX, one of whose channels says where to look.

    It takes pictures (N, 3, S, S) or (N, S, S, 3) and puts out (N, K, h, h) or (N, h, h, K), where ``h`` divides ``S``:
    an output pixel stands for ``S / h`` pixels of the picture. Values below 0 count as 0. How pictures are normalised
    is said as for encoders, see `stages.encoder.exported`.

    Raises:
        WeightsError: it cannot be run, or takes no such pictures.
        MapError: it puts out no such map, or has not this channel.
        ImportError: onnxruntime is missing or broken.
    """

    def __init__(self, path: Path, output: str = "", channel: int | None = None) -> None:
        said = said_beside(path)
        self.name = path.name
        self.mpp: float | None = float(np.ravel(said["mpp"])[0]) if said.get("mpp") else None
        self.body = OnnxNetwork(path, output or str(said.get("output") or ""))
        mean, std, self.notes = normalisation(path, self.body, said)
        # as `Backbone` does, so that pixels of whole numbers stay these where they are not normalised
        self._mean, self._std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) * 255 for v in (mean, std))
        step = int(said.get("step") or 1)
        self.px = int(self.body.px or said.get("px") or max(1, PX // step) * step)
        (kind,) = (value.type for value in self.body.session.get_outputs() if value.name == self.body.output)
        if kind not in FLOATS:
            raise MapError(f"{self.name} puts out {kind}: export its scores, as float, not the number of a class")
        found = self.body(torch.zeros(1, 3, self.px, self.px))
        self._last = _channels_last(found.shape, self.px, self.body.channels_last)
        if self._last is None:
            raise MapError(
                f"{self.name} puts out {tuple(found.shape)} for one picture of {self.px} x {self.px} px; expected a "
                "map, (1, K, h, h) or (1, h, h, K), whose side divides the picture's: export the layer that has it"
            )
        self.channels = found.shape[3 if self._last else 1]
        self.stride = self.px // found.shape[2]
        if channel is None and self.channels > 1:
            raise MapError(
                f"{self.name} puts out {self.channels} channels: say which one shows where to look, 0 to "
                f"{self.channels - 1}, by --prior-channel or attention.prior_channel"
            )
        if channel is not None and channel >= self.channels:
            raise MapError(f"{self.name} has no channel {channel}: it puts out {self.channels}, counted from 0")
        self.channel = channel or 0
        around = math.ceil(AROUND * self.px / self.stride) * self.stride
        self.around = around if 2 * around < self.px else 0

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Pictures (N, S, S, 3) of RGB -> maps (N, h, h), none negative."""
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        found = self.body((pixels - self._mean) / self._std).numpy()
        values = found[..., self.channel] if self._last else found[:, self.channel]
        if not np.isfinite(values).all():
            raise MapError(f"{self.name} gives values that are no finite numbers on this slide: give another network")
        shares: NDArray[np.float64] = values.astype(np.float64).clip(min=0)
        return shares

    def over(
        self, slide: Slide, *, mpp: float, cells: Raster, tissue: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], list[Raster]]:
        """How much of a slide's map at ``mpp`` µm/px lies in each cell of tissue, (rows, columns), and what was read.

        The thumbnail is read and seen in tiles, with some of what is around them; those without tissue are left out.
        """
        whole = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), mpp)
        try:
            choose_level(slide.facts.levels, whole)
        except ResolutionError as exc:
            raise MapError(
                f"{self.name} is to see {mpp:g} µm/px, finer than the slide's {slide.facts.require_mpp()} "
                "µm/px: say a coarser one, by --prior-mpp or attention.prior_mpp"
            ) from exc
        total, read = np.zeros(cells.shape), []
        wanted = list(self._cores(whole, cells, tissue))
        for first in range(0, len(wanted), TILES):
            cores = wanted[first : first + TILES]
            tiles = [core.part(-self.around, -self.around, self.px, self.px) for core in cores]
            read += tiles
            inside = self.around // self.stride
            for core, values in zip(cores, self(render_many(slide, tiles)), strict=True):
                rows, columns = (math.ceil(side / self.stride) for side in core.shape)
                pixels = core.pooled(self.stride, self.stride / 2, columns, rows)
                total += in_cells(values[inside : inside + rows, inside : inside + columns], pixels, cells)
        return total * tissue, read

    def _cores(self, whole: Raster, cells: Raster, tissue: NDArray[np.bool_]) -> Iterator[Raster]:
        """The parts of a thumbnail that a tile each is for, where there is tissue."""
        side = self.px - 2 * self.around
        for top, left in product(range(0, whole.height, side), range(0, whole.width, side)):
            core = whole.part(left, top, min(side, whole.width - left), min(side, whole.height - top))
            one = Raster(core.x, core.y, core.scale_x * core.width, core.scale_y * core.height, 1, 1)
            if (in_cells(np.ones((1, 1)), one, cells) * tissue).any():
                yield core


@lru_cache(maxsize=1)
def _opened(path: Path, output: str, channel: int | None, written: tuple[int, ...]) -> MapNetwork:
    return MapNetwork(path, output, channel)


def _output(place: Path) -> str:
    """The output that ``PATH.onnx#OUTPUT`` names, which may look like a path of its own."""
    return "" if place.suffix.lower() == ".onnx" else str(place).rpartition("#")[2] if ".onnx#" in str(place) else ""


def _channels_last(shape: torch.Size, px: int, expected: bool) -> bool | None:
    """Whether an output has its channels last; None where it is no map of pictures of this side."""
    for last in (expected, not expected):
        sides = shape[1:3] if last else shape[2:]
        if len(shape) == 4 and sides[0] == sides[1] > 1 and px % sides[0] == 0:
            return last
    return None
