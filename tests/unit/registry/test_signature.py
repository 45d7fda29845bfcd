"""What was signed by whom, and that the format's own tool agrees."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.artifact.draft import draft_from_directory
from registry.artifact.signature import Signer, Verifier
from registry.client.transfer import read_plain
from registry.errors import SignatureInvalid
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, Manifest, Owner
from tests.support.adapters import BASE, write_adapter

CURVES: list[ec.EllipticCurve] = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


def write_keys(directory: Path, key: Any) -> tuple[Path, Path]:
    private, public = directory / "private.pem", directory / "public.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Signer, Verifier]:
    private, public = write_keys(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    return Signer.open(private), Verifier.open(public)


def manifest_of(directory: Path, *, version_id: str = "v" + "0" * 32) -> Manifest:
    draft = draft_from_directory(directory, owner=Owner(tenant="default", user="ann"), base=BASE)
    more = {"version_id": version_id, "version": 1, "created_at": datetime.now(UTC)}
    return Manifest.model_validate(draft.model_dump(exclude={"config", "version"}) | more)


def as_pulled(directory: Path, manifest: Manifest, target: Path) -> Path:
    target.mkdir()
    for file in manifest.files:
        (target / file.path).write_bytes(read_plain(directory, file))
    return target


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_the_formats_own_tool_verifies_a_pulled_directory(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, public = write_keys(tmp_path, ec.generate_private_key(curve))
    directory = write_adapter(tmp_path / "a")
    manifest = manifest_of(directory)
    pulled = as_pulled(directory, manifest, tmp_path / "pulled")
    signature = tmp_path / "model.sig"
    signature.write_text(json.dumps(Signer.open(private).sign(manifest)))
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(pulled)]
    command += ["--signature", str(signature), "--public_key", str(public)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr

    weights = (pulled / WEIGHTS_FILE).read_bytes()
    (pulled / WEIGHTS_FILE).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_signature_is_of_one_version_and_one_manifest(tmp_path: Path, keys: tuple[Signer, Verifier]) -> None:
    signer, verifier = keys
    manifest = manifest_of(write_adapter(tmp_path / "a"))
    signature = signer.sign(manifest)
    verifier.verify(signature, manifest)
    for change in (
        {"version_id": "v" + "1" * 32},
        {"evaluation": {"loss": 0.0}},
        {"files": tuple(file.model_copy(update={"sha256": "0" * 64}) for file in manifest.files)},
    ):
        with pytest.raises(SignatureInvalid, match="another"):
            verifier.verify(signature, manifest.model_copy(update=change))


def test_another_key_did_not_sign_it(tmp_path: Path, keys: tuple[Signer, Verifier]) -> None:
    manifest = manifest_of(write_adapter(tmp_path / "a"))
    other = Verifier(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(SignatureInvalid, match="expected key"):
        other.verify(keys[0].sign(manifest), manifest)


def test_a_missing_signature_is_not_a_valid_one(tmp_path: Path, keys: tuple[Signer, Verifier]) -> None:
    with pytest.raises(SignatureInvalid, match="is not signed"):
        keys[1].verify(None, manifest_of(write_adapter(tmp_path / "a")))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_signature_that_was_changed_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, keys: tuple[Signer, Verifier], data: st.DataObject
) -> None:
    manifest = manifest_of(write_adapter(tmp_path_factory.mktemp("a")))
    text = json.dumps({**keys[0].sign(manifest), "verificationMaterial": {}})  # the hint there is only a hint
    at = data.draw(st.integers(0, 10_000)) % len(text)  # signatures of one key differ in length
    changed = text[:at] + data.draw(st.sampled_from('Aa0{}"/+:')) + text[at + 1 :]
    try:
        signature = json.loads(changed)
    except ValueError:
        return
    if signature == json.loads(text) or not isinstance(signature, dict):
        return
    try:
        keys[1].verify(signature, manifest)
    except SignatureInvalid:
        return
    envelope, sound = signature["dsseEnvelope"], json.loads(text)["dsseEnvelope"]
    assert envelope["payload"] == sound["payload"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_any_json_is_refused_as_a_signature_and_never_crashes(value: Any) -> None:
    verifier = Verifier(ec.generate_private_key(ec.SECP256R1()).public_key())
    manifest = Manifest.model_validate(
        {
            "owner": {"tenant": "t", "user": "u"},
            "base": BASE,
            "lora": {"rank": 1, "alpha": 1, "target_modules": ["q_proj"]},
            "files": [{"path": CONFIG_FILE, "size_bytes": 1, "sha256": "0" * 64}],
            "version": 1,
            "version_id": "v" + "0" * 32,
            "created_at": "2026-01-01T00:00:00Z",
        }
    )
    for signature in ({"dsseEnvelope": value}, value if isinstance(value, dict) else {"mediaType": value}):
        with pytest.raises(SignatureInvalid):
            verifier.verify(signature, manifest)


@pytest.mark.parametrize("kind", ["missing", "text", "wrong curve", "wrong algorithm", "public"])
def test_a_file_that_is_no_private_key_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "private.pem"
    if kind == "text":
        path.write_text("no key")
    elif kind == "wrong curve":
        write_keys(tmp_path, ec.generate_private_key(ec.SECP256K1()))
    elif kind == "wrong algorithm":
        write_keys(tmp_path, ed25519.Ed25519PrivateKey.generate())
    elif kind == "public":
        path = write_keys(tmp_path, ec.generate_private_key(ec.SECP256R1()))[1]
    with pytest.raises(SignatureInvalid) as caught:
        Signer.open(path)
    assert caught.value.field == "signing_private_key_file"
