"""Whose slides they are and which belong together: patients, sites and folds, each scored by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NO_SITE = "no site given"

Groups = Mapping[str, Sequence[Any] | None]
"""Names of each slide's group, (n,), by what kind of group it is: "sites", "folds"; None where a slide has none."""


def owners(patients: Sequence[str]) -> NDArray[np.int64]:
    """Whose slide each is, as numbers from 0, (n,)."""
    return np.unique(np.asarray(patients), return_inverse=True)[1].astype(np.int64)


def by_group(score: Callable[[NDArray[np.bool_]], dict[str, Any]], groups: Groups) -> dict[str, Any]:
    """What ``score`` finds of the slides that a mask (n,) chooses, for each group: ``{"sites": {name: ...}}``.

    A kind of group of which no slide has one is left out; slides without one are "no site given".
    """
    found: dict[str, Any] = {}
    for kind, members in groups.items():
        if members is None or all(one is None or one == "" for one in members):
            continue
        names = np.array([NO_SITE if one is None or one == "" else str(one) for one in members])
        found[kind] = {str(name): score(names == name) for name in np.unique(names)}
    return found


def numbers(values: ArrayLike, what: str, *, shape: tuple[int, ...], missing: bool = False) -> NDArray[np.float64]:
    """An array of finite numbers of a shape; where ``missing``, NaN may stand for one that is not known.

    Raises:
        ValueError: it is not.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{what}: expected numbers, found {values!r:.60}") from exc
    if array.shape != shape:
        raise ValueError(f"{what}: expected shape {shape}, found {array.shape}")
    wrong = np.isinf(array) if missing else ~np.isfinite(array)
    if wrong.any():
        raise ValueError(
            f"{what}: expected finite numbers, found {array[wrong][0]} in row {int(np.argwhere(wrong)[0][0])} from 0"
        )
    return array


def check_patients(patients: Sequence[str], count: int) -> None:
    """A patient for each slide, of which there is one at least.

    Raises:
        ValueError: there is not.
    """
    if len(patients) != count or not count:
        raise ValueError(f"expected a patient for each of {count} slides (one at least), found {len(patients)}")
