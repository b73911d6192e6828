"""The one way to write a file or a folder: beside its place, flushed, then renamed; and to read a file at a place.

A reader sees the old or the new, never half of one, whatever happens in between; after a power cut, too, since nothing
takes its place before the disk holds it. What is unfinished is hidden and begins with `PREFIX`, so that what a killed
process left is known by its name. Permissions are those that any new file gets.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.passing import PASSING, TOO_MANY_FILES, UnreadableError, is_passing, patiently

if TYPE_CHECKING:
    import mmap

PREFIX = ".saccade-"
"""How the name of everything unfinished begins."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that mean: there is no room."""

HELD_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Waits for who holds what is renamed: on Windows a virus scanner opens each new file for a moment."""

_HELD = (5, 32)  # Windows: access denied, sharing violation
_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone has another way to read
_seeking = threading.Lock()

_TEMPORARY = re.compile(re.escape(PREFIX) + r"[0-9a-f]{32}(\..+)?", re.DOTALL)


class ForeignFolderError(FileExistsError):
    """A folder is to be written where something is that we did not write."""


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; when the block ends well, it becomes ``path`` in one step.

    If the block fails, whatever was at ``path`` is still there and the new file is gone. The temporary path keeps the
    suffix, for writers that choose their format by it.

    Args:
        path: the file to be, in a folder that is there.
        durable: whether the disk holds it from then on; without, a power cut may leave it torn, for those who flush
            all at the end or who compare a checksum.
    """
    temporary = _beside(path)
    try:
        yield temporary
        if durable:
            flush(temporary)
        _rename(os.replace, temporary, path)
    except BaseException as exc:
        if isinstance(exc, OSError):
            _name(exc, path)
        with suppress(OSError):  # why it failed tells more
            temporary.unlink()
        raise
    if durable:
        flush(path.parent)


@contextmanager
def new_folder(path: Path, *, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new folder beside ``path`` to fill; when the block ends well, it becomes ``path``.

    Args:
        path: the folder to be, in a folder that is there.
        ours: says whether an existing folder was written by us, and may be replaced.

    Raises:
        ForeignFolderError: something is at ``path`` that we did not write.
    """
    _refuse_foreign(path, ours)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        flush_tree(temporary)
        put_in_place(temporary, path, ours=ours)
    except OSError as exc:
        _name(exc, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _name(exc: OSError, path: Path) -> None:
    """Have an error say what was being written: a full disk is met when there is a descriptor, not a name."""
    if exc.errno and exc.filename is None:
        exc.filename = str(path)


def resumable_folder(path: Path, key: str) -> Path:
    """Where to fill a folder over several runs until `put_in_place`: beside ``path``, under a name that follows from
    the key."""
    return path.with_name(f"{PREFIX}{path.name}.{key}")


def put_in_place(folder: Path, path: Path, *, ours: Callable[[Path], bool]) -> None:
    """Rename a folder that the disk holds; an earlier one at ``path`` is moved aside first and deleted last.

    Raises:
        ForeignFolderError: something is at ``path`` that we did not write.
        OSError: it cannot be renamed; what was at ``path`` is there again.
    """
    _refuse_foreign(path, ours)
    aside = _beside(path)
    if path.exists():
        _rename(os.rename, path, aside)
    try:
        _rename(os.rename, folder, path)
    except OSError:
        if aside.exists():
            _rename(os.rename, aside, path)
        raise
    flush(path.parent)
    if aside.is_symlink():
        aside.unlink()  # what it leads to was kept elsewhere on purpose
    else:
        shutil.rmtree(aside, ignore_errors=True)


def flush(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names, before anything else relies on it."""
    if path.is_dir():
        with suppress(OSError):  # Windows opens no folders, and keeps their entries itself; some networks flush none
            _fsync(path, os.O_RDONLY)
        return
    try:
        _fsync(path, os.O_RDONLY)  # for which no umask is too strict
    except OSError as exc:
        if exc.errno != errno.EBADF:
            raise
        _fsync(path, os.O_RDWR)  # Windows flushes only what was opened for writing


def flush_tree(folder: Path, *, threads: int = 1) -> None:
    """`flush` a folder and everything in it but what is unfinished: another process may be at work there."""
    paths = [Path(here, name) for here, _, names in os.walk(folder) for name in ("", *names) if not is_temporary(name)]
    if threads == 1:  # a thread costs more than a small folder
        for path in paths:
            flush(path)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(flush, paths))


def open_to_read(path: Path) -> int:
    """The descriptor of a file for `read_at`; whoever asks for it closes it. Processes that are started do not get it.

    Raises:
        OSError: it cannot be opened.
    """
    return patiently(lambda: os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_CLOEXEC", 0)))


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """``size`` bytes of a file from ``offset`` on, fewer at its end; several threads may read one file at once."""
    if hasattr(os, "pread"):
        return patiently(lambda: os.pread(descriptor, size, offset))
    with _seeking:  # Windows has one place a file, so that nobody may move it meanwhile
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


class SpecialFileError(OSError):
    """What stands at a path is no file: reading a pipe would wait for ever, reading a device never end."""


class _PatientFile(io.FileIO):
    """A file whose reads are tried again where the disk or the network could not; for `io.BufferedReader`."""

    def readinto(self, buffer: Any) -> int | None:
        return patiently(lambda: self._read_once(buffer))

    def readall(self) -> bytes:
        found, piece = bytearray(), bytearray(min(2**20, os.fstat(self.fileno()).st_size + 1))
        while count := self.readinto(piece):
            found += piece[:count]
        return bytes(found)

    def _read_once(self, buffer: Any) -> int | None:
        return super().readinto(buffer)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read, patiently; as ``path.open("rb")``, but for what is no file.

    Raises:
        SpecialFileError: it is a pipe, a socket or a device.
        OSError: as ever.
    """
    if (what := _special(path)) is not None:
        raise SpecialFileError(errno.ENOTSUP, f"it is {what}, not a file", str(path))
    return io.BufferedReader(patiently(lambda: _PatientFile(path)))


def read_regular(path: Path) -> bytes:
    """All of a file; raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def _special(path: Path) -> str | None:
    mode = patiently(lambda: os.stat(path)).st_mode
    kinds = {stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    kinds |= {stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    return next((what for is_such, what in kinds.items() if is_such(mode)), None)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of what the system does not give, though it is there, that it is so: that is no damage.

    Raises:
        UnreadableError: permission is missing, or the disk or the network could not, however often it was tried.
    """
    try:
        yield
    except OSError as exc:
        if is_passing(exc) or exc.errno in (errno.EACCES, errno.EPERM):
            raise UnreadableError(refusal(exc, path, writing=False), passing=is_passing(exc)) from exc
        raise


Version = tuple[int, int, int]


def version_of(status: os.stat_result) -> Version:
    """What tells a file from what was at its place, or in it, before: size, time and number."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def refuse_changed(now: os.stat_result, before: Version) -> None:
    """Raise an `UnreadableError` where a file is not what it was."""
    if version_of(now) == before:
        return
    if now.st_size < before[0]:
        what = f"it was cut from {before[0]} to {now.st_size} bytes while it was read: copy it again"
    else:
        what = "it was changed or replaced while it was read: run again once it is whole"
    raise UnreadableError(f"{what}; the file is no longer the one that was opened", passing=False)


def refusal(error: OSError, path: Path, *, writing: bool) -> str:
    """Why the system lets nobody read or write at a path, and what to do about it, in words.

    Args:
        error: what it answered.
        path: which file or folder was to be read or written.
        writing: whether it was to be written.
    """
    code = error.errno
    if isinstance(error, SpecialFileError):
        return f"{error.strerror}: give a file"
    if code in PASSING:
        return f"the disk or the network answered {error.strerror!r}, several times: try again later"
    if code in FULL:
        return "the disk is full: make room on it"
    if code == errno.EFBIG:
        return (
            "it would be larger than this process, or its file system, may write: raise the limit (ulimit -f unlimited)"
        )
    if code == errno.EROFS:
        return "its file system is read-only: have it mounted for writing"
    if code in TOO_MANY_FILES:
        return "too many files are open: raise the limit (ulimit -n)"
    if code == errno.ENAMETOOLONG:
        return "the name is longer than the file system allows: choose a shorter one"
    if code == errno.EISDIR:
        return "it is a folder: give a file"
    if getattr(error, "winerror", None) in _HELD[1:]:
        return "another program has it open: close it there"
    if code in (errno.EACCES, errno.EPERM):
        return _missing_right(path, writing)
    above = next((folder for folder in path.parents if os.path.lexists(folder)), path)
    if code == errno.ENOTDIR or (code == errno.EEXIST and writing):
        return f"{above if above.is_file() else path} is a file, not a folder"
    if code == errno.ENOENT:
        return (
            f"there is no such file or folder{'' if above == path.parent else f', nor {path.parent}'}: correct the path"
        )
    return error.strerror or str(error)


def _missing_right(path: Path, writing: bool) -> str:
    """Which right is missing where, as far as the system tells."""
    there = [folder for folder in reversed(path.absolute().parents) if os.path.isdir(folder)]
    shut = next((folder for folder in there if not _may(folder, os.X_OK)), None)
    if shut is not None:
        return f"no permission to enter {shut}: have its owner grant that (chmod +x)"
    if writing:
        closed = path if os.path.lexists(path) and not _may(path, os.W_OK) else there[-1]
        immutable = hasattr(os, "geteuid") and os.geteuid() == 0  # whom no mode keeps out
        grant = "chmod +w, or chattr -i where it is immutable" if immutable else "chmod +w"
        return f"no permission to write to {closed}: have its owner grant that ({grant})"
    return f"no permission to read {path}: have its owner grant that (chmod +r)"


def _may(path: Path, right: int) -> bool:
    return os.access(path, right, effective_ids=os.access in os.supports_effective_ids)


def holds_only(folder: Path, names: Container[str]) -> bool:
    """Whether everything in a folder, however deep, has one of these names, is a number, or is unfinished work of ours.

    What a user put into a folder of ours would go when the folder is replaced.
    """
    found = (name for _, folders, files in os.walk(folder) for name in (*folders, *files))
    return all(name in names or name.isdecimal() or is_temporary(name) for name in found)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `new_file` did not finish: work of another process, or of a dead one."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_unfinished(folder: Path, *, deep: bool = False) -> None:
    """Take away what killed processes left unfinished in a folder, or in all below it, where nobody else writes now."""
    found = (folder.rglob if deep else folder.glob)(f"{PREFIX}*")
    for path in [path for path in found if is_temporary(path.name)]:
        with suppress(OSError):  # another time, then
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _beside(path: Path) -> Path:
    """A new hidden name in the same folder, so that renaming it never crosses file systems."""
    return path.with_name(f"{PREFIX}{os.urandom(16).hex()}{path.suffix}")


def _refuse_foreign(path: Path, ours: Callable[[Path], bool]) -> None:
    if os.path.lexists(path) and not ours(path):
        raise ForeignFolderError(f"{path} is or holds something that saccade did not write and stays as it is")


def _rename(how: Callable[[Path, Path], None], source: Path, target: Path) -> None:
    """Rename; on Windows, once nobody holds it any more."""
    for seconds in HELD_SECONDS:
        try:
            how(source, target)
        except OSError as exc:
            if getattr(exc, "winerror", None) not in _HELD:
                raise
            time.sleep(seconds)
        else:
            return
    how(source, target)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | _BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_files() -> Path:
    """The system's folder for what need not last."""
    return Path(tempfile.gettempdir())


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of its own among temporary files, which is gone in the end."""
    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        yield Path(folder)


def unnamed_file(nbytes: int) -> mmap.mmap | None:
    """So many bytes, zeros, in a temporary file that has no name, as memory that the system can write there and take
    back; None where there is no room for it, or the system does not say so beforehand, or half as many files are open
    as this process may have: while it is mapped a file stays open."""
    if not hasattr(os, "posix_fallocate"):
        return None
    import mmap  # seldom wanted
    import resource  # not on Windows

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError), tempfile.TemporaryFile() as file:
        another = os.dup(file.fileno())  # what mapping will take: the lowest number that no open file has
        os.close(another)
        if most != resource.RLIM_INFINITY and 2 * another > most:
            return None
        os.posix_fallocate(file.fileno(), 0, nbytes)  # writing to memory that has no place on a full disk kills
        return mmap.mmap(file.fileno(), nbytes)
    return None
