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
      | dapi[a-f0-9]{32}
      | AGE-SECRET-KEY-1[A-Z0-9]{20,} | shpat_[a-fA-F0-9]{20,} | dckr_pat_[A-Za-z0-9_-]{20,}
    )""",
    re.VERBOSE,
)
_AUTHORIZATION = re.compile(
    r"\b(?:authorization|x-api-key)['\"]?\s{0,3}[:=]\s{0,3}['\"]?(?:(?:bearer|basic|token)\s{1,3})?"
    r"(?!(?:bearer|basic|token)\b)(?P<value>[^\s'\"]{6,200})",
    re.IGNORECASE,
)
# `password: x`, `API_TOKEN=x`, `the API key is x`, `token x1`, `pass phrase - "v w x y"`. What is called a pass or a
# key is seldom a secret: of these only a value that looks like one counts.
_NAMED = re.compile(
    r"(?P<name>(?P<password>pass[ _-]?(?:word|wort|wd|phrase|code)|\bpwd|\bpw\b|kennwort"
    r"|contrase[ñn]\u0303?a|\bsenha|mot[ _-]de[ _-]passe)"
    r"|\bpin(?:[ _-]?(?:code|number))?\b|secret(?!ar|ly)(?:[ _-]key)?|token(?!i|s\b)|(?:api|access|auth)[ _-]?key"
    r"|credentials?"
    r"|(?:(?P<pass>(?<![^\W_])pass)"
    r"|(?P<key>(?<![^\W_])key|(?-i:(?<=[a-z])Key)|schl(?:ü|u\u0308|ue)ssel"
    r"|\b(?:cl(?:é|e\u0301)|[cl]lave|chave)(?: (?:d['’]|d[ea] )?api)?))(?![^\W_]))"
    r"\w{0,20}['\"`\]*]{0,3}(?P<sign>\s{0,3}(?::=|=>|={1,3}|:)\*{0,2}\s{0,3}"
    r"|\s{1,3}(?:is|was|to|ist|lautet|es|est|é|e\u0301):?\s{1,3}(?:now\s{1,3})?"
    r"|\s{1,3}(?P<dash>[-\u2013\u2014]{1,2})\s{1,3}|[ \t]{1,3}(?=['\"`]?(?:[^\s'\"`]{0,199}\d|[A-Za-z]{16})))"
    r"(?:\"(?P<double>[^\"\n]{1,200})\"|'(?P<single>[^'\n]{1,200})'|`(?P<back>[^`\n]{1,200})`|(?P<bare>[^\s'\"`]{4,200}))",
    re.IGNORECASE,
)
# `redis://:x@host`, and the characters that detect-secrets leaves out of `scheme://name:x@host`; a variable is no value
_IN_URL = re.compile(
    r"://[^\s:/?#@\[\]'\"`<>]{0,128}:(?!\$?[{(]|\$[A-Z_]{1,64}@)(?P<value>[^\s/?#@\[\]'\"`<>]{1,200})@",
)
# `curl -u name:x`, `Bearer x` where no header is named
_ACCOUNT = re.compile(r"(?<!\S)(?:-u|--user)[ =]{1,2}['\"]?[\w.@+-]{1,64}:(?P<value>[^\s'\"]{4,200})")
_BEARER = re.compile(r"\bbearer\s{1,3}(?P<value>(?=[A-Za-z._~+/=-]{0,199}\d)[A-Za-z0-9._~+/=-]{16,200})", re.IGNORECASE)
_MIN_PASSWORD = 4
_MIN_BARE_PASSWORD = 6
_BARE_TRAIL = ".,;:!?)]}>"
_PIECE = re.compile(r"[^-_./\\,:;()\[\]<>=?#]+")
_MIN_PASS, _MIN_KEY, _MIN_BESIDE = 6, 8, 10
_MIN_LETTERS, _MIN_CAPITALS, _LETTERS_BITS = 16, 0.25, 3.3
_RANDOM = re.compile(r"[A-Za-z0-9_+=-]{24,512}")
_ASSIGNED = re.compile(r"[A-Za-z_-]{1,32}={1,3}(?=[^=])")
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
    for match in _IN_URL.finditer(piece):
        yield Finding(kind="secret/password", start=match.start("value"), end=match.end("value"))
    for match in _BEARER.finditer(piece):
        yield Finding(kind="secret/authorization", start=match.start("value"), end=match.end("value"))
    named = list(_named(piece))
    yield from named
    starts = {found.start for found in named}
    for match in _RANDOM.finditer(piece):
        if _is_random(match[0]):
            start = _start_of_value(match, starts)
            yield Finding(kind="secret/random-string", start=start, end=match.end())


def _start_of_value(random: re.Match[str], named: set[int]) -> int:
    """Return where the value of `X_CODE=value` begins, if it is a secret that may stand alone elsewhere."""
    name = _ASSIGNED.match(random[0])
    if name is not None:
        start = random.start() + name.end()
        if start in named or _is_key(random[0][name.end() :], mixed=_MIN_KEY):
            return start
    return random.start()


def _named(piece: str) -> Iterator[Finding]:
    """Yield the values, unless they are words of a sentence (``the secret is patience``)."""
    at = 0
    while (match := _NAMED.search(piece, at)) is not None:
        group = next(name for name in ("double", "single", "back", "bare") if match[name] is not None)
        value = match[group] if group != "bare" else match[group].rstrip(_BARE_TRAIL)
        if _is_named(match, value, quoted=group != "bare"):
            at = match.start(group) + len(value)
            yield Finding(kind="secret/password", start=match.start(group), end=at)
        else:
            at = match.end("name")  # what follows may name another: `key password1=x`


def _is_named(match: re.Match[str], value: str, *, quoted: bool) -> bool:
    """Whether the value is a secret: the less its name and the sign between say so, the more it must look like one."""
    assigned = "=" in match["sign"]
    if match["sign"].isspace() or (match["dash"] and not quoted):
        return _is_mixed(value) if match["password"] else _is_key(value, mixed=_MIN_BESIDE)
    if match["key"]:
        return _is_key(value, mixed=_MIN_KEY)
    if match["pass"] and not assigned:
        return _is_key(value, mixed=_MIN_PASS)
    if match["name"].lower() == "token" and value.isdecimal():  # max_tokens: 4096
        return False
    return _is_password(value, quoted=quoted, assigned=assigned) or _is_key(value, mixed=_MIN_KEY)


def _is_mixed(value: str) -> bool:
    """Whether what merely follows the word reads as a password: some letters, some digits."""
    letters, digits = sum(map(str.isalpha, value)), sum(map(str.isdecimal, value))
    return len(value) >= _MIN_BARE_PASSWORD and letters > 0 and digits > 0 and " " not in value


def _is_key(value: str, *, mixed: int) -> bool:
    """Whether a value reads as one that a machine made up, and not as words, numbers with a unit or an address.

    At least `mixed` of its characters are in pieces of letters and digits, which leaves out ``100-year-old``; or it is
    one long piece of letters, many of them capitals, and few of them twice.
    """
    if " " in value or "://" in value:
        return False
    if value.isascii() and value.isalpha():
        many = sum(map(str.isupper, value)) >= _MIN_CAPITALS * len(value)
        return len(value) >= _MIN_LETTERS and many and _bits(value) >= _LETTERS_BITS
    pieces = _PIECE.findall(value)
    return sum(len(one) for one in pieces if any(map(str.isalpha, one)) and any(map(str.isdecimal, one))) >= mixed


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
