"""One slide of a bench: read whole once, drawn in every way again and again, and what reading it costs."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.bench.meter import Meter, Spent
from pipeline.bench.ways import Way, read_by
from pipeline.bench.whole import ReadWhole, read_whole
from pipeline.cohort.cohort import CohortSlide
from pipeline.model.look import Look, look
from pipeline.model.slide_model import SlideModel
from pipeline.output.documents import read_json, write_json

BENCH_VERSION = 2
"""Raised when a change here changes results, so that earlier ones count as stale."""
COUNTED = 3
"""Draws whose bytes are counted, of every way and setting: their mean is told."""
METERED = 64
"""Patches that are read and encoded to measure what one costs."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What is compared on every slide.

    Attributes:
        ways: how it is read.
        draws: of each way and setting that leaves something to chance.
        seed: of the draws.
        digest: of the model's checkpoint.
        weights: of its frozen encoder, where they are not those that its name stands for.
    """

    ways: Sequence[Way]
    draws: int
    seed: int
    digest: str
    weights: Path | None = None

    def key(self, content: str) -> str:
        """What a slide's record depends on."""
        told = {
            "version": BENCH_VERSION,
            "model": self.digest,
            "weights": self.weights and str(self.weights),
            "slide": content,
            "ways": [[way.name, way.setting] for way in self.ways],
            "draws": self.draws,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def bench_slide(
    slide: CohortSlide,
    found: Look,
    model: SlideModel,
    settings: BenchSettings,
    record: Path,
    *,
    meter: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What every way predicts of one slide; from its record where that is there and still holds.

    Args:
        slide: which it is.
        found: its look.
        model: in evaluation.
        settings: what is compared.
        record: the file that keeps what was found.
        meter: whether to measure what its reading costs, by doing it afresh.
        say: told how far it is.

    Returns:
        ``cells`` of its tissue, ``fixed_bytes`` of what every way reads, and of each of ``ways`` its ``name``,
        ``setting``, mean ``patches`` and ``bytes``, the share left ``undecided`` and the ``values`` of each draw
        (draws, T); where it was measured, ``spent``: on the ``survey`` (all but patches) and on each ``patch``.

    Raises:
        SlideError: it cannot be read whole.
    """
    key = settings.key(found.slide.facts.content)
    earlier = read_json(record)
    if earlier is None or earlier.get("key") != key:
        known = read_whole(model, found.view, say=say)
        earlier = {"key": key, "slide_id": slide.slide_id, **_told(known, found, settings)}
        write_json(record, earlier)
    if meter and "spent" not in earlier:
        earlier = {**earlier, "spent": {part: asdict(one) for part, one in _spent(slide, model, settings).items()}}
        write_json(record, earlier)
    return earlier


def _told(known: ReadWhole, found: Look, settings: BenchSettings) -> dict[str, Any]:
    view = found.view
    opened: dict[int, Tensor] = {}
    rows: list[dict[str, Any]] = []
    nothing = np.zeros(0, np.int64)
    for way in settings.ways:
        # a way's draws depend on nothing but its own name and setting
        seed = settings.seed + zlib.crc32(f"{way.name} {way.setting}".encode())
        generator = found.generator(seed, known.drawing_device)
        read = list(read_by(way, known, view, draws=settings.draws, generator=generator, opened=opened))
        rows.append(
            {
                "name": way.name,
                "setting": way.setting,
                "patches": float(np.mean([len(one.cells) for one in read])),
                "bytes": float(np.mean([_bytes(found, one.cells) for one in read[:COUNTED]])),
                "undecided": float(np.mean([one.undecided for one in read])),
                "values": [one.values for one in read],
            }
        )
    fixed = found.count(nothing, nothing).bytes
    return {"cells": int(view.tissue.sum()), "fixed_bytes": fixed, "ways": rows}


def _bytes(found: Look, cells: NDArray[np.int64]) -> int:
    """Compressed bytes of cells' patches and of the second look at their regions."""
    inside = 0
    if found.insider is not None:
        (rows, columns), regions = found.tissue.shape, found.insider.cells.shape
        down, across = np.divmod(cells, columns)
        opened = down // (rows // regions[0]) * regions[1] + across // (columns // regions[1])
        inside = found.insider.count(np.unique(opened)).bytes
    return found.reader.count(cells).bytes + inside


def _spent(slide: CohortSlide, model: SlideModel, settings: BenchSettings) -> dict[str, Spent]:
    """Of really reading and encoding, whatever was kept: all that comes before patches, and each patch."""
    meter = Meter(model.device)
    found = look(slide.path, model, mpp=slide.mpp)
    view = replace(found.view, key=None, coarse_key=None)
    attention = model.attend(view)
    survey = meter.read()
    generator = found.generator(settings.seed, model.drawing_device)
    meter = Meter(model.device)
    (drawn,) = model.draw([view], [attention], samples=METERED, generator=generator)
    cells = np.unique(drawn.cells[0].cpu().numpy())
    model.encode(view, cells)
    return {"survey": survey, "patch": meter.read().each(len(cells))}


def mean_spent(records: Sequence[Mapping[str, Any]], part: str) -> Spent | None:
    """The mean of what was spent on a part of the slides that were measured; None where none was."""
    told = [record["spent"][part] for record in records if "spent" in record]
    if not told:
        return None
    energy = [one["wh"] for one in told]
    return Spent(
        float(np.mean([one["seconds"] for one in told])),
        float(np.mean([one["cpu_seconds"] for one in told])),
        None if None in energy else float(np.mean(energy)),
    )
