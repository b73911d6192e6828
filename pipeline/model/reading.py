"""What a model reads of slides, as tensors on its device, and the walks that it draws along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import dask
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.sampling.walk import hilbert_order


def read_together(
    asked: Sequence[tuple[Callable[[NDArray[np.int64]], Any] | None, Tensor]], device: torch.device
) -> list[Tensor]:
    """Pixels (N, P, P, 3) uint8 of the cells that are asked of each reader, by dask on threads."""
    lazy = [read(cells.cpu().numpy()) for read, cells in asked if read is not None]
    return [torch.from_numpy(p).to(device) for p in dask.compute(*lazy, scheduler="threads")]


def image(rgb: NDArray[np.uint8] | Tensor, device: torch.device) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in 0 to 1."""
    return torch.as_tensor(rgb).to(device).movedim(-1, -3) / 255


@lru_cache(maxsize=32)
def walk(rows: int, columns: int) -> Tensor:
    """`hilbert_order` of a grid; slides of a batch and the steps of training ask for the same ones."""
    return hilbert_order(rows, columns)
