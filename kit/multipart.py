"""Objects written in parts: by us, or by whoever gets the parts' signed URLs.

begin → parts, in any order, each as often as it takes → complete. Nothing is visible before `complete`; whoever
goes on with an unfinished upload asks `list_parts` what has arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kit.bucket import Bucket, checksum, checksum_of_digest, digest_of_checksum
from kit.errors import ObjectMissing
from kit.presigning import SignedUpload

MIN_PART_BYTES = 5 << 20


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One upload in parts, as the store knows it; `begun_at` is known from listings only."""

    key: str
    id: str
    begun_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part that the store has; `number` counts from 1; `sha256` None = the store does not tell it."""

    number: int
    size_bytes: int
    etag: str
    sha256: str | None


class MultipartUploads:
    """Uploads in parts to one bucket. All parts but the last have at least 5 MiB; there are at most 10,000."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        # Whether `list_parts` says what the store knows of digests; asked once.
        self._tells_digests: bool | None = None

    async def begin(self, key: str) -> Upload:
        """Begin an upload; it costs storage until it is completed or aborted."""
        if self._tells_digests is None:
            self._tells_digests = await self._ask_for_digests(f"{key}.probe")
        return await self._begin(key, digests=self._tells_digests)

    async def put_part(self, upload: Upload, number: int, data: bytes) -> Part:
        """Store one part; a part of that number that is there already is replaced.

        Raises:
            ObjectMissing: when the upload was completed or aborted.
        """
        found = await self._bucket.run(lambda: self._put_part(upload, number, data), key=upload.key)
        return found

    async def sign_part(
        self,
        upload: Upload,
        number: int,
        *,
        sha256: str,
        size_bytes: int,
        expires_seconds: int,
        now: datetime | None = None,
    ) -> SignedUpload:
        """Return a URL that takes exactly these bytes as one part: the store refuses another digest or length.

        Its life counts from `now`; None = this host's clock.
        """
        headers = {"x-amz-checksum-sha256": checksum_of_digest(sha256)}
        url = await self._bucket.sign(
            "PUT",
            upload.key,
            expires_seconds=expires_seconds,
            query={"partNumber": str(number), "uploadId": upload.id},
            headers={**headers, "content-length": str(size_bytes)},
            now=now,
        )
        return SignedUpload(url=url, headers=headers)

    async def list_parts(self, upload: Upload) -> list[Part]:
        """Return the parts that have arrived, in the order of their numbers.

        Raises:
            ObjectMissing: when the upload was completed or aborted.
        """

        def collect() -> list[Part]:
            pages = self._bucket.client.get_paginator("list_parts").paginate(**self._named(upload))
            return [
                Part(
                    number=found["PartNumber"],
                    size_bytes=found["Size"],
                    etag=found["ETag"],
                    sha256=digest_of_checksum(found.get("ChecksumSHA256")),
                )
                for page in pages
                for found in page.get("Parts", [])
            ]

        return await self._bucket.run(collect, key=upload.key)

    async def complete(self, upload: Upload, parts: Iterable[Part], *, only_if_absent: bool = False) -> None:
        """Make the object of these parts, in the order of their numbers; again is no error.

        Raises:
            ObjectMissing: when the upload was aborted.
            ObjectConflict: with `only_if_absent`, when the key is taken.
        """
        ordered = sorted(parts, key=lambda part: part.number)
        digests = all(part.sha256 for part in ordered)
        named = [_named_part(part, digest=digests) for part in ordered]
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_if_absent else {}
        try:
            await self._bucket.run(
                lambda: self._bucket.client.complete_multipart_upload(
                    **self._named(upload), MultipartUpload={"Parts": named}, **condition
                ),
                key=upload.key,
            )
        except ObjectMissing:
            # An earlier try was carried out and its answer lost: then the object is there.
            if not await self._is_there(upload.key, size_bytes=sum(part.size_bytes for part in ordered)):
                raise

    async def abort(self, upload: Upload) -> None:
        """Drop an upload and its parts; one that is not there is no error."""
        try:
            await self._bucket.run(
                lambda: self._bucket.client.abort_multipart_upload(**self._named(upload)), key=upload.key
            )
        except ObjectMissing:
            pass  # completed, or aborted before

    async def list_unfinished(self, prefix: str = "") -> list[Upload]:
        """Return every upload below a prefix that was begun and neither completed nor aborted."""

        def collect() -> list[Upload]:
            pages = self._bucket.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket.name, Prefix=self._bucket.path(prefix)
            )
            return [
                Upload(key=self._bucket.key(found["Key"]), id=found["UploadId"], begun_at=found["Initiated"])
                for page in pages
                for found in page.get("Uploads", [])
            ]

        return await self._bucket.run(collect, key=prefix)

    async def _begin(self, key: str, *, digests: bool) -> Upload:
        more: Any = {"ChecksumAlgorithm": "SHA256"} if digests else {}

        def begin() -> str:
            return self._bucket.client.create_multipart_upload(
                Bucket=self._bucket.name, Key=self._bucket.path(key), **self._bucket.sse, **more
            )["UploadId"]

        return Upload(key=key, id=await self._bucket.run(begin, key=key))

    async def _ask_for_digests(self, key: str) -> bool:
        """Say whether the store lists the digests of parts.

        Where uploads keep digests, completing one has to name them; whoever goes on with an upload knows only what is
        listed. So on a store that checks digests but does not list them (SeaweedFS), uploads are begun without.
        """
        upload = await self._begin(key, digests=True)
        try:
            await self.put_part(upload, 1, b"probe")
            return all(part.sha256 for part in await self.list_parts(upload))
        finally:
            await self.abort(upload)

    def _put_part(self, upload: Upload, number: int, data: bytes) -> Part:
        digest = checksum(data)
        found = self._bucket.client.upload_part(
            **self._named(upload), PartNumber=number, Body=data, ChecksumSHA256=digest
        )
        return Part(number=number, size_bytes=len(data), etag=found["ETag"], sha256=digest_of_checksum(digest))

    async def _is_there(self, key: str, *, size_bytes: int) -> bool:
        try:
            found = await self._bucket.run(
                lambda: self._bucket.client.head_object(Bucket=self._bucket.name, Key=self._bucket.path(key)), key=key
            )
        except ObjectMissing:
            return False
        return found["ContentLength"] == size_bytes

    def _named(self, upload: Upload) -> Any:
        return {"Bucket": self._bucket.name, "Key": self._bucket.path(upload.key), "UploadId": upload.id}


def _named_part(part: Part, *, digest: bool) -> Any:
    named: dict[str, Any] = {"PartNumber": part.number, "ETag": part.etag}
    if digest and part.sha256:
        named["ChecksumSHA256"] = checksum_of_digest(part.sha256)
    return named
