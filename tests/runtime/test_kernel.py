"""The kernel image format: what it keeps, what it refuses."""

import copy
import hashlib
import json
import pickle
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylazy.runtime.errors import KernelFormatError
from pylazy.runtime.kernel import Buffer, KernelImage, Phase

PREFIX = struct.Struct("<4sIQQ")
INPUT = Buffer("x", "input", "i", "float32", 3)
SCRATCH = Buffer("partial", "scratch", "i", "float64", 2, per_split=True)
SUM = Phase(16, "sum", "i", "j", 48, True, False, 0.5, 2**30)
MERGE = Phase(0, "merge", "i", "", 4, False, True, 1, 0)
MAP = Phase(0, "pack", "j", "", 4, False, False, 1.0, 0)
IMAGE = KernelImage("x86-64-v3", b"c" * 32, (INPUT, SCRATCH), (MAP, SUM, MERGE), {"llvm": "22", "flags": "é"})
DATA = IMAGE.to_bytes()


def with_header(change):
    """The bytes of an image whose header was changed, with lengths and hash made right again."""
    _, _, header_bytes, code_bytes = PREFIX.unpack_from(DATA)
    header = json.loads(DATA[PREFIX.size : PREFIX.size + header_bytes])
    text = change(header)
    text = json.dumps(header).encode() if text is None else text
    body = PREFIX.pack(b"PLZK", 1, len(text), code_bytes) + text + IMAGE.code
    return body + hashlib.sha256(body).digest()


def set_path(*path, value):
    def change(header):
        target = header
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def test_image_survives_the_round_trip():
    assert KernelImage.from_bytes(DATA) == IMAGE
    assert KernelImage.from_bytes(with_header(lambda header: None)) == IMAGE


def test_equal_images_have_equal_bytes():
    other = KernelImage("x86-64-v3", b"c" * 32, (INPUT, SCRATCH), (MAP, SUM, MERGE), {"flags": "é", "llvm": "22"})
    assert other.to_bytes() == DATA
    assert hash(other) == hash(IMAGE)


def test_image_can_be_copied_and_pickled():
    assert copy.deepcopy(IMAGE) == IMAGE
    assert pickle.loads(pickle.dumps(IMAGE)) == IMAGE


def test_provenance_cannot_be_changed():
    provenance = {"llvm": "22"}
    image = KernelImage("x86-64", b"c", (), (MAP,), provenance)
    provenance["llvm"] = "23"
    assert image.provenance["llvm"] == "22"
    with pytest.raises(TypeError):
        image.provenance["llvm"] = "23"


def test_arguments_are_the_buffers_that_the_caller_brings():
    assert IMAGE.arguments == (INPUT,)
    assert SCRATCH.row_bytes == 16


@pytest.mark.parametrize("length", [0, 1, 55, len(DATA) - 1])
def test_truncated_bytes_are_refused(length):
    with pytest.raises(KernelFormatError, match="bytes, "):
        KernelImage.from_bytes(DATA[:length])


def test_trailing_bytes_are_refused():
    with pytest.raises(KernelFormatError, match="its sections need"):
        KernelImage.from_bytes(DATA + b"\0")


@given(position=st.integers(0, len(DATA) - 1), flip=st.integers(1, 255))
def test_no_changed_byte_is_accepted(position, flip):
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    with pytest.raises(KernelFormatError):
        KernelImage.from_bytes(bytes(damaged))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_as_malformed(data):
    for candidate in (data, DATA[: PREFIX.size] + data, b"PLZK" + data + bytes(60)):
        with pytest.raises(KernelFormatError):
            KernelImage.from_bytes(candidate)


def test_wrong_magic_is_named():
    with pytest.raises(KernelFormatError, match=r"magic is b'PLZX', expected b'PLZK'"):
        KernelImage.from_bytes(b"PLZX" + DATA[4:])


def test_other_version_is_named():
    with pytest.raises(KernelFormatError, match="format version is 7, this pylazy reads 1"):
        KernelImage.from_bytes(DATA[:4] + struct.pack("<I", 7) + DATA[8:])


def test_wrong_hash_is_named():
    with pytest.raises(KernelFormatError, match="SHA-256"):
        KernelImage.from_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"target": "x86-64", "target": "x86-64"}', "appears twice"),
        (b'{"cost": NaN}', "NaN is not a JSON number"),
        (b"{}", "header has keys"),
    ],
)
def test_malformed_header_is_refused(text, rule):
    with pytest.raises(KernelFormatError, match=rule):
        KernelImage.from_bytes(with_header(lambda header: text))


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        (("extra",), 1, "header has keys"),
        (("target",), 3, "target is not text"),
        (("target",), "pdp-11", "target is 'pdp-11'"),
        (("target",), "sm_90; rm", "target is 'sm_90; rm'"),
        (("buffers",), {}, "buffers are not a list"),
        (("buffers",), [dict.fromkeys("ab")], "buffer 0 has keys"),
        (("buffers",), [INPUT._asdict()] * 257, "more than 256 buffers"),
        (("buffers", 0), [], "buffer 0 is not an object"),
        (("buffers", 0, "extra"), 1, "buffer 0 has keys"),
        (("buffers", 0, "name"), 1, "name of buffer 0 is not text"),
        (("buffers", 0, "role"), "inout", "role of buffer 0 is 'inout'"),
        (("buffers", 0, "axis"), "k", "axis of buffer 0 is 'k'"),
        (("buffers", 0, "axis"), ["i"], "axis of buffer 0"),
        (("buffers", 1, "axis"), "ij", "buffer 1 is scratch and has a row for each pair"),
        (("buffers", 0, "dtype"), "float31", "dtype of buffer 0 is 'float31'"),
        (("buffers", 0, "dim"), 0, "dim of buffer 0 is 0"),
        (("buffers", 0, "dim"), True, "dim of buffer 0 is True"),
        (("buffers", 0, "dim"), 3.0, "dim of buffer 0 is 3.0"),
        (("buffers", 0, "dim"), 2**38 + 1, "dim of buffer 0 is"),
        (("buffers", 0, "per_split"), 0, "per_split of buffer 0 is not a boolean"),
        (("buffers", 0, "per_split"), True, "buffer 0 is input and per_split"),
        (("phases",), [], "0 phases, expected 1 to 4096"),
        (("phases",), [MAP._asdict()] * 4097, "4097 phases"),
        (("phases", 1, "entry"), 32, "entry of phase 1 is 32, expected an integer from 0 to 31"),
        (("phases", 1, "entry"), -1, "entry of phase 1 is -1"),
        (("phases", 1, "name"), None, "name of phase 1 is not text"),
        (("phases", 1, "rows"), "ij", "rows of phase 1 is 'ij'"),
        (("phases", 1, "columns"), "ij", "columns of phase 1 is 'ij'"),
        (("phases", 1, "rows_per_tile"), 0, "rows_per_tile of phase 1 is 0"),
        (("phases", 1, "rows_per_tile"), 2**31 + 1, "rows_per_tile of phase 1"),
        (("phases", 1, "max_columns_per_split"), -1, "max_columns_per_split of phase 1 is -1"),
        (("phases", 1, "max_columns_per_split"), 2**63, "max_columns_per_split of phase 1"),
        (("phases", 1, "splittable"), 1, "splittable of phase 1 is not a boolean"),
        (("phases", 2, "merges"), "yes", "merges of phase 2 is not a boolean"),
        (("phases", 1, "cost"), -0.5, "cost of phase 1 is -0.5"),
        (("phases", 1, "cost"), 1e13, "cost of phase 1"),
        (("phases", 1, "cost"), "1", "cost of phase 1 is '1'"),
        (("phases", 1, "cost"), True, "cost of phase 1 is True"),
        (("phases", 0, "merges"), True, "phase 0 merges, but no phase before it is splittable"),
        (("phases", 0, "splittable"), True, "phase 1 is splittable before the last one was merged"),
        (("phases", 1, "merges"), True, "phase 1 is splittable and merges"),
        (("phases", 2, "rows"), "j", "phase 2 merges a phase over other rows"),
        (("phases", 2, "merges"), False, "a splittable phase is never merged"),
        (("provenance",), [], "provenance is not a mapping"),
        (("provenance", "llvm"), 22, "provenance of 'llvm' is not text"),
    ],
)
def test_broken_rule_is_named(path, value, rule):
    with pytest.raises(KernelFormatError) as caught:
        KernelImage.from_bytes(with_header(set_path(*path, value=value)))
    assert rule in str(caught.value)


TABLE = Buffer("ranges_i", "table", "i", "int64", 1)
RANGED = replace(IMAGE, buffers=(INPUT, TABLE), phases=(MAP._replace(rows="i", tile_table=1),))


def test_image_with_a_table_survives_the_round_trip():
    assert KernelImage.from_bytes(RANGED.to_bytes()) == RANGED
    assert RANGED.arguments == (INPUT, TABLE)


def test_image_without_tables_is_written_as_before_there_were_any():
    assert b"tile_table" not in DATA
    assert b"tile_table" in RANGED.to_bytes()


@pytest.mark.parametrize(
    ("phase", "rule"),
    [
        ({"tile_table": 2}, "tile_table of phase 0 is 2, expected an integer from -1 to 1"),
        ({"tile_table": 0}, "tile_table of phase 0 is a buffer of role 'input' and axis 'i', expected a table of axis"),
        ({"rows": "j"}, "tile_table of phase 0 is a buffer of role 'table' and axis 'i', expected a table of axis 'j'"),
        ({"splittable": True}, "phase 0 has a tile_table, and is splittable or merges"),
    ],
)
def test_phase_with_another_table_is_refused(phase, rule):
    with pytest.raises(KernelFormatError) as caught:
        replace(RANGED, phases=(RANGED.phases[0]._replace(**phase),))
    assert rule in str(caught.value)


def test_table_of_floats_is_refused():
    with pytest.raises(KernelFormatError, match="buffer 1 is a table of float64, expected int64"):
        replace(RANGED, buffers=(INPUT, TABLE._replace(dtype="float64")))


@pytest.mark.parametrize("code", [b"", bytearray(b"c" * 32), "c" * 32])
def test_code_is_non_empty_bytes(code):
    with pytest.raises(KernelFormatError, match="code is not a non-empty bytes object"):
        KernelImage("x86-64", code, (), (MAP,), {})


@pytest.mark.parametrize("cost", [float("nan"), float("inf")])
def test_cost_is_finite(cost):
    with pytest.raises(KernelFormatError, match="cost of phase 0"):
        KernelImage("x86-64", b"c", (), (Phase(0, "p", "i", "", 1, False, False, cost, 0),), {})
