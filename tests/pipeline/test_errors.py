"""What is said of errors."""

from __future__ import annotations

import errno
import os

import pytest

from pipeline.errors import of_file, reason_of, unforeseen


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "not enough memory for it: run again with fewer --workers"),
        (
            OSError(errno.EIO, os.strerror(errno.EIO)),
            "error: look after its disk or network and run again",
        ),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG), "/out/a"), "raise the limit (ulimit -f unlimited)"),
        (ValueError(), "unexpected ValueError, which says no more: run again"),
        (KeyError("a"), "unexpected KeyError: 'a'"),
    ],
)
def test_a_reason_is_never_empty_and_says_what_to_do_where_it_comes_from_outside(error: Exception, told: str) -> None:
    assert told in reason_of(error)
    assert unforeseen("KeyboardInterrupt", "") == "it was interrupted: run again, which goes on from here"


def test_a_file_is_named_once() -> None:
    assert of_file("a/b.h5", ValueError("a/b.h5: it is empty")) == "a/b.h5: it is empty"
    assert of_file("a/b.h5", ValueError("it is empty")) == "a/b.h5: it is empty"
