"""What each patch says for and against what is told: contributions to its statistics that add up to the prediction.

Logits are sums over cells, ``z = c + sum_i x_i``: of a constant, of what is known of each cell without reading it, and
of what the patches that were read add, each with its weight in the estimate. The statistics of a read-out are linear in
them, but for the log-odds of more than two classes, ``l_c = z_c - log sum_{j != c} exp z_j``. These are attributed by
the value of Aumann and Shapley, the mean of the slopes along the straight line from no evidence at all:

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

from stages.prediction.kinds import FORETOLD, INTERPOLATED, READ
from stages.prediction.readout import ClassReadout, Readout

NODES = 256
"""Points of Gauss and Legendre on the line: logits that differ by 100 are integrated to rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """A prediction's C statistics as sums, ``constant + contributions of N patches + unread``: of classes their
    log-odds.

    Attributes:
        statistics: (C,), of the prediction.
        half_widths: (C,), of its interval.
        constant: (C,), without any evidence.
        patches: (N, C), of each patch that was read; it stands for the tissue that its weight says.
        patch_half_widths: (N, C): the variance of the sum, of which each patch has the share that its contrasts have;
            0 for one that stands for itself alone. Their squares add up to the square of the sum's half-width.
        unread: (C,), of all that is known of the cells that were not read.
        cells: (K, C), of each cell by itself, row-major; 0 off the tissue.
        told: (K,) uint8, what that is from: `READ`, `FORETOLD`, `INTERPOLATED`; 0 off the tissue.
    """

    statistics: NDArray[np.float64]
    half_widths: NDArray[np.float64]
    constant: NDArray[np.float64]
    patches: NDArray[np.float64]
    patch_half_widths: NDArray[np.float64]
    unread: NDArray[np.float64]
    cells: NDArray[np.float64]
    told: NDArray[np.uint8]


def shapley_slopes(logits: Tensor, readout: Readout) -> Tensor:
    """``S`` (C, K) of logits (K,); float64."""
    z = logits.detach().cpu().double()
    if readout.linear:
        return readout.slopes(z)
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(NODES))
    along = 0.5 * (nodes + 1)[:, None] * z  # (nodes, K)
    there = readout.slopes(z)
    return there + torch.einsum("n,ncj->cj", weights / 2, readout.slopes(along) - there)


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
    readout: Readout | None = None,
) -> Attribution:
    """Attribute a prediction.

    Args:
        logits: (K,), of the prediction.
        half_widths: (C,), of its statistics.
        read: (N,), which cells were.
        adds: (N, C), what each adds to the logits, with its weight.
        own: (N, C), what it adds by itself, without.
        spread: (N,), its share of the variance.
        foretold: (K, C), each cell's part of what is known without reading; None: nothing is.
        tissue: (K,), which cells are.
        interpolated: (K, C), where nothing is known of cells without reading them: what they would add.
        readout: what statistics are of logits; default: the log-odds of as many classes.
    """
    readout = ClassReadout(len(logits)) if readout is None else readout
    slopes = shapley_slopes(logits, readout)

    def told_in(values: Tensor) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (values.detach().cpu().double() @ slopes.T).numpy()
        return found

    statistics = readout.statistics(logits.detach().cpu().double()).numpy()
    added, half = told_in(adds), half_widths.detach().cpu().double().numpy()
    told = np.where(tissue, FORETOLD if foretold is not None else INTERPOLATED, 0).astype(np.uint8)
    told[read] = READ
    if foretold is not None:
        cells = told_in(foretold)
        patches, unread = cells[read] + added, cells[tissue & (told != READ)].sum(0)
        cells[read] += told_in(own)
    else:
        cells = np.zeros((len(tissue), len(slopes)))
        if interpolated is not None:
            cells[:] = told_in(torch.from_numpy(interpolated))
        cells[~tissue] = 0
        patches, unread = added, np.zeros(len(slopes))
        cells[read] = told_in(own)
    share = spread.detach().cpu().double().clamp(min=0).sqrt().numpy()
    wide = np.where(share[:, None] > 0, share[:, None] * np.where(np.isfinite(half), half, np.inf), 0.0)
    constant = statistics - patches.sum(0) - unread
    return Attribution(statistics, half, constant, patches, wide, unread, cells, told)
