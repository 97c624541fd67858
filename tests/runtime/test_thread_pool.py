"""The pool: every tile once, few waits, safe with callers, forks and exits."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pylazy.runtime.errors import PylazyError
from pylazy.runtime.launch import Program
from pylazy.runtime.threads import ENVIRONMENT_VARIABLE, default_num_threads, get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("keep_num_threads")

TIMEOUT_SECONDS = 60
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Loads the image named by the first argument, checks one parallel launch.
SCRIPT_HEAD = """
import ctypes, os, sys, threading, time
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.launch import Program
from pylazy.runtime.threads import get_num_threads, set_num_threads
program = Program.load(KernelImage.from_bytes(open(sys.argv[1], "rb").read()))
def launch(rows=500):
    visits = (ctypes.c_int64 * rows)()
    program.run([ctypes.addressof(visits)], rows, 1)
    assert list(visits) == [1] * rows, list(visits)
def child_status(body):
    child = os.fork()
    if child == 0:
        try:
            body()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def run_script(body, image, folder, **environment):
    path = Path(folder) / "image"
    path.write_bytes(image.to_bytes())
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT_HEAD + body, str(path)],
        timeout=TIMEOUT_SECONDS,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("rows", [1, 3, 4, 100, 10_001])
def test_every_row_is_visited_once(count_visits_image, threads, rows):
    set_num_threads(threads)
    visits = np.zeros(rows, np.int64)
    Program.load(count_visits_image).run([visits.ctypes.data], rows, 0)
    assert (visits == 1).all()


def test_long_loop_uses_several_threads_but_not_more_than_set(record_thread_image):
    program = Program.load(record_thread_image(3e5))
    set_num_threads(3)
    rows = 300
    for _ in range(20):  # a busy machine may keep the workers away once
        threads = np.zeros(rows, np.int64)
        program.run([threads.ctypes.data], rows, 0)
        used = len(set(threads.tolist()))
        assert used <= 3
        if used >= 2:
            return
    pytest.fail("no worker ever took a tile")


@pytest.mark.parametrize("fewer", [1, 2])
def test_fewer_threads_are_used_after_they_are_set(record_thread_image, fewer):
    program = Program.load(record_thread_image(3e5))
    threads = np.zeros(100, np.int64)
    for _ in range(20):  # the workers of the first launch still look for tiles when the second begins
        set_num_threads(6)
        program.run([threads.ctypes.data], len(threads), 0)
        set_num_threads(fewer)
        program.run([threads.ctypes.data], len(threads), 0)
        assert len(set(threads.tolist())) <= fewer


def test_loop_of_little_estimated_work_stays_on_the_caller(record_thread_image):
    program = Program.load(record_thread_image(1.0))
    set_num_threads(4)
    threads = np.zeros(200, np.int64)
    program.run([threads.ctypes.data], len(threads), 0)
    assert len(set(threads.tolist())) == 1


def test_many_callers_at_once_each_get_their_own_result(product_sum_image):
    program = Program.load(product_sum_image)
    set_num_threads(3)
    failures = []

    def call(seed):
        random = np.random.default_rng(seed)
        x, y = random.standard_normal(301), random.standard_normal(207)
        expected = x * y.sum()
        for _ in range(40):
            out = np.full(301, np.nan)
            program.run([x.ctypes.data, y.ctypes.data, out.ctypes.data], 301, 207)
            if not np.allclose(out, expected, rtol=1e-12, atol=1e-12):
                failures.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(TIMEOUT_SECONDS)
    assert not any(caller.is_alive() for caller in callers)
    assert failures == []


def test_workers_compute_with_the_floating_point_mode_of_the_caller(product_sum_image):
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        set_num_threads(4)
        x, y, out = np.full(4000, 1e-160), np.full(500, 1e-160), np.full(4000, np.nan)
        Program.load(product_sum_image).run([x.ctypes.data, y.ctypes.data, out.ctypes.data], 4000, 500)
    finally:
        torch.set_flush_denormal(False)
    assert (out == 0).all()


@needs_fork
def test_forked_child_has_a_pool_of_its_own(count_visits_image, tmp_path):
    body = """
set_num_threads(4)
launch()
assert child_status(launch) == 0
def grandchild():
    launch()
    assert child_status(launch) == 0
assert child_status(grandchild) == 0
launch()
print("finished")
"""
    done = run_script(body, count_visits_image, tmp_path)
    assert (done.stdout, done.returncode) == ("finished\n", 0), done.stderr


@needs_fork
def test_fork_while_another_thread_launches_never_hangs_the_child(count_visits_image, tmp_path):
    body = """
set_num_threads(4)
stop = False
def keep_launching():
    while not stop:
        launch(5000)
other = [threading.Thread(target=keep_launching) for _ in range(2)]
for thread in other: thread.start()
for _ in range(40):
    assert child_status(launch) == 0
stop = True
for thread in other: thread.join()
print("finished")
"""
    done = run_script(body, count_visits_image, tmp_path)
    assert (done.stdout, done.returncode) == ("finished\n", 0), done.stderr


def test_process_ends_cleanly_after_and_during_launches(count_visits_image, tmp_path):
    body = """
set_num_threads(4)
def keep_launching():
    while True:
        launch(5000)
threading.Thread(target=keep_launching, daemon=True).start()
time.sleep(0.05)
launch()
print("finished")
"""
    for _ in range(3):
        done = run_script(body, count_visits_image, tmp_path)
        assert (done.stdout, done.returncode) == ("finished\n", 0), done.stderr


def test_environment_sets_the_number_of_threads(count_visits_image, tmp_path):
    done = run_script("print(get_num_threads())", count_visits_image, tmp_path, PYLAZY_NUM_THREADS="3")
    assert done.stdout == "3\n", done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "99999999999", "٣"])
def test_malformed_environment_is_named(monkeypatch, text):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, text)
    with pytest.raises(PylazyError, match=f"{ENVIRONMENT_VARIABLE} is '{text}'"):
        default_num_threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_default_is_the_number_of_processors_of_this_process(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert default_num_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert default_num_threads() == len(allowed)


@pytest.mark.parametrize("count", [0, -3, 4097, 2.0, "2", True, None])
def test_set_num_threads_refuses(count):
    before = get_num_threads()
    with pytest.raises(PylazyError, match="number of threads is"):
        set_num_threads(count)
    assert get_num_threads() == before
