"""Parts of a slide, each of which is read whole or has a draw of its own, as one draw of all.

Where somebody asks for more of a place after they have seen what a draw found, the place follows the draw: to count it
as read, while the draw's other cells keep their weights, would be biased, since it is asked for *because* of what was
drawn there. What is unbiased however the place was chosen is

    ``T = sum_{i read} a_i f_i + sum_{s} sum_{m in s} w_m a_{i_m} f_{i_m}``

where every stratum s, the place and all that lies elsewhere, is drawn anew from what is unread of it. Given all that
was read and seen before, ``T`` is a sum of what is known and of unbiased estimates, and its variance is the sum of
theirs; a stratum that is read whole leaves nothing to chance. (It is a look of `stages.sampling.looks`, in strata, that
has all the weight: what the draws before it found is not lost, for it is read.)
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.sampling.designs import Draw
from stages.sampling.looks import combine


def stratified(strata: Sequence[Draw]) -> Draw:
    """Draws of parts that have no cell in common as one draw: estimates add up, and so do their variances.

    Args:
        strata: each (B, N_s) with contrasts, whose cells are indices among those of all.
    """
    return combine(strata, [1.0] * len(strata), afresh=True)
