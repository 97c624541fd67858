"""How many threads a launch uses."""

import os

from pylazy.runtime.errors import PylazyError
from pylazy.runtime.fork_lock import ForkLock
from pylazy.runtime.native_library import check, native_library

MAX_THREADS = 4096
ENVIRONMENT_VARIABLE = "PYLAZY_NUM_THREADS"

_lock = ForkLock()
_is_configured = False


def set_num_threads(count: int) -> None:
    """Let every later launch of this process use `count` threads, the caller included.

    Results do not depend on it.

    Raises:
        PylazyError: `count` is not an integer from 1 to 4096.
    """
    global _is_configured
    if type(count) is not int or not 1 <= count <= MAX_THREADS:
        raise PylazyError(f"number of threads is {count!r}: expected an integer from 1 to {MAX_THREADS}")
    with _lock.held():
        check(native_library().plz_set_thread_count(count))
        _is_configured = True


def get_num_threads() -> int:
    """The threads that a launch uses, the caller included."""
    configure_threads()
    return int(native_library().plz_thread_count())


def configure_threads() -> None:
    """Set the default number of threads, once: PYLAZY_NUM_THREADS, or else the processors that this process may use.

    Raises:
        PylazyError: PYLAZY_NUM_THREADS is set, and not to an integer from 1 to 4096.
    """
    global _is_configured
    if _is_configured:
        return
    with _lock.held():
        if not _is_configured:
            check(native_library().plz_set_thread_count(default_num_threads()))
            _is_configured = True


def default_num_threads() -> int:
    """PYLAZY_NUM_THREADS if it is set, or else the number of processors that this process may use."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if not text:
        return min(_usable_processors(), MAX_THREADS)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_THREADS):
        raise PylazyError(
            f"environment variable {ENVIRONMENT_VARIABLE} is {text!r}: expected an integer from 1 to {MAX_THREADS}"
        )
    return int(text)


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
