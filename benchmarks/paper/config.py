"""What a benchmark of the paper's tasks reads: the networks, how they are trained, and the rows of its table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.paper.mnist import Noise, Split


class Section(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sight(Section):
    """How the product's model sees an image."""

    low_px: int = Field(description="Pixels along the longer side of the low view, the model's thumbnail.")
    cell_px: int = Field(description="Pixels of the low view along a cell's side.")
    patch_px: int = Field(description="Pixels of the image along the side of a patch, about the cell's centre.")
    encoder: Literal["small", "convolutions"] = Field(
        default="small", description="The product's own, or the convolutions of the rows that read everything."
    )


class Frozen(Section):
    """How the product's model on a frozen encoder sees an image."""

    encoder: str = "lite0"
    cells: int = Field(description="Along the side of an image.")
    patch_px: int = Field(description="Pixels of the image along the side of a patch, about the cell's centre; even.")
    shown_px: int = Field(
        description="To which they are enlarged for the encoder, as are those at half the resolution."
    )
    context: tuple[int, ...] = (1, 3, 5)
    components: int = 128
    fine_components: int = 32
    members: int = 16
    uniform: float = 0.25
    standardise: bool = True


class Networks(Section):
    """The networks of the rows that read everything."""

    channels: int = Field(default=3, description="Of an image: 3 for colour, 1 for grey.")
    classes: int = Field(default=2, ge=2)
    widths: tuple[int, int, int] = Field(description="Channels of the convolutions.")
    pool: Literal["mean", "max"] = Field(default="mean", description="Over a patch; the full CNN always takes means.")
    patch_px: int = Field(description="Pixels along the side of MIL's patches.")
    grid_stride: int = Field(description="Pixels between them.")


class Training(Section):
    """How a model is trained; ``warm_up`` and ``attention_rate`` are the product's, ``average`` is that of the rest."""

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    attention_rate: float = 1.0
    weight_decay: float = 1e-2
    entropy_weight: float = 1e-2
    gradient_clip: float = 1.0
    warm_up: int = 0
    average: float = 0.0


class Row(Section):
    """One model of the table."""

    title: str
    kind: Literal["cnn", "half", "mil", "ats", "forest", "frozen"]
    samples: int | None = Field(default=None, description="Patches that are drawn from an image; all by default.")
    scheme: str = Field(default="systematic", description="How they are drawn.")
    attention: Literal["learned", "uniform"] = Field(default="learned", description="That they are drawn from.")
    share: float = Field(default=1.0, description="Of the grid's patches that MIL sees, at random.")
    folds: Literal["random", "blocks"] = Field(default="random", description="Blocks: neighbouring images together.")
    repeats: int = Field(default=1, description="Seeds that are wanted.")
    draws: int = Field(default=1, description="Whose logits are averaged at prediction.")
    augmented: bool = Field(default=False, description="Each of these draws sees the image augmented anew.")
    self_supervised: int = Field(
        default=0, description="Steps in which the encoder first learns to tell patches apart."
    )
    frozen: Frozen | None = Field(default=None, description="What frozen rows see.")
    exact: bool = Field(default=False, description="Of frozen rows: no patch is drawn, the coarse scale says it all.")
    training: dict[str, Any] = Field(default={}, description="What differs from the common training.")


class Task(Section):
    """A task's configuration."""

    revision: int = Field(default=1, description="Raise it when the code changes what is computed: records then lapse.")
    sight: Sight
    networks: Networks
    training: Training
    rows: dict[str, Row]

    def training_of(self, row: Row) -> Training:
        """How a row is trained: as all of them, but for what it says itself."""
        return Training.model_validate(self.training.model_dump() | row.training)

    def digest(self, name: str, **more: Any) -> str:
        """Of everything in this file that a row's result depends on, and of ``more``."""
        row = self.rows[name]
        idle = {"rows", "training", "images"} | {
            "forest": {"networks", "sight", "stain_jitter"},
            "frozen": {"networks", "sight", "stain_jitter"},
            "ats": {"networks"} if self.sight.encoder == "small" else set(),
        }.get(row.kind, {"sight"})
        # without defaults: a new option leaves the digests of rows that do not use it
        relevant = self.model_dump(mode="json", exclude=idle, exclude_defaults=True) | more
        relevant["row"] = row.model_dump(mode="json", exclude={"title", "training", "repeats"}, exclude_defaults=True)
        if row.kind != "forest":
            relevant["training"] = self.training_of(row).model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


class ColonTask(Task):
    """The colon-cancer images, in folds."""

    fold_seed: int = 0
    folds: int = 10
    stain_jitter: float = Field(default=0.0, description="Standard deviation of the log strength of each stain.")


class MegapixelTask(Task):
    """A setting of megapixel MNIST."""

    side: int = Field(description="Pixels along an image's side.")
    noise: Noise = Field(description="Strokes over the digits or under them.")
    strokes: int
    images: dict[Split, int] = Field(description="Images of each split.")
    seed: int = Field(default=0, description="Of the images.")

    def digest_on(self, name: str, split: Split) -> str:
        """Of everything that a row's result on a split depends on."""
        return self.digest(name, images=(self.images["train"], split, self.images[split]))


AnyTask = TypeVar("AnyTask", bound=Task)


def read_task(path: Path, kind: type[AnyTask]) -> AnyTask:
    """Read a configuration; unknown keys and bad values are errors that name them."""
    return kind.model_validate(yaml.safe_load(path.read_text()))
