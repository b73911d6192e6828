"""Folders of the hub: found in every form, filled where there is a network; else the command that fills them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from encoders import needs

from stages.encoder.hub import HubError, Snapshot, fetch, find_snapshot, snapshot_at, wanted_file

COMMIT = "c" * 40
FILES = {"config.json": b'{"architecture": "resnet18"}', "model.safetensors": b"weights", "pytorch_model.bin": b"too"}


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or FILES:
        (folder / name).write_bytes(FILES.get(name, b"weights"))
    return folder


def test_a_model_is_found_in_the_hubs_cache(tmp_path: Path) -> None:
    """The commit that its main branch is at, whichever was fetched last; another only if it is asked for."""
    cached = tmp_path / "models--a--b"
    old, new = fill(cached / "snapshots" / ("o" * 40)), fill(cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    os.utime(old, (2**31, 2**31))
    assert find_snapshot("a/b", hub=tmp_path) == Snapshot(new, COMMIT) == snapshot_at(cached)
    assert find_snapshot("a/b", hub=tmp_path, revision="o" * 40) == Snapshot(old, "o" * 40)
    assert find_snapshot("a/b", hub=tmp_path, revision="x" * 40) is None
    assert find_snapshot("a/c", hub=tmp_path) is None


def test_a_model_is_found_in_a_plain_folder_with_its_commit(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a" / "b")
    assert find_snapshot("a/b", hub=tmp_path) == Snapshot(folder, None)
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "config.json.metadata").write_text(f"{COMMIT}\netag\n123.4\n")
    assert find_snapshot("a/b", hub=tmp_path) == Snapshot(folder, COMMIT)


def test_the_hubs_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, below in (("XDG_CACHE_HOME", "huggingface/hub"), ("HF_HOME", "hub"), ("HF_HUB_CACHE", "")):
        fill(tmp_path / name / below / "models--a--b" / "snapshots" / name)
        monkeypatch.setenv(name, str(tmp_path / name))
        found = find_snapshot("a/b")
        assert found is not None
        assert found.revision == name


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["README.md", "pytorch_model.bin", "model.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "slide_encoder.pth"], "pytorch_model.bin"),
        (["teacher_checkpoint.pth", "README.md"], "teacher_checkpoint.pth"),
        (["a.pth", "b.pth"], None),
        (["README.md"], None),
    ],
)
def test_the_file_that_is_meant(names: list[str], wanted: str | None) -> None:
    assert wanted_file(names) == wanted


def test_weights_in_several_files_are_all_wanted(tmp_path: Path) -> None:
    parts = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    fill(tmp_path, *parts)
    index = {"weight_map": {"a": parts[0], "b": parts[1], "c": parts[0]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in Snapshot(tmp_path).weights] == parts
    (tmp_path / parts[1]).unlink()
    with pytest.raises(HubError, match=r"lacks model-2-of-2.safetensors, one of its 2 files"):
        _ = Snapshot(tmp_path).weights


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "config.json")
    with pytest.raises(HubError, match=r"has no weights; expected model.safetensors or .*, found config.json"):
        _ = Snapshot(tmp_path).weights
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(HubError, match="is no JSON"):
        _ = Snapshot(tmp_path).config


class Hub(BaseHTTPRequestHandler):
    """What the hub answers, of one open model, ``open/model``, and one that is gated, ``gated/model``."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        listing = [
            {"rfilename": name, "type": "file", "path": name, "oid": name, "size": len(FILES[name])} for name in FILES
        ]
        if path.startswith("/api/models/") and "/tree/" in path:
            return self._send(json.dumps(listing).encode())
        if path.startswith("/api/models/") and "nothing" not in path:
            return self._send(json.dumps({"id": "x", "sha": COMMIT, "siblings": listing}).encode())
        if path.startswith("/gated/model/resolve/"):
            return self._send(b"", 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask for it"})
        name = path.rpartition("/")[2]
        if path.startswith("/open/model/resolve/") and name in FILES:
            headers = {"ETag": f'"{sha256(FILES[name]).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self._send(FILES[name], headers=headers)
        return self._send(b"", 404, {"X-Error-Code": "RepoNotFound"})

    def _send(self, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    needs("huggingface_hub", "huggingface_hub")
    return monkeypatch


def _point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub's client asks: it reads its environment when it is imported."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)


def test_where_there_is_a_network_a_model_is_fetched_once(
    tmp_path: Path, hub: str, endpoint: pytest.MonkeyPatch
) -> None:
    """Its configuration and one form of its weights; the second time nothing is asked."""
    _point_at(hub, endpoint)
    found = fetch("open/model", hub=tmp_path)
    assert found.revision == COMMIT
    assert {path.name for path in found.folder.iterdir()} == {"config.json", "model.safetensors"}
    assert found.weights[0].read_bytes() == b"weights"
    _point_at("http://127.0.0.1:9", endpoint)
    assert fetch("open/model", hub=tmp_path) == found


@pytest.mark.parametrize(
    ("repo", "words"),
    [
        ("gated/model", r"keeps it from who has not accepted its licence; .* at https://huggingface.co/gated/model, "),
        ("a/nothing", r"the hub has none of that name, or not for you; to fill it: `hf download a/nothing"),
    ],
)
def test_what_the_hub_refuses_is_told(
    tmp_path: Path, hub: str, endpoint: pytest.MonkeyPatch, repo: str, words: str
) -> None:
    _point_at(hub, endpoint)
    with pytest.raises(HubError, match=words) as caught:
        fetch(repo, hub=tmp_path)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_folder_and_its_command_are_told(tmp_path: Path, endpoint: pytest.MonkeyPatch) -> None:
    _point_at("http://127.0.0.1:9", endpoint)
    place = tmp_path / "a" / "b"
    with pytest.raises(HubError, match=rf"a/b is not in {place}, .*`hf download a/b --local-dir {place}`"):
        fetch("a/b", hub=tmp_path)


def test_without_the_hubs_client_the_same_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"without huggingface_hub nothing is fetched; .*accept its licence at .*a/b"):
        fetch("a/b", hub=tmp_path, gated=True)
