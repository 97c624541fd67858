"""A lock that a forked child finds open."""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

_locks: "weakref.WeakSet[ForkLock]" = weakref.WeakSet()


class ForkLock:
    """A re-entrant lock. In a forked child it is open, whichever thread of the parent held it."""

    def __init__(self) -> None:
        """Make an open lock."""
        self._lock = threading.RLock()
        _locks.add(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; `with` releases the very lock that it took, also in a child forked meanwhile."""
        with self._lock:
            yield

    def renew(self) -> None:
        """Forget the holders."""
        self._lock = threading.RLock()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
