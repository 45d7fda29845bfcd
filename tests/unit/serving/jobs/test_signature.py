import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.jobs.webhooks.signature import derive_secret, sign, verify

KEY = b"k" * 32
SECRET = derive_secret(KEY, tenant="default", generation=0)
BODY = b'{"id":"b1"}'


@given(st.binary(), st.integers(0, 2**40))
def test_what_was_signed_is_verified(body: bytes, timestamp: int) -> None:
    assert verify(sign([SECRET], timestamp=timestamp, body=body), secret=SECRET, body=body, now=timestamp)


@pytest.mark.parametrize(
    "secret",
    [
        derive_secret(KEY, tenant="default", generation=1),
        derive_secret(KEY, tenant="other", generation=0),
        derive_secret(b"l" * 32, tenant="default", generation=0),
    ],
)
def test_another_tenants_generations_or_installations_secret_verifies_nothing(secret: str) -> None:
    assert secret != SECRET
    assert not verify(sign([SECRET], timestamp=1000, body=BODY), secret=secret, body=BODY, now=1000)


def test_a_changed_body_or_time_is_noticed() -> None:
    header = sign([SECRET], timestamp=1000, body=BODY)
    assert not verify(header, secret=SECRET, body=BODY + b" ", now=1000)
    assert not verify(header.replace("t=1000", "t=1001"), secret=SECRET, body=BODY, now=1000)


def test_an_old_message_is_not_taken_again() -> None:
    header = sign([SECRET], timestamp=1000, body=BODY)
    assert verify(header, secret=SECRET, body=BODY, now=1299)
    assert not verify(header, secret=SECRET, body=BODY, now=1301)


def test_both_secrets_verify_while_one_takes_the_others_place() -> None:
    new = derive_secret(KEY, tenant="default", generation=1)
    header = sign([new, SECRET], timestamp=1000, body=BODY)
    assert verify(header, secret=new, body=BODY, now=1000)
    assert verify(header, secret=SECRET, body=BODY, now=1000)


@pytest.mark.parametrize(
    "header", ["", "t=1000", "v1=00", "t=x,v1=00", "t=1000,t=1000,v1=00", "t=" + "9" * 5000, "t=²,v1=é"]
)
def test_a_header_that_is_none_is_refused(header: str) -> None:
    assert not verify(header, secret=SECRET, body=BODY, now=1000)
