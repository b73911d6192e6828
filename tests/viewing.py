"""Runs that are looked at over HTTP."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.view.run_folder import RunFolder, open_run
from pipeline.view.server import listen, serve
from pipeline.view.viewer import Viewer
from stages.pyramid.open import open_pyramid

HOSTILE = '<script>alert("x")</script>&\'\n$name ${name}'
"""What must come out of a page as it went in."""


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a JSON document says."""
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def point_at(run: Path, name: str, slide: Path) -> None:
    """Have the result of a slide be one of another file."""
    commit = run / "slides" / name / "prediction.json"
    told = json.loads(commit.read_text())
    told |= {"path": str(slide), "fingerprint": open_pyramid(slide).facts.fingerprint}
    commit.write_text(json.dumps(told))


@contextmanager
def served(viewer: Viewer) -> Iterator[str]:
    """The address of a server in a thread, with its token."""
    with serving(viewer) as (address, _):
        yield address


@contextmanager
def serving(viewer: Viewer) -> Iterator[list[str]]:
    """Both addresses of a server in a thread: see `pipeline.view.server.serve`."""
    ready, found = threading.Event(), []
    loop = asyncio.new_event_loop()

    def began(*addresses: str) -> None:
        found.extend(addresses)
        ready.set()

    async def until_cancelled() -> None:
        with suppress(asyncio.CancelledError):
            await serve(viewer, listen(None), began)

    task = loop.create_task(until_cancelled())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    try:
        assert ready.wait(30)
        yield found
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()


def get(address: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer, whatever its status."""
    request = urllib.request.Request(address, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read(), dict(exc.headers)


def data_in(page: str) -> dict[str, Any]:
    """What the page of a slide gives its script."""
    [text] = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
    told: dict[str, Any] = json.loads(text)
    return told


def hostile(run: Path) -> RunFolder:
    """The same run whose table, record, labels and words have hostile names wherever a text can stand."""
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"predicted": HOSTILE, "path": f"/{HOSTILE}", "warnings": HOSTILE, "call": HOSTILE, "call_why": HOSTILE}
    rows[3] |= {"slide_id": HOSTILE, "error": HOSTILE, "status": HOSTILE}
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)
    told = json.loads((run / "run.json").read_text())
    told |= {"cohort": HOSTILE, "model": HOSTILE, "warning": HOSTILE}
    told["labels"]["even"]["label"] = HOSTILE
    (run / "run.json").write_text(json.dumps(told))
    commit = json.loads((run / "slides/even/prediction.json").read_text())
    commit["words"] = dict.fromkeys(commit["words"], HOSTILE)
    (run / "slides/even/prediction.json").write_text(json.dumps(commit))
    return open_run(run)
