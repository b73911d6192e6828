"""What lies below a URL as a zarr store to read from, by requests that end in time and say why they failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import ClassVar

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from stages import object_store
from stages.place import Url


class ObjectStore(Store):
    """What lies below a URL; unlike zarr's own store it gives only the bytes that were asked for, or says why not.

    Args:
        folder: the URL.
    """

    supports_writes: ClassVar[bool] = False
    supports_deletes: ClassVar[bool] = False
    supports_listing: ClassVar[bool] = False

    def __init__(self, folder: Url) -> None:
        super().__init__(read_only=True)
        self._folder = folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStore) and self._folder == other._folder

    def __hash__(self) -> int:
        return hash(self._folder)

    def __str__(self) -> str:
        return str(self._folder)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The value of a key, or the given part of it; None where there is no such key."""
        start, end = _span(byte_range)
        try:
            data = await asyncio.to_thread(object_store.read, f"{self._folder}/{key}", start=start, end=end)
        except FileNotFoundError:
            return None
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The values of several keys, or parts of them; see `get`."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return await asyncio.to_thread(object_store.exists, f"{self._folder}/{key}")

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._check_writable()

    def list(self) -> AsyncIterator[str]:
        """Refused."""
        raise NotImplementedError("what lies below a URL is not listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refused."""
        return self.list()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refused."""
        return self.list()


def _span(part: ByteRequest | None) -> tuple[int | None, int | None]:
    """First byte and the one after the last, as `stages.object_store.read` has them."""
    match part:
        case None:
            return None, None
        case RangeByteRequest(start, end):
            return start, end
        case OffsetByteRequest(offset):
            return offset, None
        case SuffixByteRequest(suffix):
            return -suffix, None
    raise TypeError(f"Unexpected byte_range, got {part!r}")
