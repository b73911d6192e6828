"""The picture of a slide as a Bokeh figure: tiles or the thumbnail, maps over it, outlines, the patches that were read.

Bokeh is imported when a figure is asked for, and need not be installed for anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.view.findings import Findings
from pipeline.view.frame import Frame
from pipeline.view.outlines import Ring
from pipeline.view.samples import Samples
from stages.install import from_folder
from stages.overlay.evidence_picture import AGAINST, FOR

PLAIN = (20, 20, 20)
"""Of the outline of a patch that says nothing either way."""
OUTLINE, CHOSEN = "#00a6d6", "#d6006e"
"""Of outlines that were given, and of the patch that is looked at."""
FINEST = 32
"""Level-0 pixels across the screen, at the least."""
BOKEH = "bokeh.js"
"""What pages call Bokeh's own script."""
SIDES = ("left", "right", "top", "bottom")
"""Columns of where a square lies."""
TARGET = "figure"
"""The element that the figure goes into."""
BESIDE = "figure-beside"
"""The element of another run's figure."""


def import_bokeh() -> Any:
    """The package.

    Raises:
        ImportError: it is missing or broken.
    """
    try:
        import bokeh.embed
        import bokeh.models
        import bokeh.plotting
        import bokeh.resources
    except Exception as exc:  # whatever a broken package raises
        missing = isinstance(exc, ModuleNotFoundError)
        remedy = from_folder("view") if missing else "pip install --force-reinstall bokeh"
        raise ImportError(
            f"`saccade view` needs bokeh, which cannot be imported ({' '.join(str(exc).split())}); install it"
            f"{'' if missing else ' again'}: {remedy}"
        ) from exc
    return bokeh


@lru_cache(maxsize=1)
def bokeh_script() -> str:
    """Bokeh's own JavaScript, as its package brings it."""
    [script] = import_bokeh().resources.Resources(mode="inline", components=["bokeh"]).js_raw[:1]
    return str(script)


def figure_json(
    findings: Findings,
    outlines: Sequence[Ring],
    *,
    tiles: tuple[Frame, str] | None,
    thumbnail: str | None,
    target: str = TARGET,
) -> dict[str, Any]:
    """What Bokeh's page script draws into an element. Its models have names: those of maps, ``patches``,
    ``marks``, ``outlines``, ``places`` and ``chosen`` are renderers, ``<map>-colours`` the maps' colours, ``samples``
    the patches' source, and ``places-source`` and ``chosen-source`` those of where more is read, or may be.

    Args:
        findings: of the slide.
        outlines: rings of level-0 corners.
        tiles: how they are counted, and their address with {Z}, {X} and {Y}; None where the slide cannot be read.
        thumbnail: address of the thumbnail.
        target: the element that it goes into.
    """
    bokeh = import_bokeh()
    models, frame = bokeh.models, findings.frame
    width, height = frame.size
    limits = {"min_interval": FINEST, "max_interval": 8 * max(width, height)}
    plot = bokeh.plotting.figure(
        name="plot",
        x_range=models.Range1d(0, width, **limits),
        y_range=models.Range1d(-height, 0, **limits),
        sizing_mode="stretch_both",
        toolbar_location=None,
        tools=[models.PanTool(), models.WheelZoomTool(), models.TapTool()],
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border=0,
        output_backend="canvas",
    )
    plot.axis.visible = False
    plot.grid.visible = False
    plot.toolbar.active_scroll = plot.tools[1]
    if thumbnail is not None and findings.thumbnail is not None:
        left, lower, right, upper = frame.extent(findings.thumbnail)
        plot.image_url(
            url=[thumbnail], x=left, y=upper, w=right - left, h=upper - lower, anchor="top_left", level="image"
        )
    if tiles is not None:
        plot.add_tile(tile_source(bokeh, *tiles), smoothing=True, level="image")
    for number, layer in enumerate(findings.layers):
        left, lower, right, upper = frame.extent(layer.raster)
        hidden = ["#00000000"] * len(layer.colours)  # until the page's script has said how much is shown
        mapper = models.LinearColorMapper(name=f"{layer.name}-colours", palette=hidden, low=-0.5, high=255.5)
        plot.image(
            image=[np.flipud(layer.steps)],
            x=left,
            y=lower,
            dw=right - left,
            dh=upper - lower,
            color_mapper=mapper,
            name=layer.name,
            visible=number == 0,
            level="underlay" if tiles is None and thumbnail is None else "glyph",
        )
    if outlines:
        plot.multi_line(
            xs=[[x * frame.fx for x, _ in ring] for ring in outlines],
            ys=[[-y * frame.fy for _, y in ring] for ring in outlines],
            line_color=OUTLINE,
            line_width=2,
            name="outlines",
        )
    if findings.samples is not None:
        _draw_patches(plot, models, findings)
    if tiles is not None:
        _draw_places(plot, models)
    item: dict[str, Any] = bokeh.embed.json_item(plot, target)
    return item


def tile_source(bokeh: Any, frame: Frame, address: str) -> Any:
    """Bokeh's source of a frame's tiles.

    It shows a tile over up to twice as many screen pixels as it is wide by the source; so its tiles are said to be half
    as wide as they are, and nothing is shown coarser than the screen.
    """
    half = frame.side // 2
    coarsest = 2.0 ** (frame.top + 1)
    # rows are counted from above: Bokeh counts y from the lower end of zoom 0, which lies this far below the corner
    return bokeh.models.WMTSTileSource(
        url=address,
        tile_size=half,
        min_zoom=0,
        max_zoom=frame.top,
        initial_resolution=coarsest,
        x_origin_offset=0,
        y_origin_offset=half * coarsest,
        wrap_around=False,
        attribution="",
    )


def _draw_patches(plot: Any, models: Any, findings: Findings) -> None:
    assert findings.samples is not None
    source = models.ColumnDataSource(patch_columns(findings.samples, findings.frame, findings.told), name="samples")
    chosen = {"selection_line_color": CHOSEN, "selection_line_width": 4, "nonselection_line_alpha": 1}
    look = {"fill_alpha": 0.0, "nonselection_fill_alpha": 0.0, "selection_fill_alpha": 0.0, "line_width": 2.5}
    sides = {side: side for side in SIDES}
    plot.quad(**sides, source=source, line_color="colour", name="patches", **look, **chosen)
    plot.scatter("u", "v", marker="square", size=8, source=source, line_color="colour", name="marks", **look, **chosen)


def _draw_places(plot: Any, models: Any) -> None:
    """Where more is read, or may be: nothing at first."""
    for name, dash, colour in (("places", "solid", OUTLINE), ("chosen", "dashed", CHOSEN)):
        source = models.ColumnDataSource({side: [] for side in SIDES}, name=f"{name}-source")
        look = {"fill_color": colour, "fill_alpha": 0.06, "line_color": colour, "line_width": 2, "line_dash": dash}
        plot.quad(**{side: side for side in SIDES}, source=source, name=name, **look)


def patch_columns(samples: Samples, frame: Frame, told: int) -> dict[str, Any]:
    """Where the squares of patches lie on the screen, and their colours, by the columns of the source ``samples``.

    Args:
        samples: the patches.
        frame: of the slide.
        told: whose evidence colours them, by its place among the samples' names.
    """
    x, y, width, height = samples.boxes.T
    said = samples.contributions[:, told] if samples.names else np.zeros(len(x))
    doubt = samples.half_widths[:, told] if samples.names else np.zeros(len(x))
    colours = [_hex(FOR if s > 0 else AGAINST) if abs(s) > d else _hex(PLAIN) for s, d in zip(said, doubt, strict=True)]
    return {
        "left": x * frame.fx,
        "right": (x + width) * frame.fx,
        "top": -y * frame.fy,
        "bottom": -(y + height) * frame.fy,
        "u": (x + width / 2) * frame.fx,
        "v": -(y + height / 2) * frame.fy,
        "colour": colours,
    }


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
