import ipaddress

import pytest

from serving.jobs.errors import WebhookRefused
from serving.jobs.webhooks.addresses import check_url, is_public, resolve

NOT_PUBLIC = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fec0::1", "fd00::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
)  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_anybodys_on_the_internet_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hook",
        "ftp://example.org",
        "//example.org",
        "https://",
        "https://user:word@example.org/",
        "https://example.org/#part",
        "https://example.org:0/",
        "https://example.org:70000/",
        "https://exa mple.org/",
        "https://example.org/\n",
        "https://bücher.example/",
        "https://example.org/" + "x" * 2000,
        "https://[::1",
        *(f"https://{f'[{address}]' if ':' in address else address}/" for address in NOT_PUBLIC),
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
    ],
)
def test_a_url_that_may_not_be_called_is_refused_at_submission(url: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        check_url(url, private=False)
    assert refused.value.field == "webhook.url"


def test_a_url_says_where_it_leads() -> None:
    target = check_url("https://example.org:8443/a/b?c=d", private=False)
    assert (target.host, target.port, target.path, target.authority) == (
        "example.org",
        8443,
        "/a/b?c=d",
        "example.org:8443",
    )
    assert target.at(ipaddress.ip_address("2606:4700::1111")) == "https://[2606:4700::1111]:8443/a/b?c=d"
    assert check_url("https://example.org", private=False).authority == "example.org"


async def test_a_name_that_leads_to_this_machine_is_refused_when_it_is_resolved() -> None:
    target = check_url("https://localhost/hook", private=False)
    with pytest.raises(WebhookRefused, match="not public"):
        await resolve(target, private=False)
    assert all(address.is_loopback for address in await resolve(target, private=True))


def test_a_test_may_call_this_machine_over_plain_http() -> None:
    assert check_url("http://127.0.0.1:8000/hook", private=True).at(ipaddress.ip_address("127.0.0.1")) == (
        "http://127.0.0.1:8000/hook"
    )
