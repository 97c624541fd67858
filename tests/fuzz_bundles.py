"""Damage bundles in many ways and read them: each is refused or read, nothing crashes, nothing runs.

python tests/fuzz_bundles.py 100000
"""

import functools
import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from pylazy.bundling.bundled_functions import LoadedBundle
from pylazy.runtime import gpu_launch, launch
from pylazy.runtime.archive import read_archive, write_archive
from pylazy.runtime.bundle import FIRST_LAUNCHED, BundleFile
from pylazy.runtime.errors import BundleFormatError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.manifest import MANIFEST

FROZEN = Path(__file__).parent / "data" / "frozen-0.1.plzb"
FROZEN_1_1 = FROZEN.with_name("frozen-0.1-format-1.1.plzb")
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, "", "x", "i", "j", "..", "../x", "/etc/p",
    "\x00", "MANIFEST.json", "a" * 300, "\ud800", [], {}, [[]], [0], ["x"], {"x": 1}, "sm_80", "x86-64", "int64", "nan",
    "ij", "ji", "real", "imag", "ranges", "selection", "sum", "kmin", "argkmin",
)  # fmt: skip


@functools.cache
def small_seed(path: Path = FROZEN) -> bytes:
    """A frozen bundle without most of its gradients, so that reading one takes a fraction of a millisecond."""
    entries = {name: bytes(data) for name, data in read_archive(path.read_bytes()).items()}
    manifest = json.loads(entries.pop(MANIFEST))
    for function in list(_functions(manifest)):
        function["gradients"] = function["gradients"][-1:]
    kept = {name for found in _functions(manifest) for name in (found["kernel"], *found["gradients"])}
    manifest["kernels"] = [kernel for kernel in manifest["kernels"] if kernel["id"] in kept]
    for kernel in manifest["kernels"]:
        kernel["code"] = [code for code in kernel["code"] if not code["few_rows"]]
    used = {path for kernel in manifest["kernels"] for path in (kernel["formula"], kernel["kernel"])}
    codes = [code for kernel in manifest["kernels"] for code in kernel["code"]]
    used |= {path for code in codes for path in (code["blob"], code.get("cubin", ""))} | {manifest.get("header", "")}
    return rebuilt(manifest, {name: data for name, data in entries.items() if name in used})


def _functions(manifest: Any) -> Any:
    for function in manifest["functions"]:
        yield function
        yield from function.get("selection", ())


def rebuilt(manifest: Any, entries: dict[str, bytes], *, seal: bool = True) -> bytes:
    """Pack a manifest and entries again; sealed, with sizes and hashes that fit."""
    if seal and isinstance(manifest, dict):
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in entries.items()}
        blobs = [{"path": name, "bytes": len(data), "sha256": hashes[name]} for name, data in entries.items()]
        manifest = {**manifest, "blobs": blobs}
    return write_archive({MANIFEST: json.dumps(manifest).encode(), **entries})


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def damage_structure(data: bytes, chance: random.Random) -> bytes:
    """Change bytes where the container keeps its own records."""
    found = bytearray(data)
    marks = list(_records(data))
    for _ in range(chance.choice((1, 1, 2, 3))):
        place = chance.choice(marks) + chance.randrange(46)
        if place < len(found):
            found[place] = chance.choice((0, 1, 0xFF, 0x7F, 0x80, found[place] ^ 1, chance.randrange(256)))
    return bytes(found)


def _records(data: bytes) -> list[int]:
    directory = int.from_bytes(data[-6:-2], "little")
    places = [len(data) - 22, directory, 0]
    position = directory
    while data[position : position + 4] == b"PK\x01\x02":
        places += [position, int.from_bytes(data[position + 42 : position + 46], "little")]
        position += 46 + int.from_bytes(data[position + 28 : position + 30], "little")
    return places


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def splice(data: bytes, chance: random.Random) -> bytes:
    begin, end, place = (chance.randrange(len(data)) for _ in range(3))
    piece = data[min(begin, end) : max(begin, end)][:4096]
    return data[:place] + piece + data[chance.choice((place, place + len(piece))) :]


def damage_manifest(data: bytes, chance: random.Random) -> bytes:
    """Change the manifest and pack it well: what gets past the hashes."""
    entries = {name: bytes(content) for name, content in read_archive(data).items()}
    manifest = json.loads(entries.pop(MANIFEST))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _damage_value(manifest, chance)
    return rebuilt(manifest, entries, seal=chance.random() < 0.5)


def _damage_value(manifest: Any, chance: random.Random) -> None:
    parents = list(_containers(manifest))
    parent = chance.choice(parents)
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    action = chance.randrange(5)
    if not keys:
        return
    key, other = chance.choice(keys), chance.choice(keys)
    if action == 0:
        del parent[key]
    elif action == 1:
        parent[key] = parent[other]
    elif action == 2 and isinstance(parent, list):
        parent.append(parent[key])
    elif action == 3:
        source = chance.choice(parents)
        values = list(source.values()) if isinstance(source, dict) else list(source)
        parent[key] = json.loads(json.dumps(chance.choice(values))) if values else None
    else:
        parent[key] = chance.choice(VALUES)


def _containers(value: Any) -> Any:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def damage_image(data: bytes, chance: random.Random) -> bytes:
    """Change one kernel image or its hash, and pack it well."""
    entries = {name: bytes(content) for name, content in read_archive(data).items()}
    manifest = json.loads(entries.pop(MANIFEST))
    name = chance.choice([name for name in entries if name.endswith(".plzk")])
    body = flip_bits(entries[name][:-32], chance) if chance.random() < 0.8 else truncate(entries[name], chance)
    entries[name] = body + hashlib.sha256(body).digest()
    return rebuilt(manifest, entries)


MUTATIONS = (flip_bits, damage_structure, truncate, splice, damage_manifest, damage_image)


def read_all(data: bytes) -> None:
    """Do everything that can be done with a bundle, short of running it."""
    file = BundleFile(data)
    LoadedBundle(file)
    for kernel in file.manifest.kernels:
        for code in kernel.code:
            if code.target in CPU_LEVELS:
                file.image(kernel, code)
            elif file.manifest.format >= FIRST_LAUNCHED:
                file.gpu_image(kernel, code)


def fuzz(count: int, *, seed: int) -> Counter[str]:
    """Read `count` damaged bundles, half of them of each format.

    Returns:
        How many were refused by which rule, by the first words of the message; "read" for those that were not refused.
    """
    chance = random.Random(seed)
    seeds = [small_seed(path) for path in (FROZEN, FROZEN_1_1)]
    for data in seeds:
        read_all(data)
    outcomes: Counter[str] = Counter()
    refuse = mock.patch.object(launch.Program, "__init__", side_effect=AssertionError("code was put into memory"))
    refuse_gpu = mock.patch.object(gpu_launch.GpuProgram, "__init__", side_effect=AssertionError("a driver was opened"))
    with refuse, refuse_gpu:
        for number in range(count):
            damaged = chance.choice(MUTATIONS)(seeds[number % 2], chance)
            try:
                read_all(damaged)
                outcomes["read"] += 1
            except BundleFormatError as error:
                outcomes[" ".join(str(error).split()[1:4])] += 1
    return outcomes


if __name__ == "__main__":
    for words, count in fuzz(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0).most_common(40):
        sys.stdout.write(f"{count:8} {words}\n")
