"""All that a run has of one slide, as plain values: what every export is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.output.attention_map import read_attention_zarr, read_evidence_zarr
from pipeline.output.bags import read_patches
from pipeline.output.slide_folder import read_commit
from pipeline.report.figures import number
from pipeline.task.task import Task
from pipeline.view.pixels import find_slide, open_slide_of
from pipeline.view.run_folder import AGAIN, RunFolder, SlideRow, inner
from pipeline.view.samples import Samples, origin_of, read_samples
from stages.geometry import Mpp, Raster
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide

_DAMAGED = (OSError, KeyError, ValueError, TypeError, UsageError)


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What a run found of a slide. All places are level-0 pixels of the whole slide, as OpenSlide counts them.

    Attributes:
        slide: its row of the run's table: name, prediction, label.
        task: what is predicted.
        commit: what its prediction.json says.
        path: where its file lies by now; None where it is not found. It may be another slide by now: see `open`.
        size: (width, height) of level 0.
        mpp: µm per level-0 pixel.
        origin: level-0 point that QuPath counts from, see `SlideFacts`.
        attention: (rows, cols) float32; 0 off the tissue.
        raster: of the cells of the maps.
        cells: K, how many cells attention sums to one over: of a model of patients, those of all their slides.
        classes: C names of what evidence and contributions speak for; none where an earlier version told of none.
        unit: that they are in.
        column: of the class that the run's own pictures show, 0 to C - 1.
        evidence: (C, rows, cols) float32, what each cell adds for each class; None where there is none.
        told: (rows, cols) uint8, what evidence is told from: see `write_evidence_zarr`; None where there is none.
        samples: the patches that were read, in the order of drawing.
        features: (N, D) float32, of each patch.
        patch_cells: (N,), row-major index of each patch's cell.
        patch_attributes: what samples.h5 says of ``coords``: sizes, scales and frame, by the names of CLAM and TRIDENT.
        encoder: what made the features; None where nobody knows.
        folders: where slides lie by now that were moved.
    """

    slide: SlideRow
    task: Task
    commit: Mapping[str, Any]
    path: Path | None
    size: tuple[int, int]
    mpp: Mpp
    origin: tuple[int, int]
    attention: NDArray[np.float32]
    raster: Raster
    cells: int
    classes: Sequence[str]
    unit: str
    column: int
    evidence: NDArray[np.float32] | None
    told: NDArray[np.uint8] | None
    samples: Samples
    features: NDArray[np.float32]
    patch_cells: NDArray[np.int64]
    patch_attributes: Mapping[str, Any]
    encoder: str | None
    folders: Sequence[Path]

    @property
    def slide_id(self) -> str:
        """Its name."""
        return self.slide.name

    @property
    def told_classes(self) -> Sequence[int]:
        """Which of ``classes`` are worth telling: of two that mirror each other, the second."""
        mirrored = self.task.kind == "classification" and len(self.classes) == 2
        return [1] if mirrored else range(len(self.classes))

    @property
    def label_number(self) -> int | float | None:
        """The label as the number of its class or grade, or as the value; None where it has none, or is several."""
        label = self.slide.label
        if label is None:
            return None
        if self.task.kind in ("classification", "ordinal"):
            return self.task.names.index(label) if label in self.task.names else None
        return number(label) if self.task.kind == "regression" else None

    def open(self) -> Slide:
        """The slide itself.

        Raises:
            SlideError: it is not there, is another by now, or cannot be read.
        """
        return open_slide_of(self.slide, self.folders)


def read_result(run: RunFolder, slide: SlideRow, folders: Sequence[Path] = ()) -> SlideResult:
    """What a run found of a slide that has results, whichever version wrote them.

    Args:
        run: that it is of.
        slide: which.
        folders: where slides lie by now that were moved.

    Raises:
        UsageError: its results are not finished, or are damaged.
    """
    assert slide.folder is not None, "a slide without results has nothing to export"
    folder = slide.folder
    commit = read_commit(folder)
    if commit is None:
        raise UsageError(f"the result of {slide.name} is not finished, or its prediction.json is damaged: {AGAIN}")
    try:
        name = "attention.zarr"
        attention, raster = read_attention_zarr(folder / name)
        name = "samples.h5"
        samples = read_samples(folder / name)
        features, cells, attributes, encoder = read_patches(folder / name)
        evidence, told = None, None
        name = "evidence.zarr"
        if (folder / name).exists() or samples.names:  # earlier versions told of none
            evidence, told, _ = read_evidence_zarr(folder / name)
    except _DAMAGED as exc:
        raise UsageError(f"{name} of {slide.name} is missing or damaged: {AGAIN}") from exc
    pictures = inner(commit, "pictures")
    try:
        path = find_slide(slide, commit, folders)
    except SlideError:
        path = None
    return SlideResult(
        slide=slide,
        task=run.task,
        commit=commit,
        path=path,
        size=samples.size,
        mpp=samples.mpp,
        origin=origin_of(folder, commit, samples.bounds),
        attention=attention,
        raster=raster,
        cells=int(pictures.get("of_cells") or np.count_nonzero(attention)),
        classes=samples.names,
        unit=samples.unit,
        column=min(int(pictures.get("column", 0)), max(len(samples.names) - 1, 0)),
        evidence=evidence,
        told=told,
        samples=samples,
        features=features,
        patch_cells=cells,
        patch_attributes=attributes,
        encoder=encoder,
        folders=tuple(folders),
    )
