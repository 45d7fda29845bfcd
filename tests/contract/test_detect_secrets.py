"""The plugins of detect-secrets, by a sample of what each knows: an upgrade that hides one fails here.

`transcripts/redaction/plugins.py` asks their patterns directly, which the package does not promise to keep.
"""

from __future__ import annotations

import base64
import json

import pytest
from detect_secrets.plugins.base import BasePlugin
from detect_secrets.plugins.keyword import DENYLIST, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

from transcripts.redaction import Redactor
from transcripts.redaction.plugins import PluginDetector, plugin_names

ALNUM = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def part(value: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


# Each plugin's sample is (the text around, the secret in it). Prefix and rest are joined here, so that no scanner
# takes this file for a leak.
SAMPLES: dict[str, tuple[str, str]] = {
    "AWSKeyDetector": ("key {}", "AKIA" + "QWERTYUIOPASDFGH"),
    "ArtifactoryDetector": ("key = {}", "AKC" + ALNUM[:20]),
    "AzureStorageKeyDetector": ("x;{}", "Account" + "Key=" + (ALNUM * 2)[:88]),
    "Base64HighEntropyString": ("x = '{}'", "c2VjcmV0" + "/IGtleSBvZi+B0aGUgYmVlcw5Xz"),
    "BasicAuthDetector": ("https://joe:{}@host/", "swordfish"),
    "CloudantDetector": ("https://joe:{}@joe.cloudant.com", HEX),
    "DiscordBotTokenDetector": ("bot {}", "M" + ALNUM[:23] + "." + ALNUM[:6] + "." + ALNUM[:27]),
    "GitHubTokenDetector": ("push with {}", "ghp_" + ALNUM[:36]),
    "GitLabTokenDetector": ("push with {}", "glpat-" + ALNUM[:20]),
    "HexHighEntropyString": ("x = '{}'", HEX[:40]),
    "IbmCloudIamDetector": ("ibm_cloud_iam_api_key = {}", ALNUM[:44]),
    "IbmCosHmacDetector": ("cos_hmac_secret_access_key = {}", HEX[:48]),
    "JwtTokenDetector": ("Bearer {}", ".".join((part({"alg": "HS256"}), part({"sub": "1234567890"}), "c2ln"))),
    "KeywordDetector": ("password = '{}'", "correct horse"),
    "MailchimpDetector": ("key {}", HEX[:32] + "-us" + "12"),
    "NpmDetector": ("//registry.npmjs.org/:_authToken={}", "npm_" + ALNUM[:36]),
    "OpenAIDetector": ("key {}", "sk-" + ALNUM[:20] + "T3BlbkFJ" + ALNUM[:20]),
    "PypiTokenDetector": ("key {}", "pypi-AgEIcHlwaS5vcmc" + (ALNUM * 2)[:80]),
    "SendGridDetector": ("key {}", "SG." + ALNUM[:22] + "." + ALNUM[:43]),
    "SlackDetector": ("key {}", "xoxb-" + "1234567890-1234567890-abcdefghij"),
    "SoftlayerDetector": ("https://api.softlayer.com/soap/v3/{}", HEX),
    "SquareOAuthDetector": ("key {}", "sq0csp-" + ALNUM[:43]),
    "StripeDetector": ("key {}", "sk_live_" + ALNUM[:24]),
    "TelegramBotTokenDetector": ("bot {}", "110201543:" + ALNUM[:35]),
    "TwilioKeyDetector": ("key {}", "AC" + HEX[:32]),
}
# Their finds are ours to make: whole blocks and all kinds of addresses, each with a switch.
OWN = {"PrivateKeyDetector", "IPPublicDetector"}


def test_there_is_a_sample_for_every_plugin() -> None:
    assert set(SAMPLES) | OWN == set(plugin_names())


@pytest.mark.parametrize(("name", "text", "secret"), [(name, *sample) for name, sample in SAMPLES.items()])
def test_a_plugin_finds_its_sample_and_nothing_of_it_is_left(name: str, text: str, secret: str) -> None:
    others = [other for other in plugin_names() if other != name]
    found = list(PluginDetector(skip=others)(text.format(secret)))
    assert found, "the plugin alone does not find it"
    redacted = Redactor().redact_text(f"so: {text.format(secret)} !").text
    assert secret not in redacted
    assert not any(secret[at : at + 12] in redacted for at in range(0, max(len(secret) - 11, 1), 6))


def test_the_surfaces_that_are_asked_are_there() -> None:
    assert "password" in DENYLIST
    assert all(regex.groups >= group for regex, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items())
    assert BasePlugin.__abstractmethods__
