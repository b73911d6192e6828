"""Where a slide lies: a path on a disk, or a URL in a store of objects; and what a pyramid's reader asks of either.

Only OME-Zarr is read from stores, since its chunks are fetched one by one; whatever else reads files asks for a
`local` place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote, unquote_to_bytes, urlsplit

from stages import object_store
from stages.disk import new_file, open_to_read, read_at, read_regular
from stages.disk import reading as reading_file

_T = TypeVar("_T")
_Name = TypeVar("_Name")

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")


@total_ordering
class Url:
    """The address of an object, or of all that lie below it; its parts go by the names that those of a `Path` have.

    It is no path to the system, so that nothing looks for it on a disk by mistake.

    Args:
        text: as it is written, without a slash at its end.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Url({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    def __lt__(self, other: Url) -> bool:
        return self.text < other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __truediv__(self, inner: str) -> Url:
        return Url(f"{self.text}/{inner}")

    @property
    def kind(self) -> str:
        """Of its store, as "s3"."""
        return self.text.partition("://")[0]

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.text.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Of the name, from its last dot on."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> Url:
        """What it lies in; of a whole store itself."""
        above = self.text.rpartition("/")[0]
        return self if above.endswith("/") else Url(above)

    def with_name(self, name: str) -> Url:
        """What lies beside it by another name."""
        return self.parent / name


Place = Path | Url


class NotLocalError(Exception):
    """What is to be a file or folder of this machine is the address of an object; the message says what to do."""


def place(given: str | os.PathLike[str] | Place) -> Place:
    """What was given as a path or a URL; also where it went through a `Path`, which leaves one slash of two."""
    if isinstance(given, Url):
        return given
    text = os.fspath(given)
    found = _ADDRESS.match(text.replace("\\", "/") if os.sep == "\\" else text)
    if found is None or ("://" not in text and os.path.lexists(found[1] + ":")):
        return Path(given)
    kind, rest = found[1].lower(), text[found.end() :].replace("\\", "/").rstrip("/")
    if kind != "file":
        return Url(f"{kind}://{rest}")
    if "%" in rest and not os.path.lexists("/" + rest):
        rest = os.fsdecode(unquote_to_bytes(rest))
    return Path("/" + rest)


_UNTELLABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def told(path: str) -> str:
    """A path or URL as tables and pages have it: as it is, but where it holds what a terminal would obey (beside line
    breaks), or bytes that are no text, as a ``file://`` URL, which `place` takes."""
    if _UNTELLABLE.search(path) is None:
        return path
    return Path(path).as_uri() if os.path.isabs(path) else quote(os.fsencode(path), safe="/:@")


def tellable(text: str) -> str:
    """Text without what a terminal would obey but line breaks, or what is no text: it is written as an escape."""
    return _UNTELLABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def true_name(where: Place) -> str:
    """What tells a place from others, whatever links lead to it."""
    return where.text if isinstance(where, Url) else os.path.realpath(where)


def refusal_of(url: Url) -> str | None:
    """Why no URL of this form is taken, and what to do; None where it is."""
    parts = urlsplit(url.text)
    if parts.password:
        return (
            "the URL holds a password, which would stand in tables and logs: leave it out, and give it by the "
            "configuration of fsspec"
        )
    if url.kind in object_store.UNLISTED and (parts.query or parts.fragment):
        return (
            f"the URL goes on after a {'?' if parts.query else '#'}, but parts of an image lie below it: leave that "
            "out, and give what grants access by the configuration of fsspec"
        )
    return None


def local(where: Place, what: str) -> Path:
    """The path of what can lie on a disk only.

    Args:
        where: it is.
        what: it is, in words.

    Raises:
        NotLocalError: it is a URL.
    """
    if isinstance(where, Url):
        raise NotLocalError(f"{where}: {what}, not in a store of objects")
    return where


@contextmanager
def reading(where: Place) -> Iterator[None]:
    """See `stages.disk.reading`; what a store answers is said where it is asked."""
    if isinstance(where, Url):
        yield
    else:
        with reading_file(where):
            yield


def read(where: Place) -> bytes:
    """All of a file or an object.

    Raises:
        OSError: as `stages.disk.read_regular`; `FileNotFoundError` for objects, too.
        UnreadableError: see `stages.object_store.read`.
    """
    return object_store.read(where.text) if isinstance(where, Url) else read_regular(where)


def read_start(where: Place, size: int) -> bytes:
    """The first bytes of a file or an object; raises as `read` does."""
    with Opened(where) as file:
        return file.read_at(size, 0)


def exists(where: Place) -> bool:
    """Whether there is such a file or folder, or such an object.

    Raises:
        UnreadableError: see `stages.object_store.read`.
    """
    return object_store.exists(where.text) if isinstance(where, Url) else os.path.exists(where)


def file_sizes(folder: Place) -> dict[str, int] | None:
    """Bytes of each file below a folder, by its name in it; None where a store does not list them.

    Raises:
        UnreadableError: see `stages.object_store.read`.
    """
    if isinstance(folder, Url):
        return object_store.listed(folder.text)
    sizes: dict[str, int] = {}
    for here, _, names in os.walk(folder):
        inside = Path(here).relative_to(folder).as_posix()
        for name in names:
            sizes[name if inside == "." else f"{inside}/{name}"] = os.stat(os.path.join(here, name)).st_size
    return sizes


def write(where: Place, data: bytes, *, durable: bool = True) -> None:
    """Write a file or an object in one step.

    Args:
        where: it is to be; a file in a folder that is there.
        data: what it holds.
        durable: see `stages.disk.new_file`.

    Raises:
        OSError, UnreadableError: it cannot be written.
    """
    if isinstance(where, Url):
        object_store.put(where.text, data)
        return
    with new_file(where, durable=durable) as beside:
        beside.write_bytes(data)


def each(folder: Place, work: Callable[[_Name], _T], names: Iterable[_Name]) -> list[_T]:
    """What ``work`` returns for each name of something in a folder; several at once where each waits for a store."""
    if not isinstance(folder, Url):
        return [work(name) for name in names]
    with ThreadPoolExecutor(object_store.AT_ONCE) as pool:
        return list(pool.map(work, names))


class Opened:
    """A file or an object of which parts are read; several threads may read at once.

    Args:
        where: it is.

    Raises:
        OSError: a file cannot be opened; of an object that shows when it is read.
    """

    def __init__(self, where: Place) -> None:
        self._where = where
        self._descriptor = None if isinstance(where, Url) else open_to_read(where)

    def read_at(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer at the end; raises as `read` does."""
        if isinstance(self._where, Url):
            return object_store.read(self._where.text, start=offset, end=offset + size)
        assert self._descriptor is not None
        return read_at(self._descriptor, size, offset)

    def read_end(self, size: int) -> tuple[bytes, int | None]:
        """The last ``size`` bytes, and how many there are; of an object None, as that were a request more."""
        if isinstance(self._where, Url):
            return object_store.read(self._where.text, start=-size), None
        assert self._descriptor is not None
        total = os.fstat(self._descriptor).st_size
        return read_at(self._descriptor, size, max(0, total - size)), total

    def close(self) -> None:
        """Give a file back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
