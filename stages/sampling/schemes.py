"""The one table of schemes: how each draws, how it draws so that it tells its variance, and what users are told of it.

A new scheme is one entry here; the checks, the configuration, the command's choices and its help follow. Reading the
table needs no torch: help and configuration do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stages.sampling.designs import Draw

    Generators = torch.Generator | Sequence[torch.Generator]

DEFAULT = "systematic"
MOST_CONTRASTS = 512
"""Pairs of a systematic draw that are contrasts of their own: enough to tell a variance, few enough to hold."""
MOST_JUDGED = 2048
"""Draws of ``iid`` or ``gumbel`` whose variance is told: it takes memory for their square."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to draw cells.

    Both functions take probabilities (B, K) float64, the number N of cells to draw, the walk (K,) over the cells and a
    generator, and give a draw of (B, N); of slides with at most N cells the caller makes nothing of it. ``draw`` also
    takes a generator for each slide.

    Attributes:
        about: one line for users.
        draw: as training draws.
        judged: as predictions draw, with contrasts. None: it is biased and cannot tell by how much, so it has no
            variance, takes no other proposal and is no choice of the user's: a baseline.
        most_judged: most cells to draw with contrasts, or None: any number.
        repeats: whether a cell may be drawn more than once.
    """

    about: str
    draw: Callable[[Tensor, int, Tensor, Generators], Draw]
    judged: Callable[[Tensor, int, Tensor, torch.Generator], Draw] | None = None
    most_judged: int | None = None
    repeats: bool = False

    def judges(self, n: int) -> bool:
        """Whether a draw of ``n`` cells tells its variance."""
        return self.judged is not None and (self.most_judged is None or n <= self.most_judged)


def _systematic(q: Tensor, n: int, order: Tensor, generator: Generators) -> Draw:
    from stages.sampling import designs

    return designs.systematic(q, n, _uniform_rows(generator, len(q), 1), order)


def _pairs(q: Tensor, n: int, order: Tensor, generator: torch.Generator) -> Draw:
    from stages.sampling import designs

    return designs.pairs(q, n, MOST_CONTRASTS, _uniform(generator, 3, len(q), n // 2), order)


def _gumbel(q: Tensor, n: int, order: Tensor, generator: Generators) -> Draw:
    from stages.sampling import designs

    return designs.gumbel(q, n, _uniform_rows(generator, *q.shape))


def _judged_gumbel(q: Tensor, n: int, order: Tensor, generator: torch.Generator) -> Draw:
    from stages.sampling import designs

    return designs.judged_gumbel(q, n, _uniform(generator, *q.shape))


def _iid(q: Tensor, n: int, order: Tensor, generator: Generators) -> Draw:
    from stages.sampling import designs

    return designs.iid(q, _uniform_rows(generator, len(q), n))


def _judged_iid(q: Tensor, n: int, order: Tensor, generator: torch.Generator) -> Draw:
    from stages.sampling import designs

    return designs.judged_iid(q, _uniform(generator, len(q), n))


def _topk(q: Tensor, n: int, order: Tensor, generator: Generators) -> Draw:
    from stages.sampling import designs

    return designs.topk(q, n)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniforms in [0, 1): float64, because at float32 a million cells would tie."""
    import torch

    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _uniform_rows(generator: Generators, rows: int, width: int) -> Tensor:
    """`_uniform` (rows, width), of one generator or each row of its own."""
    import torch

    if isinstance(generator, torch.Generator):
        return _uniform(generator, rows, width)
    return torch.cat([_uniform(one, 1, width) for one in generator])


SCHEMES: Mapping[str, Scheme] = {
    "systematic": Scheme(
        "no cell twice, spread along a walk over the tissue, the smallest variance; training draws it by equal steps, "
        "predictions by pairs (Murthy's design), which tell their variance",
        _systematic,
        _pairs,
    ),
    "gumbel": Scheme(
        "one cell after another by its attention, no cell twice", _gumbel, _judged_gumbel, most_judged=MOST_JUDGED
    ),
    "iid": Scheme(
        "each cell by its attention, whatever was drawn before",
        _iid,
        _judged_iid,
        most_judged=MOST_JUDGED,
        repeats=True,
    ),
    "topk": Scheme("the cells of the largest attention: biased, a baseline", _topk),
}


def choices() -> tuple[str, ...]:
    """The schemes that users may choose: those that tell how sure they are."""
    return tuple(name for name, scheme in SCHEMES.items() if scheme.judged is not None)


def in_words() -> str:
    """What users are told where they choose a scheme: a clause for each choice."""
    most = {name: SCHEMES[name].most_judged for name in choices()}
    return "; ".join(f"{name}: {SCHEMES[name].about}{f', at most {n}' if n else ''}" for name, n in most.items())


def listed(*, quote: str = "") -> str:
    """The choices as an English list: ``a, b or c``."""
    *others, last = (f"{quote}{name}{quote}" for name in choices())
    return f"{', '.join(others)} or {last}"
