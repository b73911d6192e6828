"""The models of a cross-validation as one: each was fitted to other slides, and they predict together from one draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.exhaustive_model import exact
from pipeline.model.header import seen_by_all
from pipeline.model.reading import read_together
from pipeline.model.slide_model import ENCODER_BLOCK, SlideModel
from pipeline.model.values import AttentionMap, PlacedDraw, Sampled, View
from stages.encoder.card import EncoderCard
from stages.prediction.stopping import Decide


class FoldEnsemble(SlideModel):
    """The mean of the logits of K models of one specification, estimated from one draw.

    Model k says ``z_k = known_k + sum_i a_ki say_k(i, f_ki)``. Cells are drawn once for all, from the mean
    ``q = (1 / K) sum_k a_k``, and read once, so that

        ``z = (1 / K) sum_k known_k + sum_i q_i [ (1 / K) sum_k (a_ki / q_i) say_k(i, f_ki) ]``

    is estimated without bias as that of a single model, and the interval, which the draw's contrasts of the sum in
    brackets tell, is of the mean of what all would say after reading everything: averaging log-odds keeps what
    averaging probabilities would not.

    Args:
        members: models of one specification, in evaluation mode; of those that look twice the draws are nested, and
            have no mean.
        known: what else a model knows: see `SlideModel`.

    Raises:
        ValueError: they differ in what they are, or cannot be drawn for together.
    """

    def __init__(self, members: Sequence[SlideModel], **known: Any) -> None:
        first = members[0]
        super().__init__(first.spec, **known)
        # which column held a class, earlier versions did not say
        if len({replace(member.spec, labels=()) for member in members}) > 1:
            raise ValueError("they are not of one configuration")
        if first.spec.inner_mpp is not None or first.spec.teacher is not None:
            raise ValueError("models that look twice (attention.inner_mpp) or are distilled are not averaged")
        self.members = nn.ModuleList(members)
        self.attention, self.inner = first.attention, None
        # of a frozen encoder, all see the same
        self.feature_dim = first.feature_dim * (1 if first.spec.frozen else len(members))
        self.trained_on, self.validated_on = seen_by_all(members)
        self.eval()

    @property
    def card(self) -> EncoderCard | None:
        """Of its members' frozen encoder; None: they have none."""
        return self.each[0].card

    @property
    def several(self) -> bool:
        """It is."""
        return True

    @property
    def each(self) -> list[SlideModel]:
        """The members."""
        return [member for member in self.members if isinstance(member, SlideModel)]

    def unseen(self, *fingerprints: str) -> SlideModel:
        """Those together that were made without any slide of this content; all where none was.

        The calibration of all is none of fewer: a single one has its own, and of several each draw tells for itself.
        """
        left = [one for one in self.each if not (one.trained_on | one.validated_on).intersection(fingerprints)]
        if len(left) in (0, len(self.members)):
            return self
        return left[0] if len(left) == 1 else FoldEnsemble(left, appearance=self.appearance, quality=self.quality)

    def attend(
        self, view: View, *, generator: torch.Generator | None = None, noise: float = 0.0, dropout: float = 0.0
    ) -> AttentionMap:
        """Where to draw for all, and what patches say to their mean."""
        maps = [member.attend(view) for member in self.each]
        own = torch.stack([one.log_attention.double() for one in maps])
        log_q = _mean_of_logs(own)
        shown = [one.log_attention if one.shown is None else one.shown for one in maps]
        dims = [member.feature_dim for member in self.each]

        def say(cells: Tensor, features: Tensor) -> Tensor:
            parts = [features] * len(maps) if self.spec.frozen else features.split(dims, -1)
            total: Tensor | None = None
            for one, log_a, part in zip(maps, own, parts, strict=True):
                ratio = (log_a[cells] - log_q[cells]).exp()[..., None, None]
                said = one.say(cells, part)
                said = said * ratio.to(said) / len(maps)
                total = said if total is None else total + said
            assert total is not None
            return total

        def shares() -> Tensor:
            return torch.stack([one.shares() for one in maps if one.shares is not None]).mean(0)

        return AttentionMap(
            log_q,
            torch.stack([one.known for one in maps]).mean(0),
            say,
            shown=_mean_of_logs(torch.stack([one.double() for one in shown])),
            shares=shares if all(one.shares is not None for one in maps) else None,
        )

    @torch.no_grad()
    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features of the cells' patches, which are read once: those of all members side by side, (M, K D); of a frozen
        encoder, the same for all, (M, D)."""
        if self.spec.frozen:
            return self.each[0].encode(view, cells)
        blocks = []
        for part in np.array_split(cells, -(-len(cells) // ENCODER_BLOCK)):
            (pixels,) = read_together([(view.patches, torch.from_numpy(part))], torch.device("cpu"))
            shown = replace(view, patches=partial(_given, pixels.numpy()))
            blocks.append(torch.cat([member.encode(shown, part) for member in self.each], 1))
        return torch.cat(blocks)

    def features_of(
        self,
        views: Sequence[View],
        drawn: Sequence[PlacedDraw],
        vary: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None,
    ) -> list[Tensor]:
        """Features of single draws, as `encode` gives them: an ensemble is never trained."""
        return [self.encode(view, one.cells[0].cpu().numpy()) for view, one in zip(views, drawn, strict=True)]

    @torch.no_grad()
    def sample(
        self,
        view: View,
        *,
        generator: torch.Generator,
        samples: int | None = None,
        scheme: str | None = None,
        tolerance: float | None = None,
        decide: Decide | None = None,
    ) -> Sampled:
        """See `SlideModel.sample`; of models that read every cell, their exact mean."""
        how: dict[str, Any] = {"samples": samples, "scheme": scheme, "tolerance": tolerance, "decide": decide}
        if not self.spec.exhaustive:
            return super().sample(view, generator=generator, **how)
        if samples is not None or scheme is not None:
            raise ValueError("the models read every cell: leave out samples and scheme")
        features = self.encode(view, np.flatnonzero(view.tissue))
        return exact(view, self.attend(view), features, readout=self.readout, decide=decide)


def _given(pixels: NDArray[np.uint8], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Patches that were read already, as a reader of these cells."""
    return pixels


def _mean_of_logs(logs: Tensor) -> Tensor:
    """``log mean_k exp logs_k`` of (K, ...), -inf where all are."""
    return logs.logsumexp(0) - float(np.log(len(logs)))
