"""What is a URL and what a path, and which URLs are not taken."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from stages.place import NotLocalError, Url, local, place, refusal_of, true_name


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("s3://bucket/a.ome.zarr/", Url("s3://bucket/a.ome.zarr")),
        (Path("s3://bucket/a b.zarr"), Url("s3://bucket/a b.zarr")),
        ("HTTPS://host:1/x", Url("https://host:1/x")),
        ("memory://a", Url("memory://a")),
        ("file:///data/a.svs", Path("/data/a.svs")),
        ("a.svs", Path("a.svs")),
        ("folder/s3://x", Path("folder/s3://x")),
        ("C:/slides/a.svs", Path("C:/slides/a.svs")),
        ("10:20/a.svs", Path("10:20/a.svs")),
    ],
)
def test_an_address_is_known_by_its_kind_also_after_a_path_took_a_slash(given, found):
    assert place(given) == found


def test_a_folder_that_is_called_like_a_kind_of_store_stays_one(tmp_path, monkeypatch):
    (tmp_path / "s3:").mkdir()
    monkeypatch.chdir(tmp_path)
    assert place(Path("s3:/a.zarr")) == Path("s3:/a.zarr")
    assert place("s3://a.zarr") == Url("s3://a.zarr")


def test_a_url_s_parts_go_by_the_names_of_a_path_s():
    url = Url("s3://bucket/in/a.ome.zarr")
    assert (url.name, url.stem, url.suffix, url.kind) == ("a.ome.zarr", "a.ome", ".zarr", "s3")
    assert (url.parent, url.parent.parent, url.parent.parent.parent) == (
        Url("s3://bucket/in"),
        Url("s3://bucket"),
        Url("s3://bucket"),
    )
    assert url.with_name("b") / "0" == Url("s3://bucket/in/b/0")
    assert pickle.loads(pickle.dumps(url)) == url
    assert true_name(url) == str(url)


def test_nothing_looks_for_a_url_on_a_disk():
    with pytest.raises(TypeError):
        Path(Url("s3://bucket/a"))  # type: ignore[arg-type]
    with pytest.raises(NotLocalError, match="s3://bucket/a: tables lie on disks"):
        local(Url("s3://bucket/a"), "tables lie on disks")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://me:secret@host/a.zarr", "holds a password"),
        ("https://host/a.zarr?signature=x", "goes on after a ?"),
        ("https://host/a.zarr#x", "goes on after a #"),
        ("s3://bucket/a?b#c.zarr", None),
        ("abfs://container@account.dfs.core.windows.net/a.zarr", None),
    ],
)
def test_urls_with_secrets_or_queries_are_refused_without_repeating_them(text, words):
    why = refusal_of(Url(text))
    assert (why is None) == (words is None)
    assert why is None or (words in why and "secret" not in why and "signature" not in why)
