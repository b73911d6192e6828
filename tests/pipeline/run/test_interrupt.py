"""How a batch hears that it is to end."""

from __future__ import annotations

import signal
import threading

import pytest

from pipeline.run import interrupt
from pipeline.run.interrupt import exit_code, finishing, interruptible


@pytest.mark.parametrize("number", interrupt.ENDING)
def test_what_never_ends_is_given_some_seconds(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first signal on, whatever comes after it; and then all is as it was."""
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.1)
    told: list[str] = []
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        pytest.skip(f"whoever started the tests ignores {number.name}")

    def work() -> None:
        with interruptible(), finishing(told.append) as stop:
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert stop.is_set()
            threading.Event().wait(30)

    with pytest.raises(KeyboardInterrupt, match=number.name):
        work()
    assert (exit_code(), len(told), signal.getsignal(number)) == (128 + number, 1, before)


def test_what_somebody_ignores_stays_ignored() -> None:
    """As nohup does, so that a run outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(), finishing() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
