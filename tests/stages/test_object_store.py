"""Requests to a store end, are repeated where that may help, and fail in one true line; against a real web server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.registry import _registry

from stages import object_store
from stages.install import from_folder
from stages.passing import UnreadableError

DATA = bytes(range(100))


class Server(BaseHTTPRequestHandler):
    """Answers by the first part of the path: a status, ``plain`` (no ranges), ``ranges`` (no suffixes) or ``slow``."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self._answer(200, b"", length=len(DATA))

    def do_GET(self) -> None:
        kind, asked = self.path.split("/")[1], self.headers.get("Range")
        self.asked.append((self.path, asked))
        if kind == "slow":
            time.sleep(0.6)
            self.close_connection = True
        elif kind.isdecimal():
            self._answer(int(kind), b"")
        elif kind == "once":
            self._answer(503 if len(self.asked) == 1 else 200, DATA)
        elif kind == "ranges" and asked is not None:
            start, end = asked.removeprefix("bytes=").split("-")
            self._answer(206, DATA[int(start) : int(end) + 1]) if start else self._answer(400, b"")
        else:
            self._answer(200, DATA)

    def _answer(self, status: int, body: bytes, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="https:// needs aiohttp, of the extra `cloud`")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "WAITS", (0.0, 0.0))
    Server.asked.clear()


@pytest.mark.parametrize(
    ("path", "words", "passing", "tries"),
    [
        ("403/x", "its store refuses access (403 Forbidden): have it granted", False, 1),
        ("401/x", "its store refuses access (401 Unauthorized)", False, 1),
        ("429/x", "answers '429 Too Many Requests', several times: try again later", True, 3),
        ("500/x", "answers '500 Internal Server Error', several times", True, 3),
        ("400/x", "answers '400 Bad Request': correct the address", False, 1),
    ],
)
def test_what_a_server_answers_is_told_and_tried_again_where_it_may_pass(address, path, words, passing, tries):
    with pytest.raises(UnreadableError) as caught:
        object_store.read(f"{address}/{path}")
    assert str(caught.value).startswith(f"{address}/{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (caught.value.passing, len(Server.asked)) == (passing, tries)


def test_what_passes_costs_a_try_and_nothing_else(address):
    assert object_store.read(f"{address}/once/x") == DATA


def test_what_is_not_there_is_asked_for_once(address):
    with pytest.raises(FileNotFoundError):
        object_store.read(f"{address}/404/x")
    assert len(Server.asked) == 1


def test_a_server_that_does_not_answer_is_not_waited_for(address, monkeypatch):
    monkeypatch.setattr(object_store, "LIMIT", 0.2)
    with pytest.raises(UnreadableError, match="no answer within 0 s: try again later") as caught:
        object_store.read(f"{address}/slow/x")
    assert caught.value.passing


def test_nobody_there_is_no_damage():
    with pytest.raises(UnreadableError, match="cannot be reached") as caught:
        object_store.read("http://127.0.0.1:9/x")
    assert caught.value.passing


def test_parts_are_those_that_were_asked_for(address):
    """Also of a server that knows none from the end; one that sends all instead is refused, but for the beginning."""
    assert object_store.read(f"{address}/ranges/x", start=3, end=5) == DATA[3:5]
    assert object_store.read(f"{address}/ranges/x", start=-4) == DATA[-4:]
    assert object_store.read(f"{address}/plain/x", end=7, start=0) == DATA[:7]
    with pytest.raises(UnreadableError, match="of 2 bytes that were asked for came 100, as its server knows no parts"):
        object_store.read(f"{address}/plain/x", start=3, end=5)


def test_a_store_that_cannot_be_spoken_to_says_what_is_missing(monkeypatch):
    with pytest.raises(UnreadableError, match="nix:// is no kind of store that is known"):
        object_store.read("nix://a/b")
    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UnreadableError) as caught:
        object_store.read("s3://a/b")
    assert str(caught.value) == f"s3://a/b: s3:// needs the package s3fs: {from_folder('cloud')}"


def test_objects_are_listed_put_and_removed():
    base = "memory://listed/in"
    for name in ("b/1", "b/2", "c"):
        object_store.put(f"{base}/{name}", DATA)
    object_store.put("memory://listed/inside", DATA)  # begins alike, and lies elsewhere
    assert object_store.listed(base) == {"b/1": 100, "b/2": 100, "c": 100}
    assert object_store.children(base) == [("b", True), ("c", False)]
    assert (object_store.size(f"{base}/c"), object_store.size(f"{base}/b"), object_store.size(f"{base}/x")) == (
        100,
        None,
        None,
    )
    object_store.remove(f"{base}/c")
    object_store.remove(f"{base}/c")
    assert not object_store.exists(f"{base}/c")
    assert object_store.listed("memory://nowhere/x") == {}
    with pytest.raises(FileNotFoundError):
        object_store.children("memory://nowhere/x")
    fsspec.filesystem("memory").rm("/listed", recursive=True)


def test_a_web_server_s_folders_are_not_guessed_at(address):
    assert object_store.listed(f"{address}/plain") is None
    with pytest.raises(UnreadableError, match="lists no folders: name each image by its URL"):
        object_store.children(f"{address}/plain")
