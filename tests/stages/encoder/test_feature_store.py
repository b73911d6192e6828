"""The feature store: what was put, or nothing; whoever else is at work on it, and whatever became of the folder."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.encoder import feature_store as module
from stages.encoder.feature_store import FeatureKey, FeatureStore, default_feature_folder, feature_store
from stages.encoder.feature_table import narrowed, widened

KEY = FeatureKey("slide", "network", 6, 0.5, 224, (0.0, 0.0, 224.0, 224.0, 30, 20))
OTHER = replace(KEY, content="another")


def truth(key: FeatureKey, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the made-up encoder gives; some of it beyond float16."""
    cells = np.asarray(cells, np.int64)
    scale = np.where(cells % 10 == 9, 1e6, 1.0)
    return (np.sin(np.outer(cells + len(key.content), 1 + np.arange(key.dim))) * scale[:, None]).astype(np.float32)


def kept(key: FeatureKey, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    return widened(narrowed(truth(key, cells)))


def put(store: FeatureStore, cells: Any, key: FeatureKey = KEY) -> None:
    store.put(key, np.asarray(cells), truth(key, np.asarray(cells)))


def known(store: FeatureStore, cells: Any, key: FeatureKey = KEY) -> NDArray[np.bool_]:
    """Which are known; what is shown of them is what was put, and of others 0."""
    found, features = store.get(key, np.asarray(cells))
    expected = np.where(found[:, None], kept(key, np.asarray(cells)), 0)
    np.testing.assert_array_equal(features, expected, strict=True)
    return found


def files_in(store: FeatureStore) -> list[Path]:
    return sorted(path for path in store.folder.rglob("*") if path.is_file())


def again(store: FeatureStore) -> FeatureStore:
    """The same folder, in another process as it were."""
    return FeatureStore(store.folder)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


CELLS = st.lists(st.integers(0, 40), max_size=6)
ACTS = st.tuples(st.integers(0, 2), st.sampled_from(["put", "get", "restart"]), st.sampled_from([KEY, OTHER]), CELLS)


@settings(max_examples=30, deadline=None)
@given(acts=st.lists(ACTS, max_size=40))
def test_whatever_writers_put_is_given_exactly_or_is_unknown(
    acts: list[tuple[int, str, FeatureKey, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And what anyone put stays known, through files made into one and processes that end."""
    folder = tmp_path_factory.mktemp("shared")
    stores = [FeatureStore(folder, memory_gigabytes=memory) for memory in (1.0, 0.0, 1.0)]
    there: dict[FeatureKey, set[int]] = {KEY: set(), OTHER: set()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FILES", 3)
        patch.setattr(module, "MERGED", 2)
        for who, act, key, cells in acts:
            if act == "put":
                put(stores[who], cells, key)
                there[key] |= set(cells)
            elif act == "restart":
                stores[who] = again(stores[who])
            else:
                assert [c in there[key] for c in cells] == known(stores[who], cells, key).tolist()
    for key, cells in there.items():
        assert known(again(stores[0]), sorted(cells), key).all()


def test_only_what_is_not_known_is_encoded(store: FeatureStore) -> None:
    """Each cell once, in any order, in parts; by another process not at all."""
    asked: list[int] = []

    def encode(cells: NDArray[np.int64]) -> NDArray[np.float32]:
        assert len(cells) <= 4
        asked.extend(cells.tolist())
        return truth(KEY, cells)

    for cells in ([5, 3, 5, 9], [3, 4, 29, 5], range(30)):
        found = store.features(KEY, np.array(cells), encode, at_once=4)
        np.testing.assert_array_equal(found, kept(KEY, np.array(cells)), strict=True)
    assert sorted(asked) == list(range(30))
    again(store).features(KEY, np.arange(30), encode)
    assert len(asked) == 30
    assert (store.hits, store.encoded) == (2 + 5, 30)
    assert store.bytes == sum(path.stat().st_size for path in files_in(store))


@pytest.mark.parametrize(
    "change", [{"content": "b"}, {"encoder": "b"}, {"dim": 7}, {"mpp": 0.25}, {"px": 128}, {"place": (0.5,)}]
)
def test_another_slide_encoder_scale_or_place_is_unknown(store: FeatureStore, change: dict[str, Any]) -> None:
    put(store, [1])
    other = replace(KEY, **change)
    assert not known(store, [1], other).any()
    assert not known(again(store), [1], other).any()


def test_numbers_that_are_alike_make_the_same_key() -> None:
    assert replace(KEY, mpp=np.float64(0.5), px=np.int64(224), place=tuple(np.float64(KEY.place))).digest == KEY.digest


def test_many_small_files_become_few(store: FeatureStore) -> None:
    for cell in range(300):
        put(store, [cell])
    assert len(files_in(store)) <= module.FILES
    assert known(again(store), np.arange(300)).all()


def test_who_makes_others_files_into_one_knows_what_they_hold(store: FeatureStore) -> None:
    for cell in range(module.FILES):
        put(again(store), [cell])
    put(store, [100])
    assert len(files_in(store)) < module.FILES
    assert known(store, [*range(module.FILES), 100]).all()


def test_two_that_make_the_same_files_into_one_lose_nothing(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds that what it listed has gone."""
    for cell in range(module.FILES):
        put(store, [cell])
    second = again(store)
    listed = store._files.sizes(KEY.digest)
    put(store, [100])
    gone = {name: size for name, size in listed.items() if not (store.folder / "saccade-features-1" / name).exists()}
    monkeypatch.setattr(second._files, "sizes", lambda inside: listed)
    monkeypatch.setattr(module, "FILES", module.FILES - 1)
    assert len(gone) >= module.MERGED - 1
    put(second, [101])
    assert known(again(store), [*range(len(listed)), 100, 101]).all()


def test_a_reader_misses_nothing_while_files_are_made_into_one(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those it has listed go before it reads them."""
    for cell in range(module.FILES):
        put(store, [cell])
    before = files_in(store)
    reader = again(store)
    listed = reader._files.sizes

    def then_merged(inside: str) -> dict[str, int]:
        found = listed(inside)
        if files_in(store) == before:
            put(store, [100])
        return found

    monkeypatch.setattr(reader._files, "sizes", then_merged)
    assert known(reader, np.arange(module.FILES)).all()
    assert not set(before) <= set(files_in(store))


def write_and_read(store: FeatureStore, seed: int) -> None:
    """Put every cell in an order of one's own; what was once seen is seen from then on, and exactly."""
    order = np.random.default_rng(seed).permutation(400)
    seen = np.zeros(400, bool)
    for part in np.array_split(order, 40):
        found = store.features(KEY, part, lambda cells: truth(KEY, cells))
        np.testing.assert_array_equal(found, kept(KEY, part))
        now = known(FeatureStore(store.folder), np.arange(400))
        assert (now >= seen).all()
        assert now[part].all()
        seen = now


def test_processes_share_a_store(store: FeatureStore) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_and_read, args=(store, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert known(again(store), np.arange(400)).all()
    assert len(files_in(store)) <= module.FILES + len(workers)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """Another slide's features in its place."""
    path.write_bytes(next(p for p in path.parent.parent.glob("*/*") if p.parent != path.parent).read_bytes())


@pytest.mark.parametrize("damage", [cut, flip, empty, swap])
def test_a_damaged_file_is_told_of_and_encoded_again(
    store: FeatureStore, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for cells in ([1, 2], [3, 4]):
        put(store, cells)
    put(store, [5], OTHER)
    victim = next(path for path in files_in(store) if path.parent.name == KEY.digest)
    damage(victim)
    fresh = again(store)
    assert known(fresh, [1, 2, 3, 4]).sum() == 2
    (record,) = caplog.records
    assert str(victim) in record.getMessage()
    assert not victim.exists()
    found = fresh.features(KEY, np.arange(1, 5), lambda cells: truth(KEY, cells))
    np.testing.assert_array_equal(found, kept(KEY, np.arange(1, 5)))
    assert fresh.encoded == 2
    assert known(again(store), [1, 2, 3, 4]).all()


def test_the_slides_used_least_recently_go_at_the_limit(tmp_path: Path) -> None:
    """One that is in memory all the time counts as used, for other processes need it, too."""
    keys = [replace(KEY, content=str(i), dim=500) for i in range(30)]
    store = FeatureStore(tmp_path, gigabytes=1e-4)
    (tmp_path / "thesis.txt").write_bytes(bytes(10**6))
    (tmp_path / "saccade-features-1").mkdir()
    (tmp_path / "saccade-features-1" / "notes.txt").write_bytes(bytes(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TOUCH_SECONDS", 0)
        for key in keys:
            store.put(key, np.arange(10), np.ones((10, 500), np.float32))
            time.sleep(0.008)  # file systems tell times apart by ticks of the kernel's clock
            assert store.get(keys[0], np.arange(10))[0].all()
    assert store.bytes <= 1e5
    there = [i for i, key in enumerate(keys) if again(store).get(key, np.arange(10))[0].all()]
    assert there == [0, *range(31 - len(there), 30)]
    assert len(there) > 4
    assert (tmp_path / "thesis.txt").exists()
    assert (tmp_path / "saccade-features-1" / "notes.txt").exists()


def test_where_nothing_can_be_written_work_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one warning; and no patch is encoded twice by this process."""
    (tmp_path / "file").write_bytes(b"")
    store = FeatureStore(tmp_path / "file" / "features")
    for cells in ([1, 2], [3]):
        put(store, cells)
    assert known(store, [1, 2, 3, 4]).tolist() == [True, True, True, False]
    (record,) = caplog.records
    assert "feature store" in record.getMessage()
    assert "work goes on without" in record.getMessage()


def test_a_full_disk_loses_nothing(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    for cell in range(module.FILES):
        put(store, [cell])
    before = files_in(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # the largest file that this process may write
    try:
        put(store, [100])
        put(store, np.arange(200, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(before) <= set(files_in(store))
    assert len(caplog.records) == 1
    assert known(store, [*range(module.FILES), 100, *range(200, 300)]).all()
    assert known(again(store), np.arange(module.FILES)).all()


def test_memory_holds_the_slides_used_last(store: FeatureStore) -> None:
    """Others come from the disk again."""
    small = FeatureStore(store.folder, memory_gigabytes=1e-5)
    keys = [replace(KEY, content=str(i)) for i in range(20)]
    for key in keys:
        small.put(key, np.arange(100), truth(key, np.arange(100)))
    assert len(small._memory) < 12
    for key in keys:
        assert known(small, np.arange(100), key).all()


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (np.full((2, 6), np.nan), r"2 of 2 patches a feature that is not finite, the first for cell 7"),
        (np.array([[1.0] * 6, [np.inf] * 6]), r"1 of 2 .* the first for cell 8.*float32"),
        (np.ones((2, 5)), r"expected features of shape \(2, 6\), found \(2, 5\)"),
        (np.ones((3, 6)), r"found \(3, 6\)"),
    ],
)
def test_what_is_no_feature_is_refused(store: FeatureStore, features: NDArray[np.float64], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        store.put(KEY, np.array([7, 8]), features.astype(np.float32))
    assert not known(store, [7, 8]).any()


def test_it_pickles_by_path_and_each_process_keeps_one(tmp_path: Path) -> None:
    store = feature_store(tmp_path, gigabytes=20)
    assert feature_store(tmp_path) is store
    put(store, np.arange(500))
    assert len(pickle.dumps(store)) < 1024
    assert pickle.loads(pickle.dumps(store)) is store
    assert feature_store(tmp_path, gigabytes=5) is not store


@pytest.mark.skipif(os.name == "nt", reason="as on Linux")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SACCADE_CACHE": "/scratch", "XDG_CACHE_HOME": "/x"}, "/scratch/features"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/saccade/features"),
        ({"XDG_CACHE_HOME": "not/absolute", "HOME": "/h"}, "/h/.cache/saccade/features"),
        ({"HOME": "/h"}, "/h/.cache/saccade/features"),
    ],
)
def test_the_default_folder(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SACCADE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert default_feature_folder() == Path(expected)
