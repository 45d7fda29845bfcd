"""Nothing that a detector knows survives; what is nobody's stays; no text can stall it."""

from __future__ import annotations

import json
import string
import time
from datetime import UTC, datetime

import pytest
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.keyword import KeywordDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.slack import SlackDetector
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from transcripts.errors import RedactionTooSlow
from transcripts.redaction import RedactionSettings, Redactor
from transcripts.redaction.plugins import PluginDetector, plugin_names
from transcripts.transcript import Transcript, Turn

REDACTOR = Redactor()
ALNUM = string.ascii_letters + string.digits
# Written in parts, so that no scanner takes this file for a leak.
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
SLACK = "xoxb" + "-1234567890-abcdefghij"
AWS = "AKIA" + "QWERTYUIOPASDFGH"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
ANTHROPIC = "sk-ant-" + "api03-q8Zp1xYw_7dLk2Mn5Rt"
KEY = "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE " + "KEY-----"
SECRETS = {
    "secret/github-token": GITHUB,
    "secret/slack": SLACK,
    "secret/aws-key": AWS,
    "secret/jwt-token": JWT,
    "secret/token": ANTHROPIC,
    "secret/private-key": KEY,
    "secret/stripe": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "secret/sendgrid": "SG." + "a" * 22 + "." + "b" * 43,
}
DATABRICKS = "dapi" + "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
# Values as services give them out; none is a secret where nothing beside it says so.
HEX = "9f86d081884c7d659a2feaa0c55ad015"
UUID = "550e8400-e29b-41d4-a716-446655440000"
BASE32 = "JBSWY3DPEHPK3PXP"
TWENTY = "k7Qz2mXv9LpR4tWn8YbC"
LETTERS = "qXvRtLpWzKdNbYcMhGsF"
BESIDE = {
    "API key: {}": HEX,
    "api-key: {}": HEX,
    "Api_Key = {}": TWENTY,
    "**API key:** `{}`": HEX,
    '{{"api key": "{}"}}': TWENTY,
    "API key: '{}'": "S3cr3tOfTheMill!",
    'API key is "{}"': "S3cr3t",
    "my API key is {}.": HEX,
    "my API key is {}, keep it": UUID,
    "my api key is {} now": BASE32,
    "My API key is: {}": TWENTY,
    "my API key is now {}!": LETTERS,
    "our access key is {}": BASE32,
    "access-key={}": "swordfish",
    "secret key - {}": TWENTY,
    "the secret {} was printed": HEX,
    "API key {} stopped working": TWENTY,
    "the key is {}": HEX,
    "license key {}": "AB12C-D34EF-5GH6I-J78KL",
    "here is the key: {}": UUID,
    "signing_key = {}": BASE32,
    "signingKey: '{}'": HEX,
    "pass={}": "Tr0ub4dor&3",
    "PASS = '{}'": "swordfish",
    "DB_PASS={}": "swordfish",
    "user: joe, pass: {}": "hunter2",
    "joe's pass is {}": "hunter22",
    "login joe pass {}": "Tr0ub4dor&3x",
    "pass phrase: '{}'": "correct horse battery staple",
    'pass phrase - "{}"': "correct horse battery staple",
    "pass word {} please": "hunter22x",
    'my password "{}" works': "hunter22x",
    "token {}": "abcdef123456",
    "token {} has no digit": LETTERS,
    "use token '{}' here": "abcdef123456",
    "access token is {}": UUID,
    "API-Schlüssel: {}": HEX,
    "mein API Schlüssel ist {}": UUID,
    "ma clé API est {}": HEX,
    "la clé d'API : {}": BASE32,
    "mi clave de API es {}": TWENTY,
    "minha chave da API é {}": HEX,
    "redis://:{}@redis:6379/0": "pw",
    "amqp://joe:{}@rabbit/": "p&s$w!rd",
    "databricks configure {}": DATABRICKS,
}
IDENTIFIERS = {
    "email": ["jo.doe+x@mail.example.co.uk", "jo [at] example (dot) org", "ünï@bücher.example"],
    "phone": ["+49 30 901820", "(212) 736-5000", "212-736-5000", "+44 20 7946 0958", "0049 30 901820"],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
        "GB82WEST12345698765432",
        "fr14 2004 1010 0505 0001 3M02 606",
    ],
    "card": ["4111 1111 1111 1111", "4111\u00a01111\u202f1111\u20111111", "378282246310005", "5555-5555-5555-4444"],
    "ssn": ["078-05-1120", "219 09 9999", "219\u201109\u20119999"],
    "ip": ["8.8.8.8", "2001:4860:4860::8888"],
}
NOBODYS = [
    "I was born on 1984-05-01 at 10:30:00, in the last millennium.",
    "order 1234-5678-9012-3456, total 12345678.90, max_tokens: 4096",
    "connect to 127.0.0.1 or 192.168.1.10, version 3.11.4, :: and ::1",
    "DE88 3704 0044 0532 0130 00 has a wrong check sum",
    "4111 1111 1111 1112 has a wrong check digit",
    "The secret is patience; my password is long. It's @home, a@b, e-mail me!",
    "pineapple: 1200g, tokenizer: gpt2-large, tokens: 150k, secretary: Anna-Maria, my token of love is here",
    "commit 9c8e7f1b2a3d4e5f60718293a4b5c6d7e8f90123 in GradientAccumulationPlugin",
    "reset my password 2 times, a secret 100-year-old recipe, docker run -u 1000:1000, the password to the safe",
    "bearer of bad news, pin 12abc3 on the map, pass code review 2nd time, the secret to success is 42 days of work",
    "part 000-12-3456, 666-12-3456, 912-34-5678, 123-00-4567, 123-45-0000, 1123-45-6789, A123-45-6789 and 123-45 6789",
    "11/12/2024 and 12.11.2024, 1714550400 seconds, 0.5555555555",
]
PROSE = [
    "my token effort",
    "a token gesture, 12 tokens, token 17, token 4096 of gpt2-large-v2",
    "the key is under the mat",
    "the key is consistency, the key is 42-fold, key: value, key = 100-year-old",
    "access key people first",
    "the access key is in the drawer; the API key is required",
    "my API key expired in 2024, API keys are free, an API key per 1000 users",
    "I lost the key 2 weeks ago; press the key F12, key Ctrl+F12, the A4 key, a key step-2-of-3",
    "keyboard: MX3000keys, keyword python3, monkey: chimp2000x, turkey 2024trip, my keys: a1b2c3d4e5",
    "passport X12345678, passport: C01X00T47, bypass=Route66west, compass: N45E12north, passenger 12abcdefgh",
    "pass the salt, pass me 2 beers, the pass is 2,000ft high, the pass was closed, I pass to the left",
    "pass: 100%, PASS: test_step_2, pass 1st time, pass by 10:30am, a pass rate of 99.9percent",
    "the secret sauce, the secret 100-year-old recipe, a secret Level42 concert",
    "das Schlüsselbein, der Schlüssel ist unter der Matte, la clé est sous le tapis, la clave es la paciencia",
    "https://example.org:8080/a@b, ssh://git@host:22/x, redis://redis:6379/0, redis://:${REDIS_PASSWORD}@redis",
    "[`KeyObject`]: the class, [`toKey`]: https://example.org/docs/a1b2c3d4e5.html, key https://example.org/2024abc",
    "dapi1234, the key is INTERNATIONALLY known, the token is AccessTokenProviderFactory",
]


def said(*texts: str, title: str = "") -> Transcript:
    turns = tuple(Turn(role="user", text=text, time=datetime(2026, 1, 1, tzinfo=UTC)) for text in texts)
    return Transcript(turns=turns, source_format="plain-text", title=title)


@pytest.mark.parametrize(("kind", "value"), SECRETS.items())
def test_a_secret_is_taken_out_whole_and_counted_by_kind(kind: str, value: str) -> None:
    found = REDACTOR.redact_text(f"here it is: {value} — keep it")
    assert found.text == "here it is: [redacted secret] — keep it"
    assert found.counts == {kind: 1}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in IDENTIFIERS.items() for value in values])
def test_an_identifier_is_replaced_by_its_kind(kind: str, value: str) -> None:
    found = REDACTOR.redact_text(f"so: {value}, and more")
    assert found.text == f"so: [redacted {kind}], and more"
    assert found.counts == {kind: 1}


@pytest.mark.parametrize(("kind", "value"), [(kind, values[0]) for kind, values in IDENTIFIERS.items()])
def test_each_detector_can_be_switched_off(kind: str, value: str) -> None:
    others_off = {other: False for other in (*IDENTIFIERS, "secrets") if other != kind}
    assert Redactor(RedactionSettings(**others_off)).redact_text(value).counts == {kind: 1}
    off = RedactionSettings(**dict.fromkeys(IDENTIFIERS, False))
    assert Redactor(off).redact_text(value).text == value


def test_secrets_and_single_plugins_can_be_switched_off() -> None:
    assert Redactor(RedactionSettings(secrets=False)).redact_text(f"{GITHUB} {KEY}").counts == {}
    detector = PluginDetector(skip=["GitHubTokenDetector"])
    assert "secret/github-token" not in {found.kind for found in detector(GITHUB)}
    assert "GitHubTokenDetector" in plugin_names()


@pytest.mark.parametrize("text", NOBODYS)
def test_what_is_nobodys_stays_as_it_is(text: str) -> None:
    assert REDACTOR.redact_text(text).text == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my password is hunter2, ok?", "my password is [redacted secret], ok?"),
        ('{"api_key": "bees", "n": 3}', '{"api_key": "[redacted secret]", "n": 3}'),
        ("API_TOKEN=foobar", "API_TOKEN=[redacted secret]"),
        ("passphrase: 'correct horse battery staple'", "passphrase: '[redacted secret]'"),
        ("the pin is 4711.", "the pin is [redacted secret]."),
        ("Passwort: geheim1234!", "Passwort: [redacted secret]!"),
        ("das Kennwort ist Sommer2024", "das Kennwort ist [redacted secret]"),
        ("mot de passe : Azerty1234", "mot de passe : [redacted secret]"),
        ("contraseña: Gatito99x", "contraseña: [redacted secret]"),
        ("pw = S3cr3tPass", "pw = [redacted secret]"),
        ("log in with password hunter22x please", "log in with password [redacted secret] please"),
        ("I set the db password to Zebra!42x", "I set the db password to [redacted secret]"),
        ("curl -u admin:letmein99 https://x", "curl -u admin:[redacted secret] https://x"),
        ("send Bearer abcdefghijklmnop123456 with it", "send Bearer [redacted secret] with it"),
        ("Authorization: Bearer abcdefgh12", "Authorization: Bearer [redacted secret]"),
        ("postgresql://joe:swordfish@db/x", "postgresql://joe:[redacted secret]@db/x"),
    ],
)
def test_a_password_is_known_by_what_stands_beside_it(text: str, expected: str) -> None:
    assert REDACTOR.redact_text(text).text == expected


@pytest.mark.parametrize(("text", "value"), BESIDE.items())
def test_a_secret_is_known_however_its_name_is_written(text: str, value: str) -> None:
    found = REDACTOR.redact_text(text.format(value))
    assert found.text == text.format("[redacted secret]")
    assert sum(found.counts.values()) == 1
    assert REDACTOR.redact_text(found.text).counts == {}


@pytest.mark.parametrize("value", [HEX, UUID, BASE32])
def test_a_value_that_may_be_anything_stays_where_nothing_says_that_it_is_secret(value: str) -> None:
    assert REDACTOR.redact_text(f"build {value} is out").counts == {}


@pytest.mark.parametrize("text", PROSE)
def test_prose_about_keys_and_tokens_and_passes_stays(text: str) -> None:
    assert REDACTOR.redact_text(text).text == text


def test_a_private_key_that_is_cut_off_is_taken_out_as_far_as_it_goes() -> None:
    head = "-----BEGIN OPENSSH PRIVATE " + "KEY-----\n"
    text = f"look\n{head}b3BlbnNzaC1rZXktdjEAAAAA\nAAAAB3NzaC1yc2EAAA==\nWhat now, friend?\nbye"
    assert REDACTOR.redact_text(text).text == "look\n[redacted secret]\nWhat now, friend?\nbye"


def test_a_secret_found_once_is_taken_out_of_every_other_text() -> None:
    redacted = REDACTOR.redact([said("I tried hunter22 again"), said("password = 'hunter22'", title="hunter22?")])
    texts = [turn.text for one in redacted.transcripts for turn in one.turns]
    assert texts == ["I tried [redacted secret] again", "password = '[redacted secret]'"]
    assert redacted.transcripts[1].title == "[redacted secret]?"
    assert sum(redacted.counts.values()) == 3


def test_texts_lose_the_secrets_of_transcripts_beside_them_and_only_their_own_are_counted() -> None:
    beside = [said("password = 'hunter22'", "mail jo@example.org")]
    found = REDACTOR.redact_texts(["hunter22, it is", "and jim@example.org"], beside=beside)
    assert found.texts == ("[redacted secret], it is", "and [redacted email]")
    assert found.counts == {"email": 1, "secret/repeated": 1}
    assert REDACTOR.redact_texts(found.texts, beside=beside).counts == {}
    assert REDACTOR.redact_texts(["hunter22, it is"]).counts == {}


@pytest.mark.parametrize(
    ("beside", "value"),
    [
        ("pass={}", TWENTY),
        ("API key: {}", TWENTY),
        ("STAGING_CODE={}", TWENTY),
        ("STAGING_PASSWORD={}", "Swordfish-xyz"),
    ],
)
def test_a_secret_in_a_long_assignment_is_known_elsewhere_without_its_name(beside: str, value: str) -> None:
    redacted = REDACTOR.redact([said(f"then {value} came up"), said(beside.format(value))])
    texts = [turn.text for one in redacted.transcripts for turn in one.turns]
    assert texts == ["then [redacted secret] came up", beside.format("[redacted secret]")]


def test_a_word_in_a_long_assignment_stays_elsewhere() -> None:
    redacted = REDACTOR.redact([said("node got SIGUSR2"), said("node --heapsnapshot-signal=SIGUSR2")])
    assert redacted.transcripts[0].turns[0].text == "node got SIGUSR2"


def test_transcripts_keep_their_order_their_times_and_their_former_ids() -> None:
    given = [said("mail jo@example.org"), said("nothing here")]
    redacted = REDACTOR.redact(iter(given))
    assert redacted.source_ids == tuple(one.id for one in given)
    assert redacted.transcripts[1] == given[1]
    assert redacted.transcripts[0].id != given[0].id
    assert redacted.transcripts[0].started_at == given[0].started_at
    assert redacted.counts == {"email": 1}


def test_names_are_hidden_as_whole_words_in_any_case() -> None:
    redactor = Redactor(RedactionSettings(names=("Anna Müller", "Bob")))
    found = redactor.redact_text("BOB met anna müller's dog; Bobby and kebob did not.")
    assert found.text == "[redacted name] met [redacted name]'s dog; Bobby and kebob did not."
    assert found.counts == {"name": 2}


def test_a_pattern_of_ones_own_is_a_kind_of_its_own() -> None:
    redactor = Redactor(RedactionSettings(patterns={"patient-id": r"\bP-\d{6}\b"}))
    found = redactor.redact_text("P-123456 and P-1")
    assert (found.text, found.counts) == ("[redacted patient-id] and P-1", {"patient-id": 1})
    assert redactor.redact_text(found.text).counts == {}


def test_a_pattern_that_explodes_lets_nothing_pass() -> None:
    redactor = Redactor(RedactionSettings(patterns={"bad": r"(a|aa|a?a)+\d$"}))
    with pytest.raises(RedactionTooSlow, match="'bad' took over 2 s") as caught:
        redactor.redact_text("a" * 60)
    assert caught.value.field == "redaction.patterns.bad"
    assert "aaaa" not in caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"patterns": {"x": "("}},
        {"patterns": {"x": "a*"}},
        {"patterns": {"email": "a"}},
        {"patterns": {"Not a kind": "a"}},
        {"phone_regions": ["Germany"]},
        {"names": ["A"]},
        {"mail": True},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RedactionSettings.model_validate(wrong)


def test_the_record_tells_settings_apart_and_names_nobody() -> None:
    one = Redactor(RedactionSettings(names=("Anna Müller",), patterns={"id": "P-[0-9]+"}))
    other = Redactor(RedactionSettings(names=("Anna Miller",), patterns={"id": "P-[0-9]+"}))
    assert one.record() != other.record()
    assert one.digest != other.digest
    written = json.dumps(one.record(), ensure_ascii=False)
    assert "Müller" not in written
    assert "P-[" not in written


def test_findings_say_where_and_never_what() -> None:
    text = f"[redacted email] jo@example.org {GITHUB}"
    found = REDACTOR.find(text)
    assert [(one.kind, text[one.start : one.end]) for one in found] == [
        ("email", "jo@example.org"),
        ("secret/github-token", GITHUB),
    ]
    assert "jo@" not in repr(found)


BREAKING = [
    "password = ",
    "'",
    '"',
    "\n",
    "[redacted email]",
    "[redacted ",
    "secret: ",
    "://",
    "@",
    "BEGIN PRIVATE KEY",
]
PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(
        [*SECRETS.values(), *(value for values in IDENTIFIERS.values() for value in values), *NOBODYS, *BREAKING]
    ),
    st.sampled_from([*(text.format(value) for text, value in BESIDE.items()), *BESIDE, *PROSE]),
    st.text(ALNUM, min_size=20, max_size=60),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@settings(deadline=None, max_examples=150)
@given(TEXTS)
def test_nothing_is_found_in_a_redacted_text_and_redacting_again_changes_nothing(text: str) -> None:
    once = REDACTOR.redact_text(text)
    assert REDACTOR.find(once.text) == ()
    again = REDACTOR.redact_text(once.text)
    assert (again.text, again.counts) == (once.text, {})
    assert REDACTOR.redact_text(text) == once


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_redacting_a_set_of_transcripts_again_changes_nothing(texts: list[str]) -> None:
    once = REDACTOR.redact([said(*texts)])
    again = REDACTOR.redact(once.transcripts)
    assert again.transcripts == once.transcripts
    assert again.counts == {}


@settings(deadline=None, max_examples=100)
@given(TEXTS, st.text(ALNUM, min_size=36, max_size=36), st.text(string.ascii_lowercase, min_size=8, max_size=20), TEXTS)
def test_no_secret_survives_wherever_it_stands(before: str, token: str, password: str, after: str) -> None:
    assume(token not in before + after)  # by itself it is no secret, and stays
    text = f'{before} ghp_{token} {after}\npassword = "{password}1"\n{after}'
    cleaned = REDACTOR.redact_text(text).text
    assert token not in cleaned
    assert f'"{password}1"' not in cleaned
    plugins = (GitHubTokenDetector(), SlackDetector(), OpenAIDetector())
    assert [found for plugin in plugins for line in cleaned.split("\n") for found in plugin.analyze_string(line)] == []
    beside = [found for line in cleaned.split("\n") for found in KeywordDetector().analyze_string(line)]
    assert all("[redacted" in found for found in beside)


HOSTILE = {
    "one letter": "a",
    "digits": "1",
    "digits and spaces": "1 ",
    "keywords": "password",
    "keywords and quotes": "'password\" ",
    "open assignments": 'password="a ',
    "slashes": "/",
    "npm": "//a/:_authToke",
    "at signs": "a@",
    "colons": "a:",
    "JWT heads": "eyJ",
    "key heads": "BEGIN RSA PRIVATE " + "KEY\n",
    "placeholder heads": "[redacted ",
    "IBAN heads": "DE89",
    "addresses": "://a",
    "quotes": "'\"",
    "telephones": "+1(",
    "brackets": "[at] (dot) ",
    "authorization": "authorization: ",
    "new lines": "\n",
    "names": "API key ",
    "names that touch": "key_",
    "names and digits": "token 1 ",
    "names and dashes": "pass - ",
    "assignments": "pass=a1",
    "long words": "key a1-",
    "URLs without users": "://:",
    "URLs without ends": "://:a",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    def once(text: str) -> float:
        started = time.thread_time()
        REDACTOR.redact_text(text)
        return time.thread_time() - started

    def seconds(size: int) -> float:
        return min(once(unit * (size // len(unit))) for _ in range(3))  # a machine's hiccup is in one of them at most

    once(unit * 100)
    short, long = seconds(10_000), seconds(40_000)
    assert long < 12 * short + 0.2, (short, long)
