"""The cache: what it keeps, and that nothing on disk can hurt it."""

import os
import stat
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from pylazy.runtime import kernel_cache
from pylazy.runtime.errors import InternalError
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.kernel_cache import KernelCache, default_directory, key

TIMEOUT_SECONDS = 60
KEY = key("formula", "x86-64")
OTHER_KEY = key("another formula", "x86-64")
needs_posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def image(product_sum_image):
    return product_sum_image


def stored(folder, image):
    """A file that a cache wrote."""
    KernelCache(directory=folder).put(KEY, image)
    return folder / KEY


def read(folder):
    """What a fresh process would find."""
    return KernelCache(directory=folder).get(KEY)


def test_kept_image_is_found_by_later_processes(folder, image):
    stored(folder, image)
    assert read(folder) == image
    assert KernelCache(directory=folder).get(OTHER_KEY) is None


def test_memory_needs_no_disk(image):
    cache = KernelCache(directory=None)
    cache.put(KEY, image)
    assert cache.get(KEY) is image


def test_least_recently_used_image_leaves_memory_first(image):
    keys = [key(str(number)) for number in range(3)]
    cache = KernelCache(directory=None, capacity=2)
    cache.put(keys[0], image)
    cache.put(keys[1], image)
    cache.get(keys[0])
    cache.put(keys[2], image)
    assert [cache.get(each) is not None for each in keys] == [True, False, True]


def test_folder_and_entry_are_the_users_own_and_no_temporary_file_stays(folder, image):
    path = stored(folder, image)
    assert list(folder.iterdir()) == [path]
    if hasattr(os, "geteuid"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_clearing_removes_entries_and_nothing_else(folder, image):
    cache = KernelCache(directory=folder)
    cache.put(KEY, image)
    (folder / "note.txt").write_text("not an entry")
    cache.clear()
    assert cache.get(KEY) is None
    assert [path.name for path in folder.iterdir()] == ["note.txt"]
    KernelCache(directory=folder / "none").clear()
    KernelCache(directory=None).clear()


def test_damaged_entry_is_missing_and_overwritten(folder, image):
    path = stored(folder, image)
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert read(folder) is None, position
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read(folder) is None, length
    KernelCache(directory=folder).put(KEY, image)
    assert read(folder) == image


def test_entry_of_another_format_version_is_missing(folder, image):
    path = stored(folder, image)
    data = bytearray(path.read_bytes())
    version = data.index(b"PLZK") + 4
    data[version] += 1
    path.write_bytes(data)
    assert read(folder) is None


def test_entry_under_the_name_of_another_is_missing(folder, image):
    os.rename(stored(folder, image), folder / OTHER_KEY)
    assert KernelCache(directory=folder).get(OTHER_KEY) is None


@needs_posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_entry_that_others_may_write_is_missing(folder, image, mode):
    path = stored(folder, image)
    path.chmod(mode)
    assert read(folder) is None
    path.chmod(0o644)
    assert read(folder) == image


@needs_posix
def test_entry_of_another_user_is_missing(folder, image, monkeypatch):
    stored(folder, image)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert read(folder) is None


@needs_posix
def test_folder_that_others_may_write_is_not_used(folder, image):
    path = stored(folder, image)
    folder.chmod(0o777)
    assert read(folder) is None
    before = path.stat().st_mtime_ns
    with pytest.warns(RuntimeWarning, match="other users may write"):
        KernelCache(directory=folder).put(KEY, image)
    assert path.stat().st_mtime_ns == before


@needs_posix
def test_link_pipe_or_folder_in_place_of_an_entry_is_missing(folder, image):
    path = stored(folder, image)
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    assert read(folder) is None
    path.unlink()
    os.mkfifo(path)
    assert read(folder) is None
    path.unlink()
    path.mkdir()
    assert read(folder) is None


@needs_posix
def test_link_in_place_of_an_entry_is_replaced_not_followed(folder, image):
    path = stored(folder, image)
    precious = folder / "precious"
    precious.write_text("untouched")
    path.unlink()
    path.symlink_to(precious)
    KernelCache(directory=folder).put(KEY, image)
    assert precious.read_text() == "untouched"
    assert read(folder) == image


def test_unwritable_folder_warns_once_and_memory_serves(tmp_path, image):
    (tmp_path / "file").write_text("not a folder")
    cache = KernelCache(directory=tmp_path / "file" / "cache")
    assert cache.get(KEY) is None
    with pytest.warns(RuntimeWarning, match="cannot write to the kernel cache") as caught:
        cache.put(KEY, image)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(OTHER_KEY, image)
    assert cache.get(KEY) is image
    assert cache.get(OTHER_KEY) is image


def test_failed_write_leaves_no_temporary_file(folder, image, monkeypatch):
    stored(folder, image)

    def refuse(descriptor):
        raise OSError("disk is full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.warns(RuntimeWarning, match="disk is full"):
        KernelCache(directory=folder).put(OTHER_KEY, image)
    assert [path.name for path in folder.iterdir()] == [KEY]


def test_program_is_built_once_by_many_threads(folder, image):
    cache = KernelCache(directory=folder)
    builds = []

    def build():
        builds.append(threading.get_ident())
        return image

    programs = []
    threads = [threading.Thread(target=lambda: programs.append(cache.program(KEY, build))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert len(builds) == 1
    assert len(programs) == 8
    assert len({id(program) for program in programs}) == 1


def test_program_of_a_kept_image_is_not_built(folder, image):
    stored(folder, image)

    def build() -> KernelImage:
        raise AssertionError("built again")

    assert KernelCache(directory=folder).program(KEY, build).image == image


def test_failed_build_keeps_nothing(folder, image):
    cache = KernelCache(directory=folder)

    def fail() -> KernelImage:
        raise InternalError("no")

    with pytest.raises(InternalError, match="no"):
        cache.program(KEY, fail)
    assert cache.get(KEY) is None
    assert cache.program(KEY, lambda: image).image is image


def test_keys_separate_what_their_parts_separate():
    assert key("ab", "c") != key("a", "bc") != key("abc")
    assert key("é") == key("é")
    assert len(key()) == 64


@pytest.mark.parametrize("name", ["", "a/b", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_key_that_is_no_hash_is_refused(folder, image, name):
    cache = KernelCache(directory=folder)
    with pytest.raises(InternalError, match="64 hexadecimal digits"):
        cache.get(name)
    with pytest.raises(InternalError, match="64 hexadecimal digits"):
        cache.put(name, image)


def test_environment_chooses_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PYLAZY_CACHE", raising=False)
    monkeypatch.setenv("PYLAZY_CACHE_DIR", str(tmp_path / "mine"))
    assert default_directory() == str(tmp_path / "mine")
    monkeypatch.setenv("PYLAZY_CACHE", "0")
    assert default_directory() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG folders")
def test_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("PYLAZY_CACHE", raising=False)
    monkeypatch.delenv("PYLAZY_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory() == str(tmp_path / "xdg" / "pylazy")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == str(tmp_path / ".cache" / "pylazy")


def test_process_cache_uses_the_environment(monkeypatch, tmp_path, image):
    monkeypatch.delenv("PYLAZY_CACHE", raising=False)
    monkeypatch.setenv("PYLAZY_CACHE_DIR", str(tmp_path / "mine"))
    kernel_cache.default_cache.cache_clear()
    try:
        assert kernel_cache.load(KEY) is None
        kernel_cache.store(KEY, image)
        assert kernel_cache.load(KEY) == image
    finally:
        kernel_cache.default_cache.cache_clear()
    assert (tmp_path / "mine" / KEY).is_file()


WRITER = """
import sys
from pathlib import Path
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.kernel_cache import KernelCache, key
image = KernelImage.from_bytes(Path(sys.argv[2]).read_bytes())
for round in range(60):
    for number in range(3):
        cache = KernelCache(directory=Path(sys.argv[1]))
        found = cache.get(key(str(number)))
        assert found is None or found == image, "a torn entry was read"
        cache.put(key(str(number)), image)
        assert KernelCache(directory=Path(sys.argv[1])).get(key(str(number))) == image, "an entry was lost"
"""


def test_processes_that_write_the_same_entries_read_only_whole_ones(folder, image, tmp_path):
    big = replace(image, provenance={"padding": "x" * 200_000})
    (tmp_path / "image").write_bytes(big.to_bytes())
    command = [sys.executable, "-c", WRITER, str(folder), str(tmp_path / "image")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [writer.communicate(timeout=TIMEOUT_SECONDS)[1] for writer in writers]
    assert errors == ["", "", ""]
    assert sorted(path.name for path in folder.iterdir()) == sorted(key(str(number)) for number in range(3))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_forked_during_a_build_can_build(folder, image, tmp_path):
    body = """
import os, sys, threading
from pathlib import Path
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.kernel_cache import KernelCache, key
image = KernelImage.from_bytes(Path(sys.argv[1]).read_bytes())
cache = KernelCache(directory=None)
building, forked = threading.Event(), threading.Event()
def slow_build():
    building.set()
    forked.wait()
    return image
other = threading.Thread(target=lambda: cache.program(key("a"), slow_build))
other.start()
building.wait()
child = os.fork()
if child == 0:
    os._exit(0 if cache.program(key("a"), lambda: image).image is image else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
forked.set()
other.join()
sys.exit(status)
"""
    path = Path(tmp_path) / "image"
    path.write_bytes(image.to_bytes())
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", body, str(path)]
    assert subprocess.run(command, timeout=TIMEOUT_SECONDS, check=False).returncode == 0
