"""The URLs that we sign are those that boto3 would sign."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from pydantic import SecretStr

from kit.bucket import Bucket
from kit.presigning import Presigner, SigningKey
from kit.settings import StorageSettings

KEYS = ["a", "tenants/t/users/a:b/versions/v1", "incoming/v 1/~x+y&z=%2F", "ü/日本", "a//b/./c"]
ENDPOINT = "http://127.0.0.1:9000"
CHECKSUM = "x" * 43 + "="


def theirs(operation: str, *, token: str | None = None, endpoint: str | None = ENDPOINT, **parameters: Any) -> str:
    session = boto3.Session("key-id", "secret/+", aws_session_token=token, region_name="eu-west-1")
    style = "path" if endpoint else "virtual"
    config = Config(signature_version="s3v4", s3={"addressing_style": style})
    client = session.client("s3", endpoint_url=endpoint, config=config)
    url: str = client.generate_presigned_url(operation, Params={"Bucket": "lorry", **parameters}, ExpiresIn=600)
    return url


def ours(method: str, key: str, *, like: str, token: str | None = None, **more: Any) -> str:
    moment = datetime.strptime(parse_qs(urlsplit(like).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    presigner = Presigner(f"{ENDPOINT}/lorry", region="eu-west-1", now=lambda: moment)
    by = SigningKey(access_key_id="key-id", secret_access_key="secret/+", session_token=token)
    return presigner.sign(method, key, by=by, expires_seconds=600, **more)


def taken_apart(url: str) -> tuple[str, str, str, dict[str, list[str]]]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc, parts.path, parse_qs(parts.query)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("token", [None, "a-session/token+="])
def test_a_signed_download_is_boto3s(key: str, token: str | None) -> None:
    like = theirs("get_object", Key=key, token=token)
    assert taken_apart(ours("GET", key, like=like, token=token)) == taken_apart(like)


@pytest.mark.parametrize("key", KEYS)
def test_a_signed_upload_is_boto3s(key: str) -> None:
    like = theirs("put_object", Key=key, ChecksumSHA256=CHECKSUM, ContentLength=5, ServerSideEncryption="aws:kms")
    headers = {
        **{"x-amz-checksum-sha256": CHECKSUM, "content-length": "5"},
        **{"x-amz-server-side-encryption": "aws:kms"},
    }
    assert taken_apart(ours("PUT", key, like=like, headers=headers)) == taken_apart(like)


@pytest.mark.parametrize("upload_id", ["u", "u/1+2=3&4"])
def test_a_signed_part_is_boto3s(upload_id: str) -> None:
    like = theirs("upload_part", Key="a", UploadId=upload_id, PartNumber=3, ChecksumSHA256=CHECKSUM, ContentLength=5)
    query = {"uploadId": upload_id, "partNumber": "3"}
    headers = {"x-amz-checksum-sha256": CHECKSUM, "content-length": "5"}
    assert taken_apart(ours("PUT", "a", like=like, query=query, headers=headers)) == taken_apart(like)


def test_a_new_day_and_new_credentials_are_signed_with_their_own_key() -> None:
    moments = iter([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 2, 2)])
    presigner = Presigner(f"{ENDPOINT}/lorry", region="eu-west-1", now=lambda: next(moments))
    first, second = (SigningKey(access_key_id="key-id", secret_access_key=secret) for secret in ("one", "two"))
    urls = [presigner.sign("GET", "a", by=by, expires_seconds=60) for by in (first, first, second, first)]
    assert urls[1] == urls[3]
    assert len(set(urls)) == 3


async def test_the_address_of_a_bucket_at_amazon_is_its_own_host_in_its_region() -> None:
    secret = SecretStr("secret")
    given = {"s3_region": "eu-west-1", "s3_access_key_id": "key-id", "s3_secret_access_key": secret}
    for name, start in [
        ("lorry", "https://lorry.s3.eu-west-1.amazonaws.com/p/a?"),
        ("lorry.example", "https://s3.eu-west-1.amazonaws.com/lorry.example/p/a?"),
    ]:
        bucket = Bucket(StorageSettings(s3_bucket=name, s3_prefix="p", **given))
        assert (await bucket.sign("GET", "a", expires_seconds=60)).startswith(start)
    like = theirs("get_object", Key="p/a", endpoint=None)
    assert like.startswith("https://lorry.s3.eu-west-1.amazonaws.com/p/a?")


def test_secrets_do_not_show_when_things_are_printed() -> None:
    by = SigningKey(access_key_id="key-id", secret_access_key="hidden", session_token="hidden")
    assert "hidden" not in repr(by)
