"""Objects in stores that fsspec knows, as S3, Azure or a web server, by their URLs: read in part, listed, put.

Every request has a time limit, is tried again where what failed may pass, and says in one line why it failed. How a
store is reached (address, credentials, anonymous) is fsspec's own configuration and each store's own environment.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from stages.install import from_folder
from stages.passing import PASSING, WAITS, UnreadableError

LIMIT = 60.0
"""Seconds after which a request that was not answered has failed: a shard of 13 MB passes at 2 Mbit/s."""
CONNECT = 10.0
"""Seconds within which a store takes up a connection."""
AT_ONCE = 16
"""Requests that wait for their answers together: a store takes some 30 ms for each."""
UNLISTED = ("http", "https")
"""Kinds of stores that list nothing: a web server's pages are written for people."""
PUBLIC = "FSSPEC_S3_ANON=true"
"""How S3 is read without credentials, where that is allowed."""

_DENIED = {"PermissionError", "ClientAuthenticationError", "Forbidden"}
_LOGGED_OUT = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
_LOGGED_OUT |= {"TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "DefaultCredentialsError"}
_LATE = {"TimeoutError", "FSTimeoutError", "ConnectTimeoutError", "ReadTimeoutError", "ServerTimeoutError"}
_APART = {"ClientConnectionError", "EndpointConnectionError", "HTTPClientError", "ClientPayloadError"}
_APART |= {"ConnectionError", "ConnectionClosedError", "IncompleteRead", "ResponseParserError"}
"""What stores' libraries raise, by the names of the types and those that they extend: none of them need be there."""


def read(url: str, *, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of an object, or of a part of it, of which nothing else is fetched.

    Args:
        url: of the object.
        start: of the part; negative: from the end.
        end: of the part, not in it; None: to the end.

    Raises:
        FileNotFoundError: there is no such object.
        UnreadableError: the store cannot be reached, or does not give it.
    """
    try:
        data: bytes = _ask(url, "cat_file", start=start, end=end)
    except UnreadableError as exc:
        if _is_beyond(exc.__cause__):
            return b""
        total = None if exc.passing or start is None or start >= 0 else size(url)
        if total is None or start is None:
            raise
        start, end = max(0, total + start), total  # some servers count from the beginning only
        data = _ask(url, "cat_file", start=start, end=end)
    wanted = None if start is None else -start if start < 0 else None if end is None else end - start
    if wanted is not None and len(data) > wanted:
        if start == 0:
            return data[:wanted]
        raise UnreadableError(
            f"{url}: of {wanted} bytes that were asked for came {len(data)}, as its server knows no parts of files "
            "(HTTP range requests): serve it from one that does, or copy the image to a disk",
            passing=False,
        )
    return data


def exists(url: str) -> bool:
    """Whether there is such an object, asked of the store; of a folder it is not known.

    Raises:
        UnreadableError: see `read`.
    """
    return size(url) is not None


def size(url: str) -> int | None:
    """Bytes of an object; None where there is none, or where its server does not say.

    Raises:
        UnreadableError: see `read`.
    """
    try:
        found = _ask(url, "info")
    except FileNotFoundError:
        return None
    return None if found.get("type") == "directory" or found.get("size") is None else int(found["size"])


def listed(url: str) -> dict[str, int] | None:
    """Bytes of every object whose URL begins with this one and a slash, by the rest of it; None of stores that list
    nothing, or not to us.

    Raises:
        UnreadableError: see `read`.
    """
    if _protocol(url) in UNLISTED:
        return None
    try:
        found = _ask(url, "find", detail=True)
    except FileNotFoundError:
        return {}
    except UnreadableError as exc:
        if isinstance(exc.__cause__, PermissionError):  # a right of its own, which public buckets seldom give
            return None
        raise
    root = _inside(url).rstrip("/") + "/"
    sizes = {name[len(root) :]: int(of["size"]) for name, of in found.items() if name.startswith(root)}
    return {name: count for name, count in sizes.items() if name}


def children(url: str) -> list[tuple[str, bool]]:
    """Names that stand directly under a URL, sorted, and whether more stands under each.

    Raises:
        FileNotFoundError: nothing begins with it.
        UnreadableError: see `read`; or its store lists nothing.
    """
    if _protocol(url) in UNLISTED:
        raise UnreadableError(
            f"{url} is on a web server, which lists no folders: name each image by its URL, in a table for many",
            passing=False,
        )
    found = _ask(url, "ls", detail=True)
    here = _inside(url).rstrip("/")
    names = {e["name"].rstrip("/"): e["type"] == "directory" for e in found}
    return sorted((name[len(here) :].strip("/"), deeper) for name, deeper in names.items() if name != here)


def put(url: str, data: bytes) -> None:
    """Write an object, in one step for whoever reads it.

    Raises:
        UnreadableError: the store cannot be reached, or does not take it.
    """
    _ask(url, "pipe_file", data)


def remove(url: str) -> None:
    """Take an object away, if it is there.

    Raises:
        UnreadableError: see `put`.
    """
    with suppress(FileNotFoundError):
        _ask(url, "rm_file")


def _is_beyond(error: BaseException | None) -> bool:
    """Whether a store says that an object ends before the part that was asked for."""
    return getattr(error, "status", None) == 416 or (isinstance(error, OSError) and "not satisfiable" in str(error))


def _ask(url: str, name: str, *args: Any, **named: Any) -> Any:
    """What a method of the URL's file system answers of it."""
    from fsspec.asyn import sync  # all that names a place loads this file, and few lie in a store

    system, path = _system(url), _inside(url)

    def once() -> Any:
        system.invalidate_cache()  # what others wrote since is to be seen
        if system.async_impl:
            return sync(system.loop, getattr(system, f"_{name}"), path, *args, timeout=LIMIT, **named)
        return getattr(system, name)(path, *args, **named)

    for wait in (*WAITS, None):
        try:
            return once()
        except FileNotFoundError as exc:
            if name == "pipe_file" or _code(exc) == "NoSuchBucket":
                raise UnreadableError(
                    f"{url}: there is no such bucket: correct the URL, or the address of its store (for S3 "
                    "AWS_ENDPOINT_URL)",
                    passing=False,
                ) from exc
            raise
        except Exception as exc:  # of the store's own library, which need not be here
            words, passing, patient = _meaning(exc, url)
            if wait is None or not patient:
                raise UnreadableError(words, passing=passing) from exc
            time.sleep(wait)
    raise AssertionError("unreachable")


def _meaning(exc: Exception, url: str) -> tuple[str, bool, bool]:
    """What an error says of a URL and what to do, whether it may pass, and whether to try again at once."""
    kinds, said = {kind.__name__ for kind in type(exc).__mro__}, " ".join(str(exc).split()) or type(exc).__name__
    status = getattr(exc, "status", None)
    if status is not None:  # a web server's, whose text has the URL once more
        said = f"{status} {getattr(exc, 'message', '')}".strip()
    if kinds & _LOGGED_OUT:
        words = f"{url}: no credentials for it are found ({said}): set those of your store, for S3 AWS_PROFILE, or "
        return f"{words}AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or where it is public {PUBLIC}", False, False
    if kinds & _DENIED or status in (401, 403):
        words = f"{url}: its store refuses access ({said}): have it granted, or give other credentials"
        return f"{words}; it answers so, too, where there is no such object but listing is not allowed", False, False
    if kinds & _LATE:
        words = f"{url}: no answer within {LIMIT:.0f} s: try again later, or correct the address of its store"
        return words, True, False
    if kinds & _APART:
        words = f"{url}: its store cannot be reached ({said}): try again later, or correct its address"
        return f"{words} (for S3 AWS_ENDPOINT_URL)", True, True
    if (isinstance(exc, OSError) and exc.errno in PASSING) or (status is not None and (status == 429 or status >= 500)):
        return f"{url}: its store answers {said!r}, several times: try again later", True, True
    return f"{url}: its store answers {said!r}: correct the address", False, False


def _code(error: BaseException) -> str | None:
    """What S3 calls an error."""
    code: str | None = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
    return code


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _inside(url: str) -> str:
    """What a URL is called in its file system."""
    path: str = _kind(_protocol(url), url)._strip_protocol(url)
    return path


def _system(url: str) -> Any:
    from fsspec.config import conf

    protocol = _protocol(url)
    options, kept = dict(_kind(protocol, url)._get_kwargs_from_urls(url)), conf.get(protocol, {})
    if protocol in ("s3", "s3a"):
        retries = {"mode": "standard", "max_attempts": 2}  # s3fs and we try again ourselves
        options["config_kwargs"] = {"connect_timeout": CONNECT, "read_timeout": LIMIT / 2, "retries": retries}
        options["max_concurrency"] = 1  # else it asks how large an object is before it asks for it
    if protocol in UNLISTED:
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(total=LIMIT, connect=CONNECT)}
    options = {name: value for name, value in options.items() if name not in kept}  # what a user configured stands
    return _kind(protocol, url)(**options)  # fsspec keeps one for each process and options


def _kind(protocol: str, url: str) -> Any:
    """The class of file systems of a protocol.

    Raises:
        UnreadableError: fsspec knows none, or its package is missing.
    """
    from fsspec.registry import get_filesystem_class, known_implementations

    try:
        return get_filesystem_class(protocol)
    except ImportError as exc:
        missing = getattr(exc.__cause__, "name", None)
        package = missing or known_implementations[protocol]["class"].partition(".")[0]
        how = from_folder("cloud") if protocol in ("s3", "s3a", *UNLISTED) else f"pip install {package}"
        raise UnreadableError(f"{url}: {protocol}:// needs the package {package}: {how}", passing=False) from exc
    except ValueError as exc:
        raise UnreadableError(
            f"{url}: {protocol}:// is no kind of store that is known: s3://, https://, gs://, az:// and others that "
            "fsspec knows are",
            passing=False,
        ) from exc
