"""The one error that means: wrong usage or configuration, nothing was started."""

from __future__ import annotations


class UsageError(Exception):
    """Wrong usage or configuration, nothing started; exit code 2.

    The message is one line that says what was expected, what was found and what to do.
    """
