"""One opened slide through a model: looked at, drawn, read, predicted. Every prediction of ours is made here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.look import Look, look_at
from pipeline.model.quality import Quality
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec, Unit, task_of
from pipeline.model.tiles import TileReader
from pipeline.model.values import Sampled, View
from pipeline.output.table import decision_in_words
from pipeline.refer.label_set import LabelSet
from pipeline.refer.referral import Referral
from pipeline.stopwatch import stage
from pipeline.task.task import WORDS, Task, chance_in_words, number_in_words
from stages.agreement import Agreement
from stages.amounts import as_given
from stages.bags.bag_slide import BagSlide
from stages.geometry import Raster
from stages.heap import give_back
from stages.html import table
from stages.prediction.attribution import Attribution, attribute
from stages.prediction.chance import brief_chance
from stages.prediction.interpolation import cell_looks, interpolate
from stages.prediction.stopping import Decide, Side
from stages.prior import Prior
from stages.slide.protocol import Slide
from stages.slide.render import ReadCount
from stages.tissue.thumbnail import Thumbnail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SlidePrediction:
    """What a model says of one slide after reading a few of its patches; a notebook shows its table.

    Attributes:
        slide: as it was opened.
        spec: what the model is: classes, scales, patches.
        values: what the model tells, by name: of classes their probabilities, which sum to one; of grades and labels
            theirs; of a regression ``value``, in the label's unit; of survival ``risk_score``, the log hazard beside
            that of other patients, and ``survival_<time>``.
        intervals: (low, high) of each value: where it would be, in 95 % of draws, had the same model read every patch;
            of more than two classes, where all of them would be. They are about reading, not about how often the model
            is right.
        thumbnail: of the slide at the attention's resolution.
        attention: (rows, columns), summing to one over the tissue and 0 off it.
        attention_raster: where its cells lie on the slide, in level-0 pixels.
        cells: how many of them are tissue.
        fraction_read: share of the tissue that was read, 0 to 1.
        patch_cells: row-major indices (N,) of the cells whose patches were read.
        patch_boxes_level0: (N, 4) x, y, width, height of these patches in level-0 pixels.
        patch_tissue: (N,), how much of each of these patches is tissue, 0 to 1; the rest is glass, pen or not scanned.
        patch_weights: (N,), such that ``sum_n weight_n attention_n features_n`` is the slide's embedding.
        patch_features: (N, D).
        attribution: what each of these patches says for and against each class, in log-odds, and what the model knows
            of cells that were not read; it adds up to the prediction.
        regions_opened: how many regions a second attention looked into; 0 with one level.
        attention_not_read: share of the attention that lies on cells that were not read, 0 to 1.
        cost: compressed bytes, tiles and pixels of all that was read, the thumbnail included.
        out_of_distribution: how unlike the slides that the model was trained on this one looks, in darkness, colour and
            texture: 0 like the middle of them, 1 the limit that about one in a hundred of theirs would pass, 100 the
            highest; None: the model does not know. It is no measure of how wrong the prediction is.
        warnings: what makes the prediction doubtful, a line each.
        quality: how good the model was found to be on patients that it had not seen, and whether it has learned; None:
            not known.
        decision: on which side of a threshold a class lies; None: it was not to be decided.
        label_set: the classes that may be the label at a stated error, and whether one is called or the slide is
            referred; None: nobody asked.
        patient_cells: of one of several slides of a patient that were predicted together, how many cells they have,
            over which the patient's attention sums to one; None: the slide was predicted by itself.

    Examples:
        >>> import saccade
        >>> prediction = saccade.predict("slides/even.tif", "model.safetensors")
        >>> low, high = prediction.intervals[prediction.predicted]
        >>> low <= prediction.probabilities[prediction.predicted] <= high
        True
        >>> prediction.patches_read, prediction.attention.shape, prediction.patch_boxes_level0.shape
        (16, (24, 32), (16, 4))
    """

    slide: Slide
    spec: ModelSpec
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    thumbnail: Thumbnail
    attention: NDArray[np.floating]
    attention_raster: Raster
    cells: int
    fraction_read: float
    patch_cells: NDArray[np.int64]
    patch_boxes_level0: NDArray[np.float64]
    patch_tissue: NDArray[np.float64]
    patch_weights: NDArray[np.float64]
    patch_features: NDArray[np.float32]
    attribution: Attribution
    regions_opened: int
    attention_not_read: float
    cost: ReadCount
    out_of_distribution: float | None
    warnings: tuple[str, ...]
    quality: Quality | None = None
    decision: Decision | None = None
    label_set: LabelSet | None = None
    patient_cells: int | None = None

    @property
    def task(self) -> Task:
        """What kind of label is predicted."""
        return task_of(self.spec)

    @property
    def probabilities(self) -> dict[str, float]:
        """`values` of classes, grades or labels.

        Raises:
            AttributeError: the model tells none.
        """
        if not self.task.chances:
            raise AttributeError(f"the model predicts {WORDS[self.spec.task]}, no probabilities: see values")
        return self.values

    @property
    def predicted(self) -> str | float:
        """The most probable class, of equals the first; of other tasks the grade, the labels, the number, the risk."""
        return self.task.predicted(list(self.values.values()))

    @property
    def patches_read(self) -> int:
        """How many patches were read."""
        return len(self.patch_cells)

    @property
    def bytes_read(self) -> int:
        """Compressed bytes of all that was read, the thumbnail included."""
        return self.cost.bytes

    @property
    def patch_attention(self) -> NDArray[np.floating]:
        """(N,), each read patch's attention."""
        return self.attention.ravel()[self.patch_cells]

    def __repr__(self) -> str:
        named = self.in_words(repr(self.slide.facts.path.name))
        return f"<{type(self).__name__} {named}{self._called()}; {self.reading}>"

    def _repr_html_(self) -> str:
        return self.as_html(self.slide.facts.path.name)

    def as_html(self, name: str) -> str:
        """The prediction as a table for a notebook, of what is called so."""
        task = self.task
        tell = brief_chance if task.chances else number_in_words
        rows = [
            (name, tell(self.values[name]), f"{tell(low)} to {tell(high)}")
            for name, (low, high) in self.intervals.items()
        ]
        jointly = f"interval ({task.confidence})" if task.statements > 1 else "95 % interval"
        header = ("class", "probability", jointly) if task.chances else ("told", "value", jointly)
        return table(rows, header=header, caption=f"{name}{self._called()}: {self.reading}")

    @property
    def reading(self) -> str:
        """How much was read, and what is doubtful, in a phrase."""
        read = f"{self.patches_read} of {self.cells} patches read ({self.fraction_read:.1%} of the tissue's area)"
        return read + self._warned()

    def _called(self) -> str:
        return "" if self.label_set is None else f"; {self.label_set.in_words()}"

    @property
    def warned(self) -> tuple[str, ...]:
        """What makes the prediction doubtful: of the slide, and of the model."""
        of_model = None if self.quality is None else self.quality.warning
        return (*self.warnings, *([of_model] if of_model else []))

    def _warned(self) -> str:
        return "".join(f"; warning: {warning}" for warning in self.warned)

    def in_words(self, name: str, *, of: str | None = None) -> str:
        """What is predicted with its interval, for a slide of this name.

        Args:
            name: of the slide.
            of: a class or label whose probability is to be told instead, where there are such.
        """
        if of is None or of not in self.values or not self.task.chances:
            low, high = zip(*self.intervals.values(), strict=True)
            told = f"{name}: {self.task.in_words(list(self.values.values()), low, high, exact=self.exact)}"
        else:
            ends = self.intervals[of]
            told = f"{name}: {chance_in_words(f'P({of})', self.values[of], *ends, exact=self.exact)}"
            told += f", predicted {self.predicted}"
        return told + decision_in_words(self.columns(), before="; ")

    @property
    def exact(self) -> bool:
        """Whether nothing was left to chance: every cell was read, and the intervals have no width."""
        return self.patches_read == self.cells and all(low == high for low, high in self.intervals.values())

    def columns(self) -> dict[str, Any]:
        """The prediction's cells of predictions.csv by column, as plain numbers and text."""
        return {
            **self.task.row(list(self.values.values()), *zip(*self.intervals.values(), strict=True)),
            "patches_read": self.patches_read,
            "cells": self.cells,
            "fraction_read": self.fraction_read,
            "bytes_read": self.bytes_read,
            "out_of_distribution": self.out_of_distribution,
            **({} if self.decision is None else self.decision.columns()),
            **({} if self.label_set is None else self.label_set.columns()),
        }

    def to_dict(self) -> dict[str, Any]:
        """A flat row of plain values, named as in predictions.csv; for a table or JSON.

        Examples:
            >>> import saccade
            >>> list(saccade.predict("slides/even.tif", "model.safetensors").to_dict())[:3]
            ['path', 'predicted', 'prob_normal']
        """
        return {"path": str(self.slide.facts.path), **self.columns()}

    def plot(self, ax: Axes | None = None) -> Figure:
        """The overlay: thumbnail, attention as colour, the patches that were read as outlines.

        Args:
            ax: draw into these axes, whose data coordinates become level-0 pixels, without title, scale bar and legend;
                default: a figure of its own with all of them.

        Returns:
            The figure, which a notebook shows.

        Examples:
            >>> import saccade
            >>> saccade.predict("slides/even.tif", "model.safetensors").plot().savefig("overlay.png")
        """
        from stages.overlay.figure import draw_attention, overlay_figure  # matplotlib takes half a second

        parts = (self.thumbnail, self.attention, self.attention_raster, self.patch_boxes_level0)
        mpp = self.slide.facts.require_mpp()
        if ax is not None:
            draw_attention(ax, *parts, mpp_level0=mpp, cells=self.patient_cells)
            figure = ax.get_figure(root=True)
            assert figure is not None, "the axes were removed from their figure"
            return figure
        title = self.in_words(self.slide.facts.path.name)
        alone = isinstance(self.slide, BagSlide)
        how: dict[str, Any] = {"title": title, "warned": self.warned, "mpp_level0": mpp, "alone": alone}
        return overlay_figure(*parts, cells=self.patient_cells, **how)


@dataclass(frozen=True, slots=True)
class Decision:
    """On which side of a threshold something lies that the model would tell after reading every patch.

    Attributes:
        positive: what: the class or label whose probability it is, the grade to be reached, or the number.
        side: "above" (or at it), "below", or "undecided" where reading ended before it was settled.
        at: the threshold.
        risk: how often it may have been decided for the wrong side.
    """

    positive: str
    side: Side
    at: float
    risk: float

    def columns(self) -> dict[str, Any]:
        """Its cells of predictions.csv."""
        side = self.side if self.side == "undecided" else f"{self.positive} {self.side}"
        return {"decision": side, "decided_at": self.at, "risk": self.risk}


def predict_slide(
    slide: Slide,
    model: SlideModel,
    *,
    samples: int | None = None,
    tolerance: float | None = None,
    decide: Decide | None = None,
    scheme: str | None = None,
    seed: int = 0,
    prior: Prior | None = None,
    refer: Referral | None = None,
) -> SlidePrediction:
    """Predict an opened slide; equal slides, models and arguments give equal results.

    Args:
        slide: whatever its format.
        model: in evaluation mode.
        samples, tolerance, decide, scheme: see `SlideModel.sample`; None means the model's own.
        seed: of the draws, together with the slide's content.
        prior: what half of the draw goes by: see `look_at`.
        refer: how sets of classes are made, with the same settings; None: none are.

    Raises:
        SlideError, NoTissueError, MapError: see `look_at`.
        ValueError: fewer samples than tell an interval, or more than the scheme tells one for.
    """
    every, model = model, model.unseen(slide.facts.fingerprint)
    with stage("look"):
        seen = look_at(slide, model, prior=prior)
    generator = seen.generator(seed, model.drawing_device)
    how: dict[str, Any] = {"samples": samples, "scheme": scheme, "tolerance": tolerance, "decide": decide}
    agreement = Agreement(seen.thumbnail)
    view = watched(seen, agreement)
    with stage("read and encode"):
        sampled = model.sample(view, generator=generator, **how)
    with stage("attribute"):
        attribution = attributed(sampled, view, model)
    give_back(seen.thumbnail.rgb)  # what encoding patches took
    likeness = seen.likeness(model)
    doubt = None if refer is None else refer.doubt(seen.appearance)
    found = prediction_of(
        seen,
        sampled,
        attribution,
        model,
        decision=decision_made(sampled, decide, model.spec),
        score=likeness.score,
        warnings=(
            *seen.warnings,
            *agreement.warnings,
            *doubts_of(sampled, tolerance, likeness.warning, doubt, fewer=model is not every),
        ),
    )
    if refer is None:
        return found
    return replace(found, label_set=refer.of(found.values, fingerprint=slide.facts.fingerprint, doubt=doubt))


def prediction_of(
    seen: Look,
    sampled: Sampled,
    attribution: Attribution,
    model: SlideModel,
    *,
    decision: Decision | None,
    score: float | None,
    warnings: tuple[str, ...],
) -> SlidePrediction:
    """What was found on a slide, by the names that are told.

    Args:
        seen: its look.
        sampled: what was drawn and read of it.
        attribution: of that.
        model: that predicted.
        decision, score, warnings: ``decision``, ``out_of_distribution`` and ``warnings`` of the prediction.
    """
    found, cells = sampled.prediction, sampled.cells
    boxes = seen.reader.boxes_level0(cells)
    values = dict(zip(task_of(model.spec).values, found.values.tolist(), strict=True))
    ends = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return SlidePrediction(
        slide=seen.slide,
        spec=model.spec,
        values=values,
        intervals=dict(zip(values, ends, strict=True)),
        thumbnail=seen.thumbnail,
        attention=sampled.log_attention.exp().reshape(seen.cells.shape).cpu().numpy(),
        attention_raster=seen.cells,
        cells=int(seen.tissue.sum()),
        fraction_read=float(seen.share.ravel()[cells].sum()),
        patch_cells=cells,
        patch_boxes_level0=boxes,
        patch_tissue=seen.tissue_in(boxes),
        patch_weights=sampled.weights,
        patch_features=sampled.features,
        attribution=attribution,
        regions_opened=len(sampled.opened),
        attention_not_read=sampled.missed,
        cost=seen.count(cells, sampled.opened),
        out_of_distribution=score,
        warnings=warnings,
        quality=model.quality,
        decision=decision,
    )


def decision_made(sampled: Sampled, decide: Decide | None, spec: ModelSpec) -> Decision | None:
    """On which side it lies what was to be decided; None where nothing was."""
    if decide is None or sampled.side is None:
        return None
    return Decision([*task_of(spec).decided.values()][decide.positive], sampled.side, decide.at, decide.risk)


def doubts_of(
    sampled: Sampled, tolerance: float | None, *doubts: str | None, fewer: bool, unit: Unit = "slide"
) -> list[str]:
    """What is doubtful about a prediction of a slide or a patient: these, where there are such; that ``fewer`` models
    than there are made it; and that a tolerance was not reached."""
    found = [doubt for doubt in doubts if doubt is not None]
    if fewer:
        found.append(f"models of the ensemble that were made with this {unit} do not predict it")
    if tolerance is not None and sampled.prediction.reach > tolerance:
        found.append(
            f"the tolerance of {as_given(tolerance)} was not reached: after {len(sampled.cells)} patches an interval "
            f"reaches {sampled.prediction.reach:.2g} from its value"
        )
    return found


def watched(seen: Look, agreement: Agreement) -> View:
    """The model's part of a look, each of whose patches is compared when it is read."""
    if isinstance(seen.reader, TileReader):
        return seen.view
    coarse = None if seen.surveyor is None else agreement.watched(seen.surveyor)
    return replace(seen.view, patches=agreement.watched(seen.reader), coarse=coarse)


def attributed(sampled: Sampled, view: View, model: SlideModel) -> Attribution:
    """What the parts of a prediction say; where a model knows nothing of unread cells, by cells that look like them."""
    tissue, found, stack = view.tissue, sampled.prediction, view.stack
    interpolated = None
    if sampled.foretold is None and len(sampled.cells):
        attention = sampled.log_attention.exp().cpu().numpy()
        own = sampled.own.cpu().numpy() / np.maximum(attention[sampled.cells], 1e-300)[:, None]
        unread = np.setdiff1d(np.flatnonzero(tissue), sampled.cells)
        with stage("thumbnail"):
            each = [
                torch.from_numpy(cell_looks(one.rgb, shape, model.spec.cell_px)).unflatten(0, shape)
                for one, shape in zip(view.each, stack.shapes, strict=True)
            ]
        looks = stack.joined(each).flatten(0, 1).numpy()
        interpolated = np.zeros((tissue.size, own.shape[1]))
        interpolated[unread] = attention[unread, None] * interpolate(looks, sampled.cells, own, unread)
    return attribute(
        found.logits,
        found.half_widths,
        read=sampled.cells,
        adds=sampled.adds,
        own=sampled.own,
        spread=sampled.spread,
        foretold=sampled.foretold,
        tissue=tissue.ravel(),
        interpolated=interpolated,
        readout=model.readout,
    )
