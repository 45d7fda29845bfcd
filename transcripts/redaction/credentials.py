"""Secrets that detect-secrets does not see: whole private keys, newer tokens, passwords as people write them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from transcripts.redaction.finding import Finding, windows
from transcripts.redaction.plugins import whole_token

_WINDOW = 4096
_KEY_BEGINS = re.compile(r"(?:-{2,5} ?)?BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?|PuTTY-User-Key-File-\d")
_KEY_ENDS = re.compile(r"END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?(?: ?-{2,5})?|Private-MAC: [0-9a-f]+")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=\\n -]{0,80}|[A-Za-z-]{2,20}: .{0,120}")
_MAX_KEY_CHARACTERS = 16_384
_TOKENS = re.compile(
    r"""\b(?:
        sk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,}   # Anthropic, OpenAI, OpenRouter
      | github_pat_[A-Za-z0-9_]{20,} | gh[pousr]_[A-Za-z0-9]{20,}
      | hf_[A-Za-z0-9]{20,} | AIza[A-Za-z0-9_-]{30,} | ya29\.[A-Za-z0-9_-]{20,}
      | xox[a-z](?:\.[a-z0-9]+)?-[A-Za-z0-9-]{10,} | xapp-[A-Za-z0-9-]{10,}
      | (?:sk|rk|pk|whsec)_(?:live_|test_)?[A-Za-z0-9]{16,}
      | npm_[A-Za-z0-9]{30,} | dop_v1_[a-f0-9]{32,} | glpat-[A-Za-z0-9_-]{16,}
      | AGE-SECRET-KEY-1[A-Z0-9]{20,} | shpat_[a-fA-F0-9]{20,} | dckr_pat_[A-Za-z0-9_-]{20,}
    )""",
    re.VERBOSE,
)
_AUTHORIZATION = re.compile(
    r"\b(?:authorization|x-api-key)['\"]?\s{0,3}[:=]\s{0,3}['\"]?(?:(?:bearer|basic|token)\s{1,3})?"
    r"(?!(?:bearer|basic|token)\b)(?P<value>[^\s'\"]{6,200})",
    re.IGNORECASE,
)
# `password: x`, `API_TOKEN=x`, `the password is x`, `pass phrase - "x y z"`
_NAMED = re.compile(
    r"(?P<name>(?P<password>pass(?:word|wort|wd|phrase|code)|\bpwd|\bpw\b|kennwort"
    r"|contrase[ñn]\u0303?a|\bsenha|mot de passe)"
    r"|\bpin(?:[_-]?(?:code|number))?\b|secret(?!ar|ly)|token(?!i|s\b)|api[_-]?key|access[_-]?key|credentials?)"
    r"\w{0,20}['\"\]]{0,2}(?P<sign>\s{0,3}(?::=|=>|={1,3}|:)\s{0,3}"
    r"|\s{1,3}(?:is|was|to|ist|lautet|es|est|é):?\s{1,3}(?:now\s{1,3})?|[ \t](?=[^\s'\"`]*\d))"
    r"(?:\"(?P<double>[^\"\n]{1,200})\"|'(?P<single>[^'\n]{1,200})'|`(?P<back>[^`\n]{1,200})`|(?P<bare>[^\s'\"`]{4,200}))",
    re.IGNORECASE,
)
# `curl -u name:x`, `Bearer x` where no header is named
_ACCOUNT = re.compile(r"(?<!\S)(?:-u|--user)[ =]{1,2}['\"]?[\w.@+-]{1,64}:(?P<value>[^\s'\"]{4,200})")
_BEARER = re.compile(r"\bbearer\s{1,3}(?P<value>(?=[A-Za-z._~+/=-]{0,199}\d)[A-Za-z0-9._~+/=-]{16,200})", re.IGNORECASE)
_MIN_PASSWORD = 4
_MIN_BARE_PASSWORD = 6
_BARE_TRAIL = ".,;:!?)]}>"
_RANDOM = re.compile(r"[A-Za-z0-9_+=-]{24,512}")
_RANDOM_BITS = 3.7


class CredentialDetector:
    """Finds them all; its kinds begin with ``secret/``."""

    def __call__(self, text: str) -> Iterator[Finding]:
        """Yield the findings, in time linear in the text's length."""
        yield from _private_keys(text)
        for offset, piece in windows(text, size=_WINDOW):
            for found in _in_piece(piece):
                yield Finding(kind=found.kind, start=offset + found.start, end=offset + found.end)


def _private_keys(text: str) -> Iterator[Finding]:
    """Yield from each key's first line to its last; to the end of what looks like a key where that is missing."""
    at = 0
    while (begins := _KEY_BEGINS.search(text, at)) is not None:
        ends = _KEY_ENDS.search(text, begins.end(), begins.end() + _MAX_KEY_CHARACTERS)
        at = ends.end() if ends else _end_of_key(text, begins.end())
        yield Finding(kind="secret/private-key", start=begins.start(), end=at)


def _end_of_key(text: str, at: int) -> int:
    """Return where the lines end that can belong to a key whose end is cut off."""
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    while end < len(text) and end - at < _MAX_KEY_CHARACTERS:
        stop = text.find("\n", end + 1)
        stop = len(text) if stop < 0 else stop
        if not _KEY_LINE.fullmatch(text, end + 1, stop):
            break
        end = stop
    return end


def _in_piece(piece: str) -> Iterator[Finding]:
    for match in _TOKENS.finditer(piece):
        start, end = whole_token(piece, *match.span())
        yield Finding(kind="secret/token", start=start, end=end)
    for match in _AUTHORIZATION.finditer(piece):
        yield Finding(kind="secret/authorization", start=match.start("value"), end=match.end("value"))
    for match in _ACCOUNT.finditer(piece):
        value = match["value"].rstrip(_BARE_TRAIL)
        if value and not value.isdecimal():  # docker run -u 1000:1000
            start = match.start("value")
            yield Finding(kind="secret/password", start=start, end=start + len(value))
    for match in _BEARER.finditer(piece):
        yield Finding(kind="secret/authorization", start=match.start("value"), end=match.end("value"))
    for match in _NAMED.finditer(piece):
        yield from _named(match)
    for match in _RANDOM.finditer(piece):
        if _is_random(match[0]):
            yield Finding(kind="secret/random-string", start=match.start(), end=match.end())


def _named(match: re.Match[str]) -> Iterator[Finding]:
    """Yield the value, unless it is a word of a sentence (``the secret is patience``)."""
    group = next(name for name in ("double", "single", "back", "bare") if match[name] is not None)
    start, end = match.span(group)
    value = match[group]
    if group == "bare":
        value = value.rstrip(_BARE_TRAIL)
        end = start + len(value)
    counted = match["name"].lower() == "token" and value.isdecimal()  # max_tokens: 4096
    if match["sign"].isspace() and not (match["password"] and _is_mixed(value)):
        return
    if not counted and _is_password(value, quoted=group != "bare", assigned="=" in match["sign"]):
        yield Finding(kind="secret/password", start=start, end=end)


def _is_mixed(value: str) -> bool:
    """Whether what merely follows the word reads as a password: some letters, some digits."""
    letters, digits = sum(map(str.isalpha, value)), sum(map(str.isdecimal, value))
    return len(value) >= _MIN_BARE_PASSWORD and letters > 0 and digits > 0


def _is_password(value: str, *, quoted: bool, assigned: bool) -> bool:
    if len(value) < _MIN_PASSWORD:
        return False
    has_other = any(not character.isalpha() and character not in " -'’" for character in value)
    return has_other or (assigned and " " not in value) or (quoted and len(value.split()) in {1, 4, 5, 6})


def _is_random(text: str) -> bool:
    """Tell a key from a long name: upper and lower case and digits, and hardly a character twice."""
    kinds = (str.isupper, str.islower, str.isdigit)
    if not all(any(map(kind, text)) for kind in kinds):
        return False
    return _bits(text) >= _RANDOM_BITS


def _bits(text: str) -> float:
    """Return Shannon's entropy of the characters, in bits each."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
