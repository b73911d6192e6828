"""Maps that somebody else made, as layers beside a run's own: a folder of them by a name that the user gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError, reason_of
from pipeline.output.attention_map import read_evidence_zarr
from pipeline.view.layers import Layer, given_layer
from pipeline.view.run_folder import SlideRow
from stages.given import MAPS, GivenMap, Ground, read_given
from stages.given_map import MapError, find_map
from stages.given_places import split_measurement

TAKEN = ("attention", "evidence", "none")
"""Names of what can be chosen besides."""
MOST_PX = 768
"""Of a map along a side: finer ones are shown by their means."""


@dataclass(frozen=True, slots=True)
class GivenMaps:
    """Folders of maps by the names that they are shown by, each ``FOLDER`` or ``FOLDER#MEASUREMENT``; see
    `stages.given_map` and `stages.given_places` for what may lie in them."""

    folders: Mapping[str, Path]

    def check(self, slides: Sequence[SlideRow]) -> None:
        """Refuse what is no map of any slide.

        Raises:
            UsageError: a folder is none, or has no map of these slides.
        """
        for name, said in self.folders.items():
            folder, _ = split_measurement(said)
            if folder.is_file():
                raise UsageError(
                    f"--map {name}: {folder} is a file, expected a folder of maps, one a slide by its name: name the "
                    "one that it lies in"
                )
            if not folder.is_dir():
                raise UsageError(f"--map {name}: there is no folder {folder}: name one that is there")
            names = [one.name for one in slides if one.folder is not None]
            if names and not any((folder / f"{one}{suffix}").is_file() for one in names for suffix in MAPS):
                raise UsageError(
                    f"--map {name}: no slide of the run has a map in {folder}, such as {names[0]}{MAPS[0]}, "
                    f"{', '.join(MAPS[1:])}: name them by their slides"
                )

    def of(self, slide: SlideRow, ground: Ground) -> Iterator[Layer | str]:
        """The layer of each map, or why it is not shown, in a sentence.

        Args:
            slide: which has results.
            ground: of it.
        """
        assert slide.folder is not None
        for number, (label, said) in enumerate(self.folders.items()):
            folder, measurement = split_measurement(said)
            try:
                path = find_map(folder, slide.name, MAPS)
                told = (measurement, f"given-{number}", label)
                yield _layer(path, path.stat().st_mtime_ns, slide.folder, ground, *told)
            except (MapError, OSError) as exc:
                yield f"The map {label} is not shown: {reason_of(exc)}."


@lru_cache(maxsize=8)
def _layer(path: Path, written: int, folder: Path, ground: Ground, measurement: str, name: str, label: str) -> Layer:
    """The layer of a file that was written then, on a slide whose results lie in a folder."""
    given = read_given(path, ground, measurement=measurement)
    values, raster = given.drawn(MOST_PX)
    if not values.any() or _off_tissue(given, folder):
        raise MapError(
            f"{path} is 0 on all of the slide's tissue: it is another slide's, counts from another corner, or is empty"
        )
    return given_layer(values, raster, name=name, label=label)


def _off_tissue(given: GivenMap, folder: Path) -> bool:
    """Whether none of it lies on what the run took for tissue, as far as that is known."""
    try:
        _, told, raster = read_evidence_zarr(folder / "evidence.zarr")
    except (OSError, KeyError, ValueError, TypeError, UsageError):
        return False
    return not np.any(given.on(raster)[told > 0])


def named_maps(told: Sequence[str]) -> dict[str, Path]:
    """Folders by name, of words such as ``NAME=FOLDER``.

    Raises:
        UsageError: they are not that, or two have one name.
    """
    found: dict[str, Path] = {}
    for one in told:
        name, _, place = one.partition("=")
        name = name.strip()
        if not name or not place:
            raise UsageError(f"--map {one}: expected NAME=FOLDER, such as clam=heatmaps/")
        if name in TAKEN:
            raise UsageError(f"--map {one}: the run has its own {name}: give it another name")
        if name in found:
            raise UsageError(f"--map: two are called {name}: give each its own name")
        found[name] = Path(place)
    return found
