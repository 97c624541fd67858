"""Signatures of bundles: who signed, and what was changed since."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pylazy
from fuzz_bundles import FROZEN, rebuilt
from pylazy import cli
from pylazy.runtime.archive import read_archive
from pylazy.runtime.bundle import read_trusted_bundle, sign_bundle
from pylazy.runtime.errors import UnsupportedError, UntrustedBundleError
from pylazy.runtime.manifest import MANIFEST
from pylazy.runtime.signature import SIGNATURE_BYTES, TRUSTED_KEYS_VARIABLE, signature_path

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402  after the question whether it is there


def write_keys(folder: Path, name: str, key: Any = None) -> tuple[Path, Path]:
    """A private and a public key in files."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, kind))
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed bundle that everybody may write, and the public key."""
    path = tmp_path / "k.plzb"
    shutil.copyfile(FROZEN, path)
    private, public = write_keys(tmp_path, "own")
    assert sign_bundle(path, private) == signature_path(path)
    path.chmod(0o666)
    return path, public


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UntrustedBundleError) as raised:
        pylazy.load_bundle(path, **options)
    return str(raised.value)


def test_signed_bundle_is_loaded_whoever_may_write_it(signed: tuple[Path, Path]) -> None:
    path, public = signed
    assert "public_key= if it is signed" in refusal(path)
    assert "gaussian" in pylazy.load_bundle(path, public_key=public)
    assert Path(signature_path(path)).stat().st_size == SIGNATURE_BYTES


def test_key_of_the_environment_is_trusted(signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, public = signed
    _, other = write_keys(path.parent, "other")
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, f"{other}:{public}" if sys.platform != "win32" else f"{other};{public}")
    assert "gaussian" in pylazy.load_bundle(path)
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(other))
    assert "is not the signature of" in refusal(path)


def test_unsigned_bundle_is_refused_where_a_signature_is_asked_for(signed: tuple[Path, Path]) -> None:
    path, public = signed
    Path(signature_path(path)).unlink()
    path.chmod(0o600)
    assert "is not signed" in refusal(path, public_key=public)
    assert "is not signed" in refusal(path, public_key=public, trust=True)


def change_blob(data: bytes) -> bytes:
    """Other code with hashes that fit: only the signature can tell."""
    entries = {name: bytes(content) for name, content in read_archive(data).items()}
    manifest = json.loads(entries.pop(MANIFEST))
    name = next(name for name in entries if name.endswith(".formula.mlir"))
    entries[name] = entries[name].replace(b"reduction", b"reductiom")
    return rebuilt(manifest, entries)


def change_order_of_targets(data: bytes) -> bytes:
    entries = {name: bytes(content) for name, content in read_archive(data).items()}
    manifest = json.loads(entries.pop(MANIFEST))
    manifest["targets"].reverse()
    return rebuilt(manifest, entries)


@pytest.mark.parametrize("change", [change_blob, change_order_of_targets])
def test_changed_bundle_is_refused(signed: tuple[Path, Path], change: Any) -> None:
    path, public = signed
    path.write_bytes(change(path.read_bytes()))
    read_trusted_bundle(path, trust=True)  # it breaks no rule of the format
    assert "one of the two was changed, or another key has signed" in refusal(path, public_key=public)


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", lambda data: bytes([data[0] ^ 1]) + data[1:]],
)
def test_changed_signature_is_refused(signed: tuple[Path, Path], change: Any) -> None:
    path, public = signed
    signature = Path(signature_path(path))
    signature.write_bytes(change(signature.read_bytes()))
    assert "is not the signature of" in refusal(path, public_key=public)


def test_signature_of_another_key_is_refused(signed: tuple[Path, Path]) -> None:
    path, _ = signed
    _, other = write_keys(path.parent, "other")
    assert "another key has signed" in refusal(path, public_key=other)


def test_key_that_is_none_is_refused(signed: tuple[Path, Path]) -> None:
    path, public = signed
    private, curve = write_keys(path.parent, "curve", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(UnsupportedError, match="is a public key of another algorithm, expected Ed25519"):
        pylazy.load_bundle(path, public_key=curve)
    with pytest.raises(UnsupportedError, match="is a private key of another algorithm, expected Ed25519"):
        sign_bundle(path, private)
    with pytest.raises(UnsupportedError, match="is no public key in PEM"):
        pylazy.load_bundle(path, public_key=FROZEN)
    with pytest.raises(UnsupportedError, match="is no private key in PEM"):
        sign_bundle(path, public)
    with pytest.raises(FileNotFoundError):
        pylazy.load_bundle(path, public_key=path.parent / "nobody.pem")


def test_missing_package_is_named_and_nothing_is_loaded(
    signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, public = signed
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'pylazy\[sign\]'"):
        pylazy.load_bundle(path, public_key=public)


def test_command_line_signs_and_tells(signed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path, public = signed
    bundle = str(path)
    signature = Path(signature_path(path))
    signature.unlink()
    assert cli.main(["inspect", bundle, "--verify"]) == 0
    assert "signature: unsigned" in capsys.readouterr().out
    assert cli.main(["inspect", bundle, "--public-key", str(public)]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert cli.main(["sign", bundle, "--key", str(path.parent / "own.pem")]) == 0
    assert signature.exists()
    assert cli.main(["inspect", bundle, "--verify"]) == 0
    assert "signature: not checked" in capsys.readouterr().out
    assert cli.main(["inspect", bundle, "--verify", "--public-key", str(public)]) == 0
    assert "signature: good, by" in capsys.readouterr().out
    signature.write_bytes(bytes(SIGNATURE_BYTES))
    assert cli.main(["inspect", bundle, "--verify", "--public-key", str(public)]) == 1
    assert "is not the signature of" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_checks_and_makes_the_same_signature(signed: tuple[Path, Path]) -> None:
    path, public = signed
    folder, signature = path.parent, Path(signature_path(path))
    (folder / "manifest").write_bytes(bytes(read_archive(path.read_bytes())[MANIFEST]))
    raw = ["openssl", "pkeyutl", "-rawin", "-in", str(folder / "manifest")]
    check = [*raw, "-verify", "-pubin", "-inkey", str(public), "-sigfile", str(signature)]
    if subprocess.run(check, check=False, capture_output=True).returncode:
        pytest.skip("this openssl does not know Ed25519")
    made = folder / "made"
    subprocess.run([*raw, "-sign", "-inkey", str(folder / "own.pem"), "-out", str(made)], check=True)
    assert made.read_bytes() == signature.read_bytes()


def test_saved_bundle_may_be_signed_at_once(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "own")
    made = pylazy.Bundle()
    made.add(pylazy.Vi(0, 1).sqdist(pylazy.Vj(1, 1)).sum(axis=1), name="f", gradients=False)
    made.compile(["x86-64"]).save(tmp_path / "k.plzb", private_key=private)
    assert list(pylazy.load_bundle(tmp_path / "k.plzb", public_key=public)) == ["f"]
