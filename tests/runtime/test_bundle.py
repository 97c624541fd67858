"""The file of a bundle: what is written is read, and every rule that is broken is named."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz_bundles import FROZEN, FROZEN_1_1, fuzz, rebuilt, small_seed
from pylazy.runtime.archive import MAX_ARCHIVE_BYTES, MAX_NAME_BYTES, read_archive, write_archive
from pylazy.runtime.bundle import (
    BundleFile,
    choose_code,
    read_bundle,
    read_trusted_bundle,
    save_bundle,
    write_bundle,
)
from pylazy.runtime.errors import BundleFormatError, UntrustedBundleError
from pylazy.runtime.manifest import FORMAT, MANIFEST, Code, Kernel

ENTRIES = {"MANIFEST.json": b"{}", "code/a.plzk": b"\x90" * 70, "ir/a.mlir": b"module {}"}


@pytest.fixture(scope="module")
def seed() -> bytes:
    return small_seed()


def parts(data: bytes) -> tuple[Any, dict[str, bytes]]:
    entries = {name: bytes(content) for name, content in read_archive(data).items()}
    return json.loads(entries.pop(MANIFEST)), entries


def refusal(data: bytes) -> str:
    with pytest.raises(BundleFormatError) as caught:
        BundleFile(data)
    return str(caught.value)


# The container --------------------------------------------------------------------------------------------------------


def test_archive_is_read_as_written() -> None:
    assert read_archive(write_archive(ENTRIES)) == ENTRIES


def test_archive_is_a_zip_file_for_everybody_else(tmp_path: Path) -> None:
    path = tmp_path / "a.plzb"
    path.write_bytes(write_archive(ENTRIES))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == ENTRIES


def test_equal_entries_give_equal_bytes() -> None:
    assert write_archive(ENTRIES) == write_archive(dict(ENTRIES))


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../b", "a//b", "a/", "./a", ".a", "a\\b", "a\x00", "é", "", "c:a", "a" * 201]
)
def test_name_that_escapes_or_confuses_is_refused(name: str) -> None:
    with pytest.raises(BundleFormatError, match="expected a relative path"):
        write_archive({name: b""})
    size = len(name.encode())
    if 0 < size <= MAX_NAME_BYTES:  # as somebody else may have written it
        written = write_archive({"b" * size: b"x"}).replace(b"b" * size, name.encode())
        with pytest.raises(BundleFormatError, match="expected a relative path"):
            read_archive(written)


@pytest.mark.parametrize(("first", "second"), [("a/b", "A/b"), ("a", "a/b"), ("a/b", "a")])
def test_names_that_are_one_file_on_some_system_are_refused(first: str, second: str) -> None:
    with pytest.raises(BundleFormatError, match=r"two entries|lies inside"):
        write_archive({first: b"", second: b""})


def test_duplicate_name_is_refused() -> None:
    data = write_archive({"aa": b"1", "ab": b"2"}).replace(b"ab", b"aa")
    with pytest.raises(BundleFormatError, match="two entries are called aa"):
        read_archive(data)


def patched(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(write_archive({"one": b"first", "two": b"second"}))
    change(data)
    return bytes(data)


def write_at(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        begin = offset if offset >= 0 else len(data) + offset
        data[begin : begin + len(value)] = value

    return change


DIRECTORY = 2 * 30 + 6 + 11  # two local headers, two names, two contents


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (write_at(DIRECTORY + 10, b"\x08\x00"), "entry 0 is compressed"),
        (write_at(DIRECTORY + 20, b"\x04"), "entry 0 is compressed"),
        (write_at(DIRECTORY + 8, b"\x01"), "flags 0x1"),
        (write_at(DIRECTORY + 12, b"\x01"), "has a time"),
        (write_at(DIRECTORY + 30, b"\x01"), "has an extra field"),
        (write_at(DIRECTORY + 32, b"\x01"), "has a comment"),
        (write_at(DIRECTORY + 38, b"\x10"), "no plain file"),
        (write_at(DIRECTORY + 42, b"\x01"), "begins at byte 1, expected 0: no gap, no overlap"),
        (write_at(DIRECTORY, b"XX"), "no magic number"),
        (write_at(14, b"\x00"), "described in two ways"),
        (write_at(30, b"b"), "another name before its content"),
        (write_at(33, b"F"), "its CRC-32 differs"),
        (write_at(0, b"XX"), "no magic number"),
        (write_at(-22, b"XX"), "does not end with"),
        (write_at(-2, b"\x01"), "it has a comment"),
        (write_at(-18, b"\x01"), "several disks"),
        (write_at(-14, b"\x01"), "two counts of entries differ"),
        (write_at(-14, b"\x01\x00\x01\x00"), "does not end where its 1 entries do"),
        (write_at(-14, b"\xff\x00\xff\x00"), "too short for"),
        (write_at(-10, b"\x01"), "does not reach to its end record"),
        (lambda data: data.extend(b"trailing"), "does not end with"),
        (lambda data: data.__delitem__(slice(40, None)), "does not end with"),
        (lambda data: data.__setitem__(slice(0, 0), b"leading"), "does not reach to its end record"),
    ],
)
def test_broken_rule_of_the_container_is_named(change: Callable[[bytearray], None], rule: str) -> None:
    with pytest.raises(BundleFormatError, match=rule):
        read_archive(patched(change))


def test_hidden_entry_between_two_entries_is_refused() -> None:
    data = write_archive({"one": b"first", "two": b"second"})
    gap = data[:DIRECTORY] + b"hidden" + data[DIRECTORY:]
    moved = bytearray(gap)
    moved[-6:-2] = (DIRECTORY + 6).to_bytes(4, "little")
    with pytest.raises(BundleFormatError, match="the entries end at byte"):
        read_archive(bytes(moved))


def test_oversized_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "large.plzb"
    with path.open("wb") as file:
        file.truncate(MAX_ARCHIVE_BYTES + 1)
    with pytest.raises(BundleFormatError, match="bytes, expected at most"):
        read_bundle(path)


# The manifest ---------------------------------------------------------------------------------------------------------


def test_bundle_is_read_and_written_to_the_same_bytes(seed: bytes) -> None:
    file = BundleFile(seed)
    written = write_bundle(file.manifest, {blob.path: file.blob(blob.path) for blob in file.manifest.blobs})
    assert BundleFile(written).manifest == file.manifest
    assert write_bundle(file.manifest, {blob.path: file.blob(blob.path) for blob in file.manifest.blobs}) == written


def change_format(manifest: Any) -> None:
    manifest["format"] = [FORMAT[0] + 1, 0]


def make_cyclic(manifest: Any) -> None:
    gradient = next(kernel for kernel in manifest["kernels"] if kernel["of"])
    gradient["of"] = gradient["id"]


def make_second_order(manifest: Any) -> None:
    gradient = next(kernel for kernel in manifest["kernels"] if kernel["of"])
    manifest["kernels"].append({**gradient, "id": "second", "of": gradient["id"]})


def swap_kernels(manifest: Any) -> None:
    manifest["kernels"].reverse()


def repeat_function(manifest: Any) -> None:
    manifest["functions"].append(manifest["functions"][0])


def require_feature(manifest: Any) -> None:
    manifest["requires"] = ["time travel"]


def nest_deeply(manifest: Any) -> None:
    nested: Any = []
    for _ in range(100):
        nested = [nested]
    manifest["provenance"] = nested


def set_first(name: str, key: str, value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        manifest[name][0][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (change_format, "format version is 2.0, this pylazy reads 1: another pylazy is needed"),
        (require_feature, "a reader must know time travel"),
        (make_cyclic, "not a kernel before it"),
        (make_second_order, "a gradient of a gradient"),
        (swap_kernels, "not a kernel before it"),
        (repeat_function, "two functions have one name"),
        (nest_deeply, "nested more than"),
        (set_first("functions", "unknown", 1), r"unknown fields \['unknown'\]"),
        (set_first("functions", "name", "a b"), "name of number 0 of functions"),
        (set_first("functions", "keepdim", 1), "keepdim of number 0 of functions of the manifest is not a boolean"),
        (set_first("functions", "kernel", "nobody"), "has kernel nobody, which is not there"),
        (set_first("functions", "gradients", ["nobody"]), "has no gradient nobody"),
        (set_first("functions", "arguments", []), "wrt of kernel"),
        (set_first("kernels", "digest", "0"), "digest of number 0 of kernels"),
        (set_first("kernels", "formula", "../../etc/passwd"), "is missing"),
        (set_first("kernels", "wrt", [0, 0]), "does not ascend"),
        (lambda manifest: manifest.pop("targets"), "the manifest has no targets"),
        (lambda manifest: manifest.update(targets=["sm_75"]), "no targets of this bundle"),
        (lambda manifest: manifest.update(targets=["pdp-11"]), "an item of targets"),
    ],
)
def test_broken_rule_of_the_manifest_is_named(seed: bytes, change: Callable[[Any], None], rule: str) -> None:
    manifest, entries = parts(seed)
    change(manifest)
    with pytest.raises(BundleFormatError, match=rule):
        BundleFile(rebuilt(manifest, entries))


def named(manifest: Any, name: str) -> Any:
    """A function of the manifest, or of a selection."""
    functions = [found for each in manifest["functions"] for found in (each, *each.get("selection", ()))]
    return next(function for function in functions if function["name"] == name)


def set_in(function: str, key: str, value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        named(manifest, function)[key] = value

    return change


def set_argument(function: str, number: int, key: str, value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        named(manifest, function)["arguments"][number][key] = value

    return change


def set_imaginary(key: str, value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        arguments = named(manifest, "waves")["arguments"]
        next(argument for argument in arguments if argument.get("part") == "imag")[key] = value

    return change


def nest_selection(manifest: Any) -> None:
    named(manifest, "least.pairs")["selection"] = []


def exchange_selection(manifest: Any) -> None:
    named(manifest, "least")["selection"].reverse()


def shorten_selection(manifest: Any) -> None:
    named(manifest, "least")["selection"].pop()


def give_cubin_to_processor(manifest: Any) -> None:
    codes = manifest["kernels"][0]["code"]
    codes[0]["cubin"] = codes[-1]["blob"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda manifest: manifest.update(requires=[]), "it uses .*selection, which requires does not name"),
        (set_in("gaussian", "is_complex", True), "function gaussian is complex, and a result has no two halves"),
        (set_in("gaussian", "is_complex", 1), "is_complex of number 0 of functions of the manifest is not a boolean"),
        (set_in("gaussian", "indices", "ji"), "indices of number 0 of functions"),
        (set_in("blocks", "ranged", None), "ranged of number 3 of functions"),
        (set_imaginary("part", ""), "two arguments of one name, b"),
        (set_imaginary("place", 7), "two arguments of one name, b"),
        (set_imaginary("part", "angle"), "part of number . of arguments"),
        (set_argument("costs", 0, "axis", "jj"), "axis of number 0 of arguments"),
        (set_argument("least.pairs", 0, "place", 4), "is of argument 4, which is not there"),
        (set_argument("least.pairs", 0, "place", 2), r"is i, 3, not \('i', 1\)"),
        (set_argument("least.selected", 0, "dim", 4), "the selection of function least is not of its arguments"),
        (nest_selection, "has a selection itself"),
        (exchange_selection, "the selection of function least"),
        (shorten_selection, "the selection of function least has 1 functions, not 2"),
        (set_in("least.selected", "name", "least"), "two functions have one name"),
        (set_in("least.pairs", "reduced", "i"), "does not give its formula on pairs"),
        (set_in("least", "selection", 1), "selection of number 2 of functions of the manifest is not a list"),
        (give_cubin_to_processor, "is for x86-64 and has a cubin"),
    ],
)
def test_broken_rule_of_the_second_format_is_named(change: Callable[[Any], None], rule: str) -> None:
    manifest, entries = parts(small_seed(FROZEN_1_1))
    change(manifest)
    with pytest.raises(BundleFormatError, match=rule):
        BundleFile(rebuilt(manifest, entries))


def test_image_with_a_table_that_its_function_does_not_bring_is_refused() -> None:
    manifest, entries = parts(small_seed(FROZEN_1_1))
    named(manifest, "blocks")["ranged"] = False
    for kernel in manifest["kernels"]:
        kernel["code"] = [code for code in kernel["code"] if not code["launch"]]
    used = {code["blob"] for kernel in manifest["kernels"] for code in kernel["code"]}
    entries = {name: data for name, data in entries.items() if name.startswith(("ir/", "c/")) or name in used}
    file = BundleFile(rebuilt(manifest, entries))
    kernel = file.kernels["blocks"]
    with pytest.raises(BundleFormatError, match=r"has tables \('i',\) of blocks"):
        file.image(kernel, kernel.code[0])


def test_blob_that_is_not_as_the_manifest_says_is_refused(seed: bytes) -> None:
    manifest, entries = parts(seed)
    name = next(iter(entries))
    assert "another SHA-256" in refusal(rebuilt(manifest, {**entries, name: entries[name][::-1]}, seal=False))
    assert "bytes, expected" in refusal(rebuilt(manifest, {**entries, name: b"short"}, seal=False))


def test_blob_that_nothing_needs_is_refused(seed: bytes) -> None:
    manifest, entries = parts(seed)
    assert "nothing refers to entry extra" in refusal(rebuilt(manifest, {**entries, "extra": b""}))


def test_manifest_comes_first(seed: bytes) -> None:
    entries = {name: bytes(content) for name, content in read_archive(seed).items()}
    last = entries.pop(MANIFEST)
    assert "the first entry is not MANIFEST.json" in refusal(write_archive({**entries, MANIFEST: last}))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"format": [1, 0], "format": [1, 0]}', b'{"a": NaN}', b"\xff"])
def test_manifest_that_is_no_object_is_refused(text: bytes) -> None:
    assert "MANIFEST.json is n" in refusal(write_archive({MANIFEST: text}))


def test_file_of_a_later_minor_version_may_have_more_fields(seed: bytes) -> None:
    manifest, entries = parts(seed)
    manifest["format"] = [FORMAT[0], FORMAT[1] + 1]
    manifest["weather"] = "fine"
    manifest["functions"][0]["colour"] = "red"
    assert BundleFile(rebuilt(manifest, entries)).manifest.format == (FORMAT[0], FORMAT[1] + 1)


def test_image_with_other_buffers_than_its_function_is_refused(seed: bytes) -> None:
    manifest, entries = parts(seed)
    manifest["functions"][0]["arguments"][0]["dim"] = 4
    for kernel in manifest["kernels"]:
        kernel["code"] = [code for code in kernel["code"] if not code["launch"]]
    used = {code["blob"] for kernel in manifest["kernels"] for code in kernel["code"]}
    entries = {name: data for name, data in entries.items() if name.startswith(("ir/", "c/")) or name in used}
    file = BundleFile(rebuilt(manifest, entries))
    kernel = file.kernels[manifest["functions"][0]["kernel"]]
    with pytest.raises(BundleFormatError, match="has other buffers than gaussian"):
        file.image(kernel, kernel.code[0])


# Dispatch -------------------------------------------------------------------------------------------------------------


def kernel_for(*targets: tuple[str, str]) -> Kernel:
    codes = tuple(Code(target, few, f"{target}{few}", {}) for target, few in targets)
    return Kernel("k", "", (), "", "", "", codes)


@pytest.mark.parametrize(
    ("host", "few", "expected"),
    [
        ("x86-64-v4", "", "x86-64-v3"),
        ("x86-64-v3", "", "x86-64-v3"),
        ("x86-64", "", "x86-64"),
        ("aarch64", "", "aarch64"),
        ("x86-64-v4", "i", "x86-64-v3i"),
        ("x86-64", "i", "x86-64"),
        ("x86-64-v3", "j", "x86-64-v3"),
    ],
)
def test_highest_level_of_the_host_is_chosen(host: str, few: str, expected: str) -> None:
    kernel = kernel_for(("aarch64", ""), ("x86-64-v3", "i"), ("x86-64-v3", ""), ("x86-64", ""), ("sm_80", ""))
    code = choose_code(kernel, host, few_rows=few)
    assert code is not None
    assert code.blob == expected


@pytest.mark.parametrize("host", ["aarch64", "unknown"])
def test_code_of_another_family_is_not_chosen(host: str) -> None:
    assert choose_code(kernel_for(("x86-64", "")), host) is None


# Trust ----------------------------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@posix
def test_saved_file_is_writable_by_its_owner_alone(tmp_path: Path, seed: bytes) -> None:
    path = tmp_path / "k.plzb"
    before = os.umask(0)
    try:
        save_bundle(path, seed)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [found.name for found in tmp_path.iterdir()] == ["k.plzb"]
    assert read_trusted_bundle(path, trust=False, sha256=None).data == seed


@posix
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_file_that_others_may_write_is_refused_unless_trusted(tmp_path: Path, seed: bytes, mode: int) -> None:
    path = tmp_path / "k.plzb"
    path.write_bytes(seed)
    path.chmod(mode)
    with pytest.raises(UntrustedBundleError, match="may be written by other users"):
        read_trusted_bundle(path, trust=False, sha256=None)
    assert read_trusted_bundle(path, trust=True, sha256=None).data == seed
    assert read_trusted_bundle(path, trust=False, sha256=hashlib.sha256(seed).hexdigest()).data == seed
    assert read_bundle(path).data == seed, "looking needs no trust"


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_refused(tmp_path: Path, seed: bytes) -> None:
    path = tmp_path / "k.plzb"
    path.write_bytes(seed)
    os.chown(path, 12345, 12345)
    with pytest.raises(UntrustedBundleError, match="belongs to another user"):
        read_trusted_bundle(path, trust=False, sha256=None)


def test_another_hash_is_refused_even_if_trusted(tmp_path: Path, seed: bytes) -> None:
    path = tmp_path / "k.plzb"
    save_bundle(path, seed)
    with pytest.raises(UntrustedBundleError, match=r"expected 00.*another file"):
        read_trusted_bundle(path, trust=True, sha256="0" * 64)


@posix
def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(BundleFormatError, match="no regular file"):
        read_bundle(path)


# Damage ---------------------------------------------------------------------------------------------------------------


def test_two_thousand_damaged_bundles_crash_nothing_and_run_nothing() -> None:
    outcomes = fuzz(2000, seed=1)
    assert outcomes.total() == 2000
    assert outcomes["read"] < 600, "most damage is seen"


def test_reading_a_bundle_needs_the_standard_library_alone() -> None:
    code = (
        "import sys; from pylazy.runtime.bundle import read_bundle; read_bundle(sys.argv[1]);"
        "print([name for name in ('numpy', 'torch', 'llvmlite', 'torch_mlir', 'pickle') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(FROZEN)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
