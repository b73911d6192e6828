"""The feature store: what a frozen encoder made of a patch, so that no patch is encoded twice on a machine.

A slide's features lie in files that are only ever added, a file a call, in a `FileCache`; where they grow many, small
ones are made into one, which is there before they go. Threads, processes and runs may share a store: at worst two
encode the same patch at the same time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.disk import temporary_files
from stages.encoder.feature_table import FeatureTable, Values, narrowed, packed, unpacked, widened
from stages.file_cache import FileCache

FORMAT = 1
"""Version of what lies in the folder and of how patches are read; files of another one are never used."""

FILES = 16
"""Files that a slide's features may lie in before small ones are made into one."""
MERGED = 8
"""Files that are then made into one, the smallest: each feature is written again about log(files) times in all."""
TOUCH_SECONDS = 60
"""How long what is in memory may be used before its files are marked as used."""


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """All that decides what the feature of cell ``i`` is.

    Attributes:
        content: the slide's, see `SlideFacts.content`.
        encoder: digest of the frozen network, its weights, its read-out and its preprocessing.
        dim: length of a feature.
        mpp: micrometres per pixel of a patch.
        px: pixels along a patch's side.
        place: what decides which tissue cell ``i`` shows, in level-0 pixels: `PatchReader.place`.
    """

    content: str
    encoder: str
    dim: int
    mpp: float
    px: int
    place: tuple[str | float, ...]

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that stand for the key."""
        place = tuple(part if isinstance(part, str) else float(part) for part in self.place)
        told = (self.content, self.encoder, int(self.dim), float(self.mpp), int(self.px), place)
        return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()


class FeatureStore:
    """Features by `FeatureKey` and cell, on disk and, of the slides used last, in memory.

    Features are kept as float16; one that this would change by more than ``2^-10`` of its largest value, as where that
    is beyond 65504, is kept as float32. What `get` gives never depends on where it came from.

    Use `feature_store`, which keeps one for each folder and process.

    Args:
        folder: where; made when the first feature is put. What else is in it is never touched.
        gigabytes: that the files may fill; then the least recently used go.
        memory_gigabytes: that a process keeps in memory, of the slides used last and always of the last one.

    Attributes:
        hits: features that `get` knew.
        encoded: features that were put.
    """

    def __init__(self, folder: Path, *, gigabytes: float = 20.0, memory_gigabytes: float = 1.0) -> None:
        self.folder, self.gigabytes, self.memory_gigabytes = folder, gigabytes, memory_gigabytes
        self._files = FileCache(
            folder,
            round(gigabytes * 1e9),
            inner=f"saccade-features-{FORMAT}",
            names=r"[0-9a-f]{32}/[0-9a-f]{32}\.features",
            title="feature store",
        )
        self._lock = threading.RLock()
        self._memory: OrderedDict[FeatureKey, FeatureTable] = OrderedDict()
        self.hits = self.encoded = 0

    def __reduce__(self) -> tuple[Callable[..., FeatureStore], tuple[Path, float, float]]:
        return _feature_store, (self.folder, self.gigabytes, self.memory_gigabytes)

    @property
    def bytes(self) -> int:
        """What the files of all slides fill on the disk now."""
        return self._files.bytes

    def features(
        self,
        key: FeatureKey,
        cells: NDArray[np.int64],
        encode: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        *,
        at_once: int = 512,
    ) -> NDArray[np.float32]:
        """The features (N, D) of cells (N,), encoded and kept where they are not known.

        Args:
            key: whose they are.
            cells: in any order, any of them several times.
            encode: features (n, D) of cells (n,) in ascending order; called for those that are not known.
            at_once: cells of a call, so that little is lost when a run is killed.

        Raises:
            ValueError: as `put`.
        """
        known, found = self.get(key, cells)
        if not known.all():
            missing, inverse = np.unique(np.asarray(cells)[~known], return_inverse=True)
            fresh = np.empty((len(missing), key.dim), np.float32)
            for begin in range(0, len(missing), at_once):
                part = slice(begin, begin + at_once)
                fresh[part] = self.put(key, missing[part], encode(missing[part]))
            found[~known] = fresh[inverse]
        return found

    def get(self, key: FeatureKey, cells: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which of the cells (N,) are known, (N,), and the features (N, D); those of unknown ones are 0."""
        cells = np.asarray(cells, np.int64).reshape(-1)
        with self._lock:
            slide = self._slide(key)
            known, rows = slide.find(cells)
            if not known.all():
                self._load(key, slide)
                known, rows = slide.find(cells)
            if time.monotonic() > slide.touched + TOUCH_SECONDS:
                self._files.touch(slide.files)
                slide.touched = time.monotonic()
            self.hits += int(known.sum())
            return known, slide.take(known, rows)

    def put(self, key: FeatureKey, cells: NDArray[np.int64], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keep the features (N, D) of cells (N,), and return them as they are kept.

        Of a cell that is known already either value may be given later: both are of the same encoder and patch.

        Raises:
            ValueError: there is no feature a cell, or none of the key's length, or not all are finite.
        """
        cells = np.asarray(cells, np.int64).reshape(-1)
        features = np.asarray(features, np.float32)
        if features.shape != (len(cells), key.dim):
            raise ValueError(f"expected features of shape {(len(cells), key.dim)}, found {features.shape}")
        if not (finite := np.isfinite(features).all(axis=1)).all():
            raise ValueError(
                f"the encoder gave {int((~finite).sum())} of {len(cells)} patches a feature that is not finite, the "
                f"first for cell {cells[~finite][0]}: compute in float32 where it does so in half precision, or check "
                "its weights"
            )
        kept = narrowed(features)
        if len(cells):
            with self._lock:
                slide = self._slide(key)
                slide.add(cells, kept)
                self.encoded += len(cells)
                name = f"{key.digest}/{os.urandom(16).hex()}.features"
                if self._files.write(name, packed(cells, kept)):
                    slide.files.add(name)
                    self._merge(key, slide)
        return widened(kept)

    def _slide(self, key: FeatureKey) -> FeatureTable:
        """What this process knows of a key; forgets what was used least recently."""
        slide = self._memory.pop(key, None) or FeatureTable(key.dim)
        self._memory[key] = slide
        total = sum(known.nbytes for known in self._memory.values())
        while total > self.memory_gigabytes * 1e9 and len(self._memory) > 1:
            total -= self._memory.popitem(last=False)[1].nbytes
        return slide

    def _load(self, key: FeatureKey, slide: FeatureTable) -> None:
        """Take in what other processes wrote."""
        # files that were made into one while the folder was listed are in one that the next listing shows
        while new := set(self._files.sizes(key.digest)) - slide.files:
            for name in sorted(new):
                if (part := self._read(name, key.dim)) is not None:
                    slide.add(*part)
            slide.files |= new

    def _read(self, name: str, dim: int) -> tuple[NDArray[np.int64], Values] | None:
        payload = self._files.read(name)
        if payload is None:
            return None
        try:
            return unpacked(payload, dim)
        except ValueError as exc:
            self._files.drop(name, str(exc))
            return None

    def _merge(self, key: FeatureKey, slide: FeatureTable) -> None:
        """Make small files into one where there are many; they go when the disk holds it."""
        sizes = self._files.sizes(key.digest)
        if len(sizes) <= FILES:
            return
        names = sorted(sorted(sizes, key=lambda name: (sizes[name], name))[:MERGED])
        parts = [self._read(name, key.dim) for name in names]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return  # another process is at it, or one was damaged: the next call sees
        cells, first = np.unique(np.concatenate([cells for cells, _ in whole]), return_index=True)
        values = np.concatenate([values for _, values in whole])[first]
        # two processes that make the same files into one write the same file
        merged = hashlib.blake2b("".join(names).encode(), digest_size=16).hexdigest()
        name = f"{key.digest}/{merged}.features"
        if self._files.write(name, packed(cells, values), durable=True):
            slide.add(cells, values)  # what others wrote, too
            slide.files.add(name)
            self._files.remove(names)


def feature_store(folder: Path, *, gigabytes: float = 20.0, memory_gigabytes: float = 1.0) -> FeatureStore:
    """This process's `FeatureStore` of a folder and limits in gigabytes."""
    return _feature_store(folder, float(gigabytes), float(memory_gigabytes))


@functools.cache
def _feature_store(folder: Path, gigabytes: float, memory_gigabytes: float) -> FeatureStore:
    return FeatureStore(folder, gigabytes=gigabytes, memory_gigabytes=memory_gigabytes)


def default_feature_folder() -> Path:
    """Where features are kept unless told otherwise: in ``$SACCADE_CACHE``, or the user's own folder for caches."""
    chosen = os.environ.get("SACCADE_CACHE")
    return (Path(chosen) if chosen else _user_caches() / "saccade") / "features"


def _user_caches() -> Path:
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    told = Path(os.environ.get(variable, ""))
    if told.is_absolute():  # others are to be ignored: XDG Base Directory Specification
        return told
    try:
        home = Path.home()
    except RuntimeError:  # a container's user without a home
        return temporary_files()
    return home / {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
