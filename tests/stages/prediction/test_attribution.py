"""Contributions of patches add up to the log-odds, whatever the classes are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.prediction.attribution import Attribution, attribute, shapley_slopes
from stages.prediction.kinds import FORETOLD, INTERPOLATED, READ
from stages.prediction.readout import ClassReadout


def log_odds(z: torch.Tensor) -> torch.Tensor:
    """``z_c - log sum_{j != c} exp z_j``."""
    return torch.stack([z[c] - torch.cat([z[:c], z[c + 1 :]]).logsumexp(0) for c in range(len(z))])


@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_slopes_add_up_to_the_log_odds(classes: int, spread: float) -> None:
    """From no evidence, where every class has the same chance, to the prediction."""
    z = spread * torch.randn(classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
    assert torch.allclose(
        shapley_slopes(z, ClassReadout(classes)) @ z - np.log(classes - 1), log_odds(z), atol=1e-9, rtol=0
    )


def test_what_speaks_for_a_class_speaks_against_the_other_of_two() -> None:
    slopes = shapley_slopes(torch.tensor([3.0, -1.0]), ClassReadout(2))
    assert slopes.tolist() == [[1, -1], [-1, 1]]


def test_what_speaks_for_a_third_class_speaks_against_the_stronger_of_the_others() -> None:
    slopes = shapley_slopes(torch.tensor([0.0, 4.0, 0.0]), ClassReadout(3))
    assert slopes[0, 0] == 1
    assert slopes[0, 1] < -0.6 < slopes[0, 2] < 0


def parts(classes: int, *, foretold: bool) -> tuple[Attribution, dict[str, torch.Tensor]]:
    """Of a slide of nine cells, of which the last two are glass and two were read, with weights 1 and 4."""
    generator = torch.Generator().manual_seed(1)
    own = torch.randn(2, classes, generator=generator, dtype=torch.float64)
    adds = own * torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    known = torch.randn(9, classes, generator=generator, dtype=torch.float64)
    known[7:] = 0
    constant = torch.randn(classes, generator=generator, dtype=torch.float64)
    z = constant + adds.sum(0) + (known.sum(0) if foretold else 0)
    found = attribute(
        z,
        torch.full((classes,), 0.5),
        read=np.array([1, 4]),
        adds=adds,
        own=own,
        spread=torch.tensor([0.0, 1.0]),
        foretold=known if foretold else None,
        tissue=np.arange(9) < 7,
        interpolated=None if foretold else known.numpy(),
    )
    return found, {"z": z, "constant": constant, "own": own, "known": known}


@pytest.mark.parametrize("foretold", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
def test_constant_patches_and_unread_cells_add_up(classes: int, foretold: bool) -> None:
    found, said = parts(classes, foretold=foretold)
    assert np.allclose(found.statistics, log_odds(said["z"]), atol=1e-12)
    assert np.allclose(found.constant + found.patches.sum(0) + found.unread, found.statistics, atol=1e-12)
    slopes = shapley_slopes(said["z"], ClassReadout(len(said["z"])))
    without = slopes @ said["constant"] - np.log(classes - 1)
    assert np.allclose(found.constant, without, atol=1e-9)  # what is left over is the constant, and no rest
    assert np.allclose(found.cells[1], slopes @ (said["own"][0] + (said["known"][1] if foretold else 0)))
    assert np.allclose(found.cells[2], slopes @ said["known"][2])
    assert found.told.tolist() == [FORETOLD if foretold else INTERPOLATED] * 7 + [0] * 2 or found.told[1] == READ
    assert found.told.tolist()[7:] == [0, 0]
    assert not found.cells[7:].any()


def test_a_patch_that_stands_for_itself_alone_leaves_nothing_open() -> None:
    found, _ = parts(3, foretold=True)
    assert not found.patch_half_widths[0].any()
    assert np.allclose(np.square(found.patch_half_widths).sum(0), np.square(found.half_widths))
