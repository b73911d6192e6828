"""A slide's page in a real browser, in a few seconds: what else it must do, test_browser.py has."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import NEEDED, Watched, showing

from pipeline.view.run_folder import open_run
from pipeline.view.viewer import Viewer

pytestmark = [pytest.mark.skipif(find_spec("bokeh") is None, reason="bokeh is not installed"), *NEEDED]


def test_it_loads_zooms_and_toggles_and_asks_nobody_else(chromium: Any, viewed: Path, tmp_path: Path) -> None:
    given = np.zeros((24, 32))
    given[8:16, 8:24] = 0.5
    np.save(tmp_path / "even.npy", given)
    watched = Watched(chromium, viewport={"width": 900, "height": 700})
    with showing(watched, Viewer(open_run(viewed), maps={"<b>theirs": tmp_path})) as address:
        watched.open(address)
        watched.page.click("td.name a")
        watched.page.wait_for_selector("body.slide[data-ready]")
        watched.page.keyboard.press("+")
        watched.until("performance.getEntriesByType('resource').some(one => one.name.includes('/tile/'))")
        watched.page.keyboard.press("o")
        assert watched.model("m('attention').visible") is False
        watched.page.keyboard.press("e")
        watched.page.keyboard.press("e")
        assert watched.model("[m('attention'), m('evidence'), m('given-0')].map(one => one.visible)") == [
            *(False, False, True)
        ]
        assert watched.page.locator("#choice input:checked").evaluate("one => one.parentNode.innerText").strip() == (
            "<b>theirs"
        )
        opaque = "m('given-0-colours').palette.filter(c => !c.endsWith('00')).length"
        watched.page.locator("#threshold").fill("200")
        assert watched.model(opaque) == 56
        assert watched.page.locator("#ticks").inner_text().split() == ["0", "0.25", "0.5"]
        assert watched.page.locator("#keys-more").is_visible(), "more can be read here"
        assert all(one.startswith((address, "data:")) for one in watched.asked)
    watched.page.close()
    assert watched.complaints == []
