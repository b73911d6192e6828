"""What each patch says for and against each class: contributions in log-odds that add up to the prediction.

Logits are sums over cells, ``z = c + sum_i x_i``: of a constant, of what is known of each cell without reading it, and
of what the patches that were read add, each with its weight in the estimate. A class's log-odds
``l_c = z_c - log sum_{j != c} exp z_j`` are linear in them for two classes, and are attributed by the value of
Aumann and Shapley, the mean of the slopes along the straight line from no evidence at all, for any number:

    ``l_c(z) = l_c(0) + sum_j S_cj z_j``    with    ``S_cj = int_0^1 dl_c / dz_j (t z) dt``,

so that contributions ``S x_i`` add up whatever the classes are (M. Sundararajan, A. Taly and Q. Yan, "Axiomatic
attribution for deep networks", ICML 2017). For two classes it is ``x_i1 - x_i0``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.prediction.intervals import log_odds_of, rivals

NODES = 256
"""Points of Gauss and Legendre on the line: logits that differ by 100 are integrated to rounding."""

READ, FORETOLD, INTERPOLATED = 1, 2, 3
"""What a cell's evidence is told from: its own patch; what the model knows of it without; patches that look like it."""


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """A prediction's log-odds of C classes as a sum, ``constant + contributions of N patches + unread``.

    Attributes:
        log_odds: (C,), of the prediction.
        half_widths: (C,), of its interval.
        constant: (C,), without any evidence.
        patches: (N, C), of each patch that was read; it stands for the tissue that its weight says.
        patch_half_widths: (N, C): the variance of the sum, of which each patch has the share that its contrasts have;
            0 for one that stands for itself alone. Their squares add up to the square of the sum's half-width.
        unread: (C,), of all that is known of the cells that were not read.
        cells: (K, C), of each cell by itself, row-major; 0 off the tissue.
        told: (K,) uint8, what that is from: `READ`, `FORETOLD`, `INTERPOLATED`; 0 off the tissue.
    """

    log_odds: NDArray[np.float64]
    half_widths: NDArray[np.float64]
    constant: NDArray[np.float64]
    patches: NDArray[np.float64]
    patch_half_widths: NDArray[np.float64]
    unread: NDArray[np.float64]
    cells: NDArray[np.float64]
    told: NDArray[np.uint8]


def shapley_slopes(logits: Tensor) -> Tensor:
    """``S`` (C, C) of logits (C,); float64."""
    z = logits.detach().cpu().double()
    classes = len(z)
    if classes == 2:
        return torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(NODES))
    along = 0.5 * (nodes + 1)[:, None] * z  # (nodes, C)
    mean = torch.einsum("n,ncj->cj", weights / 2, torch.softmax(rivals(along), -1))
    return torch.eye(classes, dtype=torch.float64) - mean


def attribute(
    logits: Tensor,
    half_widths: Tensor,
    *,
    read: NDArray[np.int64],
    adds: Tensor,
    own: Tensor,
    spread: Tensor,
    foretold: Tensor | None,
    tissue: NDArray[np.bool_],
    interpolated: NDArray[np.float64] | None = None,
) -> Attribution:
    """Attribute a prediction.

    Args:
        logits: (C,), of the prediction.
        half_widths: (C,), of its log-odds.
        read: (N,), which cells were.
        adds: (N, C), what each adds to the logits, with its weight.
        own: (N, C), what it adds by itself, without.
        spread: (N,), its share of the variance.
        foretold: (K, C), each cell's part of what is known without reading; None: nothing is.
        tissue: (K,), which cells are.
        interpolated: (K, C), where nothing is known of cells without reading them: what they would add.
    """
    slopes = shapley_slopes(logits)
    classes = len(logits)

    def in_odds(values: Tensor) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (values.detach().cpu().double() @ slopes.T).numpy()
        return found

    log_odds = log_odds_of(logits.detach().cpu().double()).numpy()
    added, half = in_odds(adds), half_widths.detach().cpu().double().numpy()
    told = np.where(tissue, FORETOLD if foretold is not None else INTERPOLATED, 0).astype(np.uint8)
    told[read] = READ
    if foretold is not None:
        cells = in_odds(foretold)
        patches, unread = cells[read] + added, cells[tissue & (told != READ)].sum(0)
        cells[read] += in_odds(own)
    else:
        cells = np.zeros((len(tissue), classes))
        if interpolated is not None:
            cells[:] = in_odds(torch.from_numpy(interpolated))
        cells[~tissue] = 0
        patches, unread = added, np.zeros(classes)
        cells[read] = in_odds(own)
    share = spread.detach().cpu().double().clamp(min=0).sqrt().numpy()
    wide = np.where(share[:, None] > 0, share[:, None] * np.where(np.isfinite(half), half, np.inf), 0.0)
    constant = log_odds - patches.sum(0) - unread
    return Attribution(log_odds, half, constant, patches, wide, unread, cells, told)
