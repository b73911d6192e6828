"""What passes between the model and those who call it: frozen values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.stack import Stack
from stages.encoder.feature_store import FeatureKey
from stages.prediction.predict import Prediction
from stages.prediction.stopping import Side
from stages.sampling.designs import Draw
from stages.sampling.estimate import expectation


@dataclass(frozen=True, slots=True)
class View:
    """What the model needs of one slide, or of a patient's (`pipeline.model.joint`); pixels beyond the thumbnail come
    through ``patches`` and ``regions`` only.

    Attributes:
        rgb: thumbnail, (H, W, 3) uint8.
        tissue: which cells are tissue, (rows, columns) bool; with two levels, whole regions.
        patches: row-major cell indices (N,) -> lazy or real patches (N, P, P, 3) uint8.
        regions: row-major region indices (R,) -> lazy or real second looks (R, S, S, 3) uint8, with the pixels around
            the region that the second attention reaches; for two levels only.
        coarse: row-major cell indices (N,) -> lazy or real patches (N, Q, Q, 3) uint8 of the cells at a coarse scale;
            where a frozen encoder makes the attention only.
        prior: each cell's share of a map that was given, (rows, columns), 0 off the tissue; None: the model's attention
            alone says where to look.
        features: row-major cell indices (N,) -> features (N, D) float32 that were made elsewhere, of a bag's tiles, in
            place of pixels; None: patches are to be encoded.
        key, coarse_key: (encoder, dim) -> what features of ``patches`` and ``coarse`` are kept by; None: they are not.
        parts: of a patient with several slides, their views; what is of pixels or of a slide's own grid is theirs.
        apart: empty rows between these on the grid of all.
        lose: of a patient's slide: told why it cannot be read, does without it from now on; None: nobody does.
    """

    rgb: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    patches: Callable[[NDArray[np.int64]], Any]
    regions: Callable[[NDArray[np.int64]], Any] | None = None
    coarse: Callable[[NDArray[np.int64]], Any] | None = None
    key: Callable[[str, int], FeatureKey] | None = None
    coarse_key: Callable[[str, int], FeatureKey] | None = None
    prior: NDArray[np.float64] | None = None
    features: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None
    parts: tuple[View, ...] = ()
    apart: int = 0
    lose: Callable[[str], None] | None = None

    @property
    def each(self) -> tuple[View, ...]:
        """The views of its slides; of one slide itself."""
        return self.parts or (self,)

    @property
    def stack(self) -> Stack:
        """Where the cells of its slides lie on its grid."""
        shapes = tuple((one.tissue.shape[0], one.tissue.shape[1]) for one in self.each)
        return Stack(shapes, self.apart)


class Ratio(NamedTuple):
    """Of the patches of draws, per unit of their weights: what each adds to the logits, whose sum is the estimate's,
    and how the estimate moves with its weight, (B, N, M, C)."""

    added: Tensor
    moved: Tensor


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """What a model makes of a slide before it reads patches.

    The logits of its M members are ``known + sum_i a_i say(i, f_i)``, of which the sum is estimated from a draw.

    Attributes:
        log_attention: ``log a`` of the cells or, with two levels, of the regions: row-major, -inf off the tissue.
        known: logits (M, C) of what needs no patch: the constant, and all that is exact.
        say: cells (...) by their row-major indices on the slide, and their features (..., D) -> what their patches add
            to the logits where attention is 1, (..., M, C).
        error: mean squared error of what was foretold of features: cells (N,), features (N, D) -> (); None: nothing
            is.
        shown: log attention of the cells that is told to users, where what is drawn from is not it.
        ratio: where what a patch adds depends on the others of its draw, as in a ratio of sums: cells (B, N), features
            (B, N, D) and weights (B, N) of draws -> for each, per unit of its weight, what it adds to the logits, and
            how they move with its weight: `Ratio`. ``say`` is then of no use; None: the sum is linear.
        shares: -> (rows * columns, M, C), each cell's part of ``known``, the rest of which is a constant; None: all is.
    """

    log_attention: Tensor
    known: Tensor
    say: Callable[[Tensor, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor] | None = None
    shown: Tensor | None = None
    shares: Callable[[], Tensor] | None = None
    ratio: Callable[[Tensor, Tensor, Tensor], Ratio] | None = None

    def added(self, cells: Tensor, features: Tensor, weights: Tensor) -> Tensor:
        """What patches that were read add to the logits where attention is 1, (B, N, M, C), such that the logits are
        ``known + sum_i weight_i a_i added_i``: `say`, where the sum is linear, else each one's part of this draw's.

        Args:
            cells, features, weights: (B, N), (B, N, D) and (B, N), all of a draw's.
        """
        return self.say(cells, features) if self.ratio is None else self._unit(cells, features, weights).added

    def moved(self, cells: Tensor, features: Tensor, weights: Tensor) -> Tensor:
        """How the logits move with a patch's weight where attention is 1, (B, N, M, C): what is left to chance about
        them, to the first order (J.-C. Deville, "Variance estimation for complex statistics and estimators:
        linearization and residual techniques", Survey Methodology 25, 1999)."""
        return self.say(cells, features) if self.ratio is None else self._unit(cells, features, weights).moved

    def _unit(self, cells: Tensor, features: Tensor, weights: Tensor) -> Ratio:
        assert self.ratio is not None
        attention = self.log_attention[cells].exp()[..., None, None]
        return Ratio(*(part / attention.to(part) for part in self.ratio(cells, features, weights)))

    def drawn_by(self, prior: Tensor, share: float) -> AttentionMap:
        """The same logits, drawn from ``q = (1 - share) a + share * prior``: what a patch says is divided by ``q / a``,
        so that its sum stays what it was, whatever the prior is.

        Args:
            prior: (K,), summing to one over the cells that may be drawn.
            share: from 0 to 1, which draws by the prior alone: it must then be positive wherever attention is.
        """
        own, log_a = self.log_attention, self.log_attention.detach()
        left = math.log1p(-share) if share < 1 else -math.inf
        log_q = torch.logaddexp(log_a + left, prior.to(log_a).log() + math.log(share))
        log_q = log_q.masked_fill(log_a == -torch.inf, -torch.inf)

        def say(cells: Tensor, features: Tensor) -> Tensor:
            said = self.say(cells, features)
            ratio = (own[cells] - log_q[cells]).exp()[..., None, None]
            return said * ratio.to(said)

        return replace(self, log_attention=log_q, say=say, shown=own if self.shown is None else self.shown)


@dataclass(frozen=True, slots=True)
class PlacedDraw:
    """A draw of one slide's cells and where on the slide they are; B draws of it, one unless more are asked for.

    Attributes:
        draw: (B, N), from the S cells that could be drawn: all of the slide's, or those of the opened regions.
        log_attention: (B, S), of these.
        places: (B, S), their row-major indices on the slide.
        map: what the slide's model made of it before.
        entropy: of the attention, in nats, (B,); with two levels an unbiased estimate.
    """

    draw: Draw
    log_attention: Tensor
    places: Tensor
    map: AttentionMap
    entropy: Tensor

    @property
    def cells(self) -> Tensor:
        """Row-major indices of the cells to read, (B, N)."""
        return self.places.gather(1, self.draw.cells)

    def say(self, features: Tensor) -> Tensor:
        """What each cell's patch adds to the members' logits where attention is 1, (B, N, M, C), from the features
        (B, N, D) of the cells, in their order."""
        return self.map.added(self.cells, features, self.draw.weights)

    def moves(self, features: Tensor) -> Tensor:
        """How the members' logits move with each patch's weight where attention is 1, (B, N, M, C)."""
        return self.map.moved(self.cells, features, self.draw.weights)

    def logits(self, said: Tensor) -> Tensor:
        """Estimates of the members' logits, (B, M, C), from what each patch says."""
        total = expectation(self.log_attention, said.flatten(2), self.draw)
        return self.map.known + total.view(-1, *said.shape[2:])


class Outcome(NamedTuple):
    """What a batch of B slides gives: logits of the M members (B, M, C), attention entropies (B,) in nats, and the mean
    squared error of the features that the thumbnail foretold (0 where it foretells none)."""

    logits: Tensor
    entropies: Tensor
    control_error: Tensor


@dataclass(frozen=True, slots=True)
class Sampled:
    """One slide after its draw was read.

    Attributes:
        log_attention: (rows * columns,), -inf off the tissue. With two levels, what is known of it: a region that was
            not opened spreads its attention evenly over its tissue.
        cells: the M different cells that were read, row-major indices (M,).
        weights: (M,), 0 for what only an earlier, smaller draw used, such that
            ``sum_m weight_m attention_m features_m`` estimates the slide's embedding ``sum_i attention_i features_i``.
        features: (M, D).
        opened: row-major indices of the regions that were looked into; empty with one level.
        prediction: probabilities with intervals.
        missed: hard bound on the embedding's error, ``1 - sum of the attention that was read``.
        adds: (M, C), what each patch adds to the logits, with its weight: what is known without any, and these, sum to
            the prediction's.
        own: (M, C), what each would add if it stood for itself alone, as in reading everything.
        spread: (M,), each patch's share of the estimate's variance; 0 of what stands for itself alone.
        foretold: (rows * columns, C), each cell's part of what is known without reading it; None: nothing is.
        side: of the threshold, where it was to be decided; else None.
    """

    log_attention: Tensor
    cells: NDArray[np.int64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]
    opened: NDArray[np.int64]
    prediction: Prediction
    missed: float
    adds: Tensor
    own: Tensor
    spread: Tensor
    foretold: Tensor | None = None
    side: Side | None = None
