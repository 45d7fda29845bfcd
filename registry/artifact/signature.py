"""Signatures of versions, in the format of OpenSSF Model Signing v1.0, made and checked with key files.

A signature is a Sigstore bundle (v0.3) with a DSSE envelope around an in-toto statement that lists the SHA-256 of
each file. So a pulled directory can be checked without Lorry, by ``model_signing verify key DIRECTORY --signature
FILE --public_key FILE``. The statement's predicate has a field more, which other verifiers pass over: the version's id
and its manifest's digest, so that nobody can put a signature under another version with the same files.

Nothing but `cryptography` is needed; a test holds both directions against the `model-signing` package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kit.canonical import canonical_json
from registry.errors import SignatureInvalid
from registry.manifest import Manifest

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


class Signer:
    """Signs manifests with one private key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> Signer:
        """Read a private key: PEM, on one of the curves P-256, P-384 and P-521, without a password.

        Raises:
            SignatureInvalid: when the file is something else.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as exc:
            raise SignatureInvalid(f"{path} is not a PEM private key: {exc}", field="signing_private_key_file") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
            raise SignatureInvalid(f"{path} is not a key on P-256, P-384 or P-521", field="signing_private_key_file")
        return cls(key)

    def sign(self, manifest: Manifest) -> dict[str, Any]:
        """Return the signature of a version: JSON, a Sigstore bundle."""
        payload = canonical_json(_statement(manifest))
        signature = self._key.sign(_envelope(payload), ec.ECDSA(_HASHES[self._key.curve.name]))
        return {
            "mediaType": _BUNDLE,
            "verificationMaterial": {
                "publicKey": {"hint": _fingerprint(self._key.public_key())},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": _PAYLOAD,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }


class Verifier:
    """Checks signatures with one public key."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> Verifier:
        """Read a public key: PEM, on one of the curves P-256, P-384 and P-521.

        Raises:
            SignatureInvalid: when the file is something else.
        """
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as exc:
            raise SignatureInvalid(f"{path} is not a PEM public key: {exc}", field="signing_public_key_file") from exc
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            raise SignatureInvalid(f"{path} is not a key on P-256, P-384 or P-521", field="signing_public_key_file")
        return cls(key)

    def verify(self, signature: dict[str, Any] | None, manifest: Manifest) -> None:
        """Refuse a version whose manifest was not signed by the key; files are checked against the manifest elsewhere.

        Raises:
            SignatureInvalid: saying what is wrong.
        """
        if signature is None:
            raise SignatureInvalid(f"version {manifest.version_id} is not signed", field="signature")
        payload = self._read(signature)
        if payload != _statement(manifest):
            raise SignatureInvalid("the signature is one of another version, or of another manifest", field="signature")

    def _read(self, signature: dict[str, Any]) -> Any:
        """Return the statement that the key has signed."""
        try:
            envelope = signature["dsseEnvelope"]
            (signed,) = envelope["signatures"]
            payload = base64.b64decode(envelope["payload"], validate=True)
            if (signature["mediaType"], envelope["payloadType"]) != (_BUNDLE, _PAYLOAD):
                raise SignatureInvalid("the signature has another format than this program knows", field="signature")
            sig = base64.b64decode(signed["sig"], validate=True)
            self._key.verify(sig, _envelope(payload), ec.ECDSA(_HASHES[self._key.curve.name]))
            return json.loads(payload)
        except InvalidSignature as exc:
            raise SignatureInvalid("the signature was not made by the expected key", field="signature") from exc
        except (KeyError, TypeError, ValueError, binascii.Error) as exc:
            raise SignatureInvalid("the signature cannot be read", field="signature") from exc


def _statement(manifest: Manifest) -> dict[str, Any]:
    """Return what is signed of a version."""
    files = sorted(manifest.files, key=lambda file: file.path)
    root = hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in files)).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": manifest.version_id, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": file.path, "algorithm": "sha256", "digest": file.sha256} for file in files],
            "lorry": {"version_id": manifest.version_id, "manifest_sha256": manifest.digest},
        },
    }


def _envelope(payload: bytes) -> bytes:
    """Return what DSSE has one sign: the payload with its type and both lengths."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()
