"""What a model is, but for its weights, as plain values: nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.task.build import TASKS
from pipeline.task.task import Task
from stages.encoder.card import EncoderCard, Precision
from stages.encoder.registry import UNNAMED
from stages.geometry import Raster, ResolutionError, choose_level
from stages.mil.sizes import TeacherSizes
from stages.prediction.kinds import Kind
from stages.slide.facts import SlideError, SlideFacts

Unit = Literal["slide", "patient"]
"""What a model predicts: each slide by itself, or a patient from all of its slides."""
SEES = 3
"""Cells that the heads of all cells see around one, at least (`stages.mil.transmil`)."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything but the weights that makes a model what it is; stored in its checkpoint.

    Attributes:
        classes: names of the classes, in the order of the logits, of labels or of grades from the least; else of what
            is told.
        attention_mpp: µm/px of the thumbnail.
        patch_mpp, patch_px: µm/px and side of a patch.
        attention: kind of attention map.
        encoder, dim: patch encoder and feature length.
        scheme, samples: how a slide is drawn at prediction unless the user says otherwise; 0 samples: every cell is
            read.
        control: whether the thumbnail foretells the features, as a control variate.
        inner_mpp: µm/px of the second look, inside regions of the slide; None: attention is of one level.
        region_cells: cells along a region's side.
        region_samples: patches read in an opened region.
        region_margin: whether the second look at a region holds the pixels around it that its outer cells see; models
            of before that were trained with background there.
        snap: whether patches are moved onto the grid of the slide's own tiles; see `stages.patches.PatchReader`.
        coarse_mpp: µm/px at which a frozen encoder sees all tissue, where it makes the attention; None: it does not.
        enlarge: how many times coarse patches are enlarged for the encoder.
        context: sides in cells of the squares that a cell is seen with; odd.
        components, fine_components: directions of coarse and of fine features that are looked at.
        members: models that are fitted, each to a part of the patients, and predict together.
        uniform: share of the draw that goes evenly over the tissue.
        against: what a cell's coarse features are compared with, each for some of the members: its "slide", whose own
            mean and spread are taken out, or the "cohort".
        tune: last blocks of a pretrained encoder that learn with the rest, end to end; 0: all of an untrained one.
        precision: what a frozen encoder computes in.
        block: side in cells of the squares that are drawn, all of whose tissue is read; 1: cells are drawn.
        head: what makes one slide of all its cells, where the model reads every one; None: it draws cells.
        teacher: the sizes of the attention MIL whose own prediction is estimated; None: of no other model's.
        task: what kind of label it predicts: see `stages.prediction.readout`.
        labels: columns of a table that hold it; empty: the one called `label`, of classes that earlier versions learnt.
        times: ends of the intervals of discrete survival.
        unit: what it predicts; of patients attention is one over all of a patient's slides, and so is the draw.
        bags: what made the features, as the bags call it that it learnt from, or "" where they do not say; their length
            is then ``dim``, and the encoder is loaded for a slide's pixels only. None: it learnt from slides.
    """

    classes: tuple[str, ...]
    attention_mpp: float
    patch_mpp: float
    patch_px: int
    attention: str
    encoder: str
    dim: int
    scheme: str
    samples: int
    control: bool = False
    inner_mpp: float | None = None
    region_cells: int = 1
    region_samples: int = 1
    region_margin: bool = True
    snap: bool = False
    coarse_mpp: float | None = None
    enlarge: float = 1.0
    context: tuple[int, ...] = ()
    components: int = 0
    fine_components: int = 0
    members: int = 1
    uniform: float = 0.0
    against: tuple[str, ...] = ("slide",)
    tune: int = 0
    precision: Precision = "float32"
    block: int = 1
    head: str | None = None
    teacher: TeacherSizes | None = None
    task: Kind = "classification"
    labels: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    unit: Unit = "slide"
    bags: str | None = None

    @property
    def apart(self) -> int:
        """Empty rows of cells between a patient's slides, across which no cell sees another's (`Stack`)."""
        return max(SEES, *(side // 2 for side in self.context), 0)

    @property
    def exhaustive(self) -> bool:
        """Whether the model reads every cell of the tissue, so that nothing is left to chance."""
        return self.head is not None

    @property
    def frozen(self) -> bool:
        """Whether its encoder is a pretrained one that does not learn."""
        return self.exhaustive or self.coarse_mpp is not None

    @property
    def features_by(self) -> str | None:
        """What makes the features that it takes, by name: the bags' own word where there is one; None: it learns that
        itself, or nobody has said."""
        made = self.bags or self.encoder
        return made if self.frozen and made != UNNAMED else None

    @property
    def fewest(self) -> int:
        """The fewest patches of which a draw tells an interval."""
        return 2 * self.block**2 if self.inner_mpp is None else 4

    @property
    def cell_px(self) -> int:
        """Thumbnail pixels along a cell's side."""
        return round(self.patch_px * self.patch_mpp / self.attention_mpp)

    @property
    def inner_cell_px(self) -> int:
        """Pixels of the second look along a cell's side; 0 where there is none."""
        return round(self.patch_px * self.patch_mpp / self.inner_mpp) if self.inner_mpp else 0

    @property
    def coarse_px(self) -> int:
        """Pixels at ``coarse_mpp`` along a cell's side; 0 where there are none."""
        return round(self.patch_px * self.patch_mpp / self.coarse_mpp) if self.coarse_mpp else 0


def task_of(spec: ModelSpec) -> Task:
    """What kind of label a model predicts."""
    return TASKS[spec.task](spec.classes, spec.labels, spec.times)


def misfits(spec: ModelSpec, card: EncoderCard) -> list[str]:
    """What sets the patches of a model, of either scale, apart from those that its frozen encoder was trained on, a
    line each."""
    fine = card.misfit(px=spec.patch_px, mpp=spec.patch_mpp)
    if spec.teacher is not None or not spec.coarse_mpp:
        return fine
    enlarged = card.enlarged(spec.coarse_px, spec.enlarge)
    side = enlarged.side(spec.coarse_px)
    coarse = enlarged.misfit(px=side, mpp=spec.coarse_mpp * spec.coarse_px / side)  # enlarged as it was asked to be
    return [*fine, *(f"at the coarse scale: {line}" for line in coarse if line not in fine)]


def refuse_coarser(facts: SlideFacts, spec: ModelSpec) -> None:
    """Go on only with a slide that is as fine as the patches that a model reads.

    Raises:
        SlideError: it is coarser, or its resolution is unknown.
    """
    true = facts.require_mpp()
    try:
        choose_level(facts.levels, Raster(0, 0, spec.patch_mpp / true.x, spec.patch_mpp / true.y, 1, 1))
    except ResolutionError as exc:
        raise SlideError(
            f"its finest level has {true} µm/px, coarser than the {spec.patch_mpp:g} µm/px that the model reads: "
            "use a finer scan or a model for this scale, or give the true resolution with --mpp if the file's is wrong"
        ) from exc
