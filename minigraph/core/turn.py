"""Turns: what one thread does at a time, under a lock that a forked child finds free.

A child of os.fork has only the thread that forked: a lock that another thread held would never be released there. What
that thread was doing ends at that moment in the child, as it does where an interrupt comes.

Turns are not listed for the child: a list of what is still there calls Python where one of them goes away, and what a
signal raises in such a call is lost.
"""

from __future__ import annotations

import os
import threading


class Turn:
    """A lock, and whether its holder is in the middle of what must not begin anew before it is over, not even in a
    signal handler.
    """

    busy: bool  # read and set under the lock. No property: an interrupt would come into the function that sets it

    def __init__(self) -> None:
        self._lock, self.busy, self._process = threading.RLock(), False, _process

    @property
    def lock(self) -> threading.RLock:
        """Held by the thread whose turn it is, which may take it again."""
        if self._process is not _process:
            self._begin_in_child()
        return self._lock

    def _begin_in_child(self) -> None:
        """Take a lock of its own. The old one may seem to be a new thread's, which has the number of a lost one."""
        with _one_at_a_time:
            if self._process is not _process:
                self._lock = threading.RLock()
                self.busy = False
                self._process = _process  # last: a signal handler that finds it finds the others, too


_process = object()  # another one in each child
_one_at_a_time = threading.RLock()  # a signal handler may come into its holder, and need it


def _in_child() -> None:
    global _process, _one_at_a_time
    _one_at_a_time = threading.RLock()
    _process = object()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
