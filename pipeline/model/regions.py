"""Two levels: the cells of a slide in square regions, and draws and attention of cells within opened regions.

With attention ``A`` over regions and ``b`` inside them, ``a_{ri} = A_r b_{i|r}``; ``b`` is known where a region was
opened. Shapes: B draws, R drawn regions, S = side * side cells of a region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.model.reading import image, in_full, read_together
from pipeline.model.values import AttentionMap, PlacedDraw, View
from stages.attention import masked_log_softmax
from stages.sampling.designs import Draw, nest
from stages.sampling.estimate import entropy


def by_region(cells: Tensor, side: int) -> Tensor:
    """Cells (rows, columns) -> (region rows, region columns, S)."""
    rows, columns = (n // side for n in cells.shape)
    return cells.view(rows, side, columns, side).transpose(1, 2).flatten(2)


def places(shape: tuple[int, ...], side: int, device: torch.device | None = None) -> Tensor:
    """Row-major indices, among (rows, columns) cells, of the cells of each region: (regions, S)."""
    rows, columns = shape
    return by_region(torch.arange(rows * columns, device=device).view(rows, columns), side).flatten(0, 1)


def shares(samples: int, *, tissue: int, regions: int, each: int, size: int) -> tuple[int, int]:
    """How many regions to open, and how many patches to read in each; a slide of few cells is taken whole.

    Args:
        samples: patches to read, all told.
        tissue: cells of the slide that may be drawn.
        regions: those that may be opened.
        each: patches wanted in an opened region.
        size: S.
    """
    if samples >= tissue:
        return regions, size
    opened = min(regions, max(2, samples // each))
    return opened, samples // opened


def look_inside(
    inner: nn.Module,
    views: Sequence[View],
    regions: Sequence[Tensor],
    tissues: Sequence[Tensor],
    opened: Sequence[dict[int, Tensor]],
    device: torch.device,
) -> list[Tensor]:
    """Log attention inside regions, (R, S) for each slide, -inf off the tissue; the slides' regions are read together.

    Args:
        inner: image of a region -> logits of its cells.
        views: the slides.
        regions: (R,), of each slide.
        tissues: (regions, S), of each slide.
        opened: of each slide, region -> log attention inside it; used and added to, so that none is read twice.
        device: the net's; the log attention is where ``tissues`` are.
    """
    new = [sorted(set(r.tolist()) - k.keys()) for r, k in zip(regions, opened, strict=True)]
    asked = [(v.regions, torch.tensor(n, dtype=torch.int64)) for v, n in zip(views, new, strict=True)]
    images = read_together(asked, device)
    for tissue, found, cells, pixels in zip(tissues, opened, new, images, strict=True):
        if cells:
            with in_full(device):
                logits = inner(image(pixels, device)).to(tissue.device)
            parts = zip(logits, tissue[cells], strict=True)
            found.update(zip(cells, [masked_log_softmax(one.flatten(), mask) for one, mask in parts], strict=True))
    return [torch.stack([k[cell] for cell in r.tolist()]) for r, k in zip(regions, opened, strict=True)]


def nested_draw(
    attention: AttentionMap, inside: Tensor, places: Tensor, *, outer: Draw, inner: Draw, repeats: bool
) -> PlacedDraw:
    """A draw of regions and draws of cells within them, as one draw of cells.

    Args:
        attention: of the regions, A.
        inside: (B R, S), b of the drawn regions.
        places: (regions, S), of `places`.
        outer: (B, R) regions.
        inner: (B R, N) cells of the drawn regions.
        repeats: whether a region may have been drawn twice.
    """
    log_outer = attention.log_attention[outer.cells]  # (B, R)
    within = (outer.weights * log_outer.exp() * entropy(inside).view_as(log_outer)).sum(1)
    return PlacedDraw(
        nest(outer, inner, inside.shape[1], repeats=repeats),
        (log_outer.double().flatten().unsqueeze(1) + inside.double()).view(len(log_outer), -1),
        places[outer.cells].flatten(1),
        attention,
        entropy(attention.log_attention[None]) + within,
    )


def joint_attention(log_attention: Tensor, opened: Mapping[int, Tensor], tissue: Tensor, places: Tensor) -> Tensor:
    """Log attention of all cells as far as it is known, (rows * columns,) float64; even over the tissue of a region
    that was not opened.

    Args:
        log_attention: (regions,), A.
        opened: region -> log attention inside it, (S,).
        tissue: (regions, S).
        places: (regions, S), of `places`.
    """
    inside = torch.where(tissue, -tissue.sum(1, keepdim=True).double().log(), -torch.inf)
    for region, found in opened.items():
        inside[region] = found.double()
    joint = torch.where(tissue, log_attention.double().unsqueeze(1) + inside, -torch.inf)
    out = joint.new_empty(joint.numel())
    out[places.flatten()] = joint.flatten()
    return out
