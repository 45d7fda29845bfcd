"""AWS KMS, or what speaks its protocol: two verbs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kit.aws import FOREIGN_ERRORS, Threads, client_config, error_code, outage, session
from kit.errors import MasterKeyMissing, MasterKeyUnavailable, SealBroken
from kit.settings import MasterKeySettings

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_THREADS = 8
_ATTEMPTS = 4
_BROKEN = {"InvalidCiphertextException", "IncorrectKeyException"}
_UNUSABLE = {"NotFoundException", "DisabledException", "KMSInvalidStateException", "AccessDeniedException"}


class Kms:
    """Encrypts and decrypts small secrets under keys that never leave the service."""

    def __init__(self, settings: MasterKeySettings) -> None:
        own = session(
            access_key_id=settings.kms_access_key_id,
            secret_access_key=settings.kms_secret_access_key,
            region=settings.kms_region,
        )
        config = client_config(timeout_seconds=settings.kms_timeout_seconds, attempts=_ATTEMPTS, connections=_THREADS)
        self._client: KMSClient = own.client("kms", endpoint_url=settings.kms_endpoint_url, config=config)
        self._threads = Threads(_THREADS, name="kms")

    async def encrypt(self, key_id: str, plain: bytes, context: Mapping[str, str]) -> tuple[str, bytes]:
        """Return the ARN of the key that encrypted, and the ciphertext.

        Raises:
            MasterKeyMissing: when KMS will not use that key.
            MasterKeyUnavailable: when KMS does not answer.
        """
        with _translated(key_id):
            found = await self._threads.run(
                self._client.encrypt, KeyId=key_id, Plaintext=plain, EncryptionContext=dict(context)
            )
        return found["KeyId"], found["CiphertextBlob"]

    async def decrypt(self, key_id: str, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """Return the plaintext.

        Raises:
            SealBroken: when it was not encrypted under that key and context.
            MasterKeyMissing: when KMS will not use that key.
            MasterKeyUnavailable: when KMS does not answer.
        """
        with _translated(key_id):
            found = await self._threads.run(
                self._client.decrypt, KeyId=key_id, CiphertextBlob=sealed, EncryptionContext=dict(context)
            )
        plain: bytes = found["Plaintext"]
        return plain


@contextmanager
def _translated(key_id: str) -> Iterator[None]:
    """Turn the errors of KMS that callers can act on into ours; let the rest rise."""
    try:
        yield
    except FOREIGN_ERRORS as exc:
        code = error_code(exc)
        if code in _BROKEN:
            raise SealBroken("the wrapped key is damaged, or was wrapped under another master key") from exc
        if code in _UNUSABLE:
            raise MasterKeyMissing(f"KMS will not use the key {key_id}: {code}") from exc
        if why := outage(exc):
            raise MasterKeyUnavailable(f"KMS {why}") from exc
        raise
