"""Turns: locks that a forked child finds free, also where a signal handler comes into the making of a new one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from minigraph.core import turn
from minigraph.core.turn import Turn


def ends(work: Callable[[], None]) -> bool:
    """Whether it comes to an end, in a thread of its own."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_child_has_locks_of_its_own() -> None:
    one = Turn()
    before = one.lock
    one.busy = True
    before.acquire()
    turn._in_child()  # what a fork does
    assert one.lock is not before
    assert one.lock is one.lock
    assert not one.busy

    def take() -> None:
        with one.lock:
            pass

    assert ends(take)


@pytest.mark.parametrize("same", [True, False])
def test_a_signal_handler_takes_a_lock_while_one_is_made_for_the_child(
    same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Turn(), Turn()
    touched = one if same else other
    turn._in_child()
    handled: list[bool] = []

    def interrupted() -> threading.RLock:
        if not handled:
            handled.append(True)
            with touched.lock:
                handled.append(touched.busy)
        return threading.RLock()

    monkeypatch.setattr(turn, "threading", SimpleNamespace(RLock=interrupted))

    def begin() -> None:
        with one.lock:
            one.busy = True

    assert ends(begin)
    assert handled == [True, False]
    assert one.busy
    assert one.lock is one.lock
