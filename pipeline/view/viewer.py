"""What is shown of a run, whoever asks for it: pages, tiles, pictures of patches."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.errors import UsageError
from pipeline.output.slide_folder import read_commit
from pipeline.view.against import compare
from pipeline.view.cohort_page import cohort_page
from pipeline.view.figure import BESIDE, BOKEH, TARGET, bokeh_script, figure_json
from pipeline.view.findings import Findings, find
from pipeline.view.frame import SIDE, Frame
from pipeline.view.given_maps import GivenMaps
from pipeline.view.layers import Layer
from pipeline.view.links import Links
from pipeline.view.more import More
from pipeline.view.more_page import more_state
from pipeline.view.outlines import Ring, read_outlines
from pipeline.view.page import ASSETS
from pipeline.view.pixels import open_slide_of
from pipeline.view.run_folder import RunFolder, SlideRow, inner
from pipeline.view.samples import read_samples
from pipeline.view.slide_page import Beside, slide_page
from pipeline.view.thumbnail import overview, part, thumbnail_place
from pipeline.view.tiles import Tiles
from stages.geometry import LEVEL_TOLERANCE, Raster, choose_level
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.tiles import WHITE

PATCH_PX = 2 * SIDE
"""Pixels along a side of a patch's picture, at most: others are shown coarser than level 0."""
SMALL_PX = 160
"""Of the pictures in the table."""
MOST_PIXELS = 128
"""Of a slide's level that are read for a pixel of the screen: levels that are 8 times apart need half of it."""
LARGE_PX = 2048
"""Of the picture below a slide's tiles, or in their place."""


class Viewer:
    """A run as it is shown.

    Args:
        run: what is shown.
        folders: where slides lie by now that were moved.
        outlines: folder of outlines to show, ``<slide>.geojson``.
        model: where the run's model lies by now, to read more; None: where the run had it.
        beside: another run that it is compared with.
        maps: folders of maps that somebody else made, by the names that they are shown by.

    Attributes:
        more: what is read of its slides when somebody asks for it.
        beside: another run that it is compared with; None: nothing.
        against: how that compares; None: nothing does.

    Raises:
        UsageError: a folder of maps has none of this run's slides.
    """

    def __init__(
        self,
        run: RunFolder,
        folders: Sequence[Path] = (),
        outlines: Path | None = None,
        model: Path | None = None,
        beside: RunFolder | None = None,
        maps: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        self.run = run
        self.against = compare(run, beside) if beside is not None else None
        self.beside = Viewer(beside, folders) if beside is not None else None
        self.more = More(run, lambda slide: open_slide_of(slide, folders), model)
        self._folders, self._outlines = folders, outlines
        self._maps = GivenMaps(maps)
        self._maps.check(run.slides)
        self._tiles = Tiles(self._open)

    def slide(self, number: int) -> SlideRow | None:
        """The slide of a number; None where there is none that has results."""
        found = self.run.slides[number] if 0 <= number < len(self.run.slides) else None
        return found if found is not None and found.folder is not None else None

    def _open(self, number: int) -> Slide:
        return open_slide_of(self.run.slides[number], self._folders)

    def _frame(self, number: int) -> Frame:
        return Frame.of_slide(self._tiles.slide(number).facts)

    def cohort(self, links: Links) -> str:
        """The page of all slides."""
        return cohort_page(self.run, links, self.against)

    def page(self, slide: SlideRow, links: Links, **how: Any) -> str:
        """The page of a slide: see `page_parts`."""
        return "".join(self.page_parts(slide, links, **how))

    def page_parts(
        self, slide: SlideRow, links: Links, *, told: int | None = None, pictured: Sequence[int] = ()
    ) -> Iterator[str]:
        """The page of a slide, in two parts; see `pipeline.view.slide_page.slide_page`.

        Args:
            slide: which has results.
            links: of the page.
            told: see `pipeline.view.findings.find`.
            pictured: patches of which there are pictures, where no server draws them.

        Raises:
            UsageError: nothing of it can be shown.
        """
        findings: Findings = find(slide, told)
        notes: list[str] = []
        background, tiles = WHITE, None
        try:
            facts = self._tiles.slide(slide.number).facts
            background = facts.background
            if links.served:
                tiles = Frame.of_slide(facts), links.picture(slide.number, "tile/{Z}/{X}/{Y}.jpg")
        except SlideError as exc:
            notes.append(f"{exc}. What is shown is what the run kept.")
        rings, given = self._of_others(slide, findings, notes)
        beside = self._beside(slide, findings, links, rings, tiles, given, notes)
        if beside is not None:  # both maps have the colours of one scale
            findings = find(slide, told, least={one.name: one.top for one in beside.findings.layers})
        findings = replace(findings, layers=[*findings.layers, *given])
        return slide_page(
            self.run,
            slide,
            findings,
            partial(self._figure, slide, findings, rings, links, tiles=tiles),
            links,
            notes=notes,
            background=background,
            patches=range(len(findings.samples.boxes)) if tiles and findings.samples is not None else pictured,
            tiled=tiles is not None,
            beside=beside,
        )

    def _of_others(
        self, slide: SlideRow, findings: Findings, notes: list[str]
    ) -> tuple[Sequence[Ring], Sequence[Layer]]:
        """Outlines and maps of a slide that somebody else made; why one is not shown goes to the notes."""
        rings: list[Ring] = []
        if findings.ground is None:
            if self._outlines is not None or self._maps.folders:
                notes.append("Outlines and maps of others are not shown, for samples.h5 would tell where they lie.")
            return rings, []
        if self._outlines is not None:
            try:
                rings = read_outlines(self._outlines / f"{slide.name}.geojson", findings.ground.origin)
            except UsageError as exc:
                notes.append(f"{exc}.")
        found = list(self._maps.of(slide, findings.ground))
        notes.extend(one for one in found if isinstance(one, str))
        return rings, [one for one in found if isinstance(one, Layer)]

    def _beside(
        self,
        slide: SlideRow,
        findings: Findings,
        links: Links,
        rings: Sequence[Ring],
        tiles: tuple[Frame, str] | None,
        given: Sequence[Layer],
        notes: list[str],
    ) -> Beside | None:
        """What the other run found of a slide; why there is nothing of it goes to the notes."""
        if self.against is None or self.beside is None:
            return None
        other = self.against.slides.get(slide.number)
        if other is None:
            notes.append(f"Nothing is beside this slide: {self.against.why[slide.number]}.")
            return None
        if other.folder is None:
            notes.append(
                f"Nothing is beside this slide: the other run has no result of it ({other.row.get('status')})."
            )
            return None
        name = (
            findings.samples.names[findings.told] if findings.samples is not None and findings.samples.names else None
        )
        try:
            found = find(other, name, least={one.name: one.top for one in findings.layers})
        except UsageError as exc:
            notes.append(f"Nothing is beside this slide: {exc}.")
            return None
        if found.frame != findings.frame:
            notes.append("Nothing is beside this slide: the other run has it at another size or resolution.")
            return None
        notes.extend(f"Of the other run: {one}" for one in found.missing)
        found = replace(found, layers=[*found.layers, *given])
        theirs = Links(links.served, links.up, "o")
        figure = partial(self.beside._figure, other, found, rings, theirs, tiles=tiles, target=BESIDE)
        return Beside(self.beside.run, other, found, figure, theirs)

    def _figure(
        self,
        slide: SlideRow,
        findings: Findings,
        rings: Sequence[Ring],
        links: Links,
        *,
        tiles: tuple[Frame, str] | None,
        target: str = TARGET,
    ) -> dict[str, object]:
        thumbnail = links.picture(slide.number, "overview.jpg") if findings.thumbnail is not None else None
        if thumbnail is not None and not links.served:  # browsers let no picture into a page's canvas from a file
            data = self.overview(slide, LARGE_PX)
            thumbnail = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else None
        return figure_json(findings, rings, tiles=tiles, thumbnail=thumbnail, target=target)

    def tile(self, number: int, zoom: int, column: int, row: int) -> bytes | None:
        """A tile as JPEG; None where it holds nothing of the slide. Where the slide lacks coarse levels and the run's
        thumbnail is as fine, it is of that.

        Raises:
            SlideError: it cannot be read.
        """
        slide, frame = self._tiles.slide(number), self._frame(number)
        raster = frame.tile(zoom, column, row)
        if raster is not None and level_pixels(slide, raster) > MOST_PIXELS:
            found = self._of_thumbnail(number, raster, slide.facts.background)
            if found is not None:
                return found
        return self._tiles.tile(number, frame, zoom, column, row)

    def _of_thumbnail(self, number: int, raster: Raster, background: tuple[int, int, int]) -> bytes | None:
        folder = self.run.slides[number].folder
        commit = read_commit(folder) if folder is not None else None
        if folder is None or commit is None:
            return None
        place = thumbnail_place(folder, inner(commit, "pictures"))
        if place is None or raster.scale_x < place.scale_x * (1 - LEVEL_TOLERANCE):
            return None
        return part(folder, place, raster, background)

    def patch(self, slide: SlideRow, number: int) -> bytes | None:
        """A patch that was read, at level 0, as JPEG; None where there is no such patch.

        Raises:
            SlideError: it cannot be read.
        """
        assert slide.folder is not None
        try:
            boxes = read_samples(slide.folder / "samples.h5").boxes
        except (OSError, KeyError, ValueError, TypeError):
            return None
        if not 0 <= number < len(boxes):
            return None
        return self._tiles.region(slide.number, patch_raster(self._frame(slide.number), boxes[number].tolist()))

    def more_state(self, slide: SlideRow, told: int | None, shown: int = 0) -> dict[str, object]:
        """How reading more of a slide stands, for its page; see `pipeline.view.more_page.more_state`."""
        return more_state(self.run, slide, self.more, Links(served=True, up="../../"), told, shown)

    def patch_since(self, slide: SlideRow, times: int, number: int) -> bytes | None:
        """The same of those that were read since the run, as they were numbered after so many times; None where there
        is no such patch.

        Raises:
            SlideError: it cannot be read.
        """
        since = self.more.since(slide)
        samples = since.samples if since is not None and len(since.boxes) == times else None
        if samples is None or not 0 <= number < len(samples.boxes):
            return None
        return self._tiles.region(slide.number, patch_raster(self._frame(slide.number), samples.boxes[number].tolist()))

    def overview(self, slide: SlideRow, most: int) -> bytes | None:
        """The thumbnail of the run as JPEG, at most so many pixels along a side; None where there is none."""
        assert slide.folder is not None
        return overview(slide.folder, most)

    @property
    def held(self) -> int:
        """Bytes of tiles that are kept."""
        return self._tiles.held


def level_pixels(slide: Slide, raster: Raster) -> float:
    """Pixels of the slide's level that lie under a pixel of a raster, whether they are decoded smaller or not."""
    place = raster.within(slide.facts.levels[choose_level(slide.facts.levels, raster)])
    return place.scale_x * place.scale_y


def patch_raster(frame: Frame, box: Sequence[float]) -> Raster:
    """The raster of a patch's picture: square pixels of level 0, or coarser where that would be too many."""
    x, y, width, height = box
    scale = max(1.0, width * frame.fx / PATCH_PX, height * frame.fy / PATCH_PX)
    scale_x, scale_y = scale / frame.fx, scale / frame.fy
    return Raster(x, y, scale_x, scale_y, max(1, round(width / scale_x)), max(1, round(height / scale_y)))


def asset(name: str) -> str | None:
    """A script or style of the pages; None where there is none of that name."""
    return bokeh_script() if name == BOKEH else ASSETS.get(name)


def refuse_no_folder(folder: Path, option: str) -> None:
    """Refuse what was given as a folder and is none.

    Raises:
        UsageError: so it is.
    """
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder {folder}: name one that is there, or leave {option} out")
