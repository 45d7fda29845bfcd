"""The plugins of detect-secrets, asked where in a text they match. The one place that imports the package.

Its own entry points are not used, for three reasons. `analyze_line` may verify a candidate by sending it to the
service that it seems to belong to. `analyze_string` answers with a pattern's groups, so of a GitHub token it names
``ghp`` and of a private key its first line. And it takes time quadratic in the length of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from detect_secrets import plugins
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.high_entropy_strings import (
    Base64HighEntropyString,
    HexHighEntropyString,
    HighEntropyStringsPlugin,
)
from detect_secrets.plugins.ip_public import IPPublicDetector
from detect_secrets.plugins.keyword import DENYLIST, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP, KeywordDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector

from transcripts.redaction.finding import Finding, windows

_WINDOW = 4096
_KEYWORD_WINDOW = 512
_MAX_KEYWORDS = 16
_KEYWORD = re.compile("|".join(DENYLIST), re.IGNORECASE)
# A token is taken whole, though a pattern asks only for its first characters.
_BEFORE = re.compile(r"[A-Za-z0-9_]*\Z")
_AFTER = re.compile(r"[A-Za-z0-9_+/=-]*")
# No plugin matches a line without one of these.
_MAY_MATCH = re.compile(r"[^\s]{10}|['\"`]|BEGIN|PuTTY")
# Without this at its end the plugin's pattern takes time quadratic in the slashes.
_NEEDED = {"NpmDetector": "/:_authToken"}
_PLACES = (IPPublicDetector, PrivateKeyDetector)  # addresses and key blocks have detectors of our own


@cache
def plugin_names() -> tuple[str, ...]:
    """Return the class names of every plugin, in order."""
    return tuple(sorted(cls.__name__ for cls in _classes()))


class PluginDetector:
    """Finds what the plugins know. Its kinds are ``secret/`` and the plugin's name in words."""

    def __init__(self, *, skip: Iterable[str] = ()) -> None:
        skipped = set(skip)
        asked = [cls for cls in _classes() if cls.__name__ not in skipped]
        self._patterns = [
            (regex, f"secret/{_words(cls.__name__)}", int(cls is BasicAuthDetector), _NEEDED.get(cls.__name__, ""))
            for cls in asked
            if issubclass(cls, RegexBasedDetector) and cls not in _PLACES
            for regex in cls().denylist
        ]
        self._entropy = [cls() for cls in (Base64HighEntropyString, HexHighEntropyString) if cls in asked]
        self._keywords = KeywordDetector in asked

    def __call__(self, text: str) -> Iterator[Finding]:
        """Yield the findings of every plugin that is asked."""
        for offset, piece in windows(text, size=_WINDOW):
            if _MAY_MATCH.search(piece):
                for found in self._in_piece(piece):
                    yield Finding(kind=found.kind, start=offset + found.start, end=offset + found.end)
        if self._keywords:
            for offset, piece in windows(text, size=_KEYWORD_WINDOW):
                for start, end in _after_keywords(piece):
                    yield Finding(kind="secret/keyword", start=offset + start, end=offset + end)

    def _in_piece(self, piece: str) -> Iterator[Finding]:
        for regex, kind, group, needed in self._patterns:
            for match in regex.finditer(piece) if needed in piece else ():
                start, end = match.span(group)
                if group == 0:
                    start, end = whole_token(piece, start, end)
                yield Finding(kind=kind, start=start, end=end)
        if "'" in piece or '"' in piece:
            for plugin in self._entropy:
                yield from _random_strings(piece, plugin)


def whole_token(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a match to the token that it is a part of, by at most 64 characters to the left."""
    before = _BEFORE.search(text, max(0, start - 64), start)
    after = _AFTER.match(text, end)
    return before.start() if before else start, after.end() if after else end


def _random_strings(piece: str, plugin: HighEntropyStringsPlugin) -> Iterator[Finding]:
    for match in plugin.regex.finditer(piece):
        if plugin.calculate_shannon_entropy(match[2]) > plugin.entropy_limit:
            yield Finding(kind="secret/random-string", start=match.start(2), end=match.end(2))


def _after_keywords(piece: str) -> Iterator[tuple[int, int]]:
    """Yield the quoted values that stand beside a word such as ``password``.

    No person's line holds more such words than `_MAX_KEYWORDS`; the patterns' time grows with their number, so a
    piece that does is hidden whole.
    """
    if not any(quote in piece for quote in "'\"`"):
        return
    keywords = sum(1 for _ in _KEYWORD.finditer(piece))
    if keywords > _MAX_KEYWORDS:
        yield 0, len(piece)
    elif keywords:
        for regex, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
            for match in regex.finditer(piece):
                yield match.span(group)


@cache
def _classes() -> tuple[type[BasePlugin], ...]:
    """Return the package's concrete plugins: each module's own classes, in an order that is always the same."""
    found: set[type[BasePlugin]] = set()
    for module in iter_modules(plugins.__path__):
        loaded = import_module(f"{plugins.__name__}.{module.name}")
        found.update(
            value
            for value in vars(loaded).values()
            if isinstance(value, type)
            and issubclass(value, BasePlugin)
            and value.__module__ == loaded.__name__
            and not value.__abstractmethods__
        )
    return tuple(sorted(found, key=lambda cls: cls.__name__))


def _words(name: str) -> str:
    """``GitHubTokenDetector`` → ``github-token``."""
    name = name.removesuffix("Detector")
    for brand in ("GitHub", "GitLab", "OpenAI", "SendGrid", "PyPI", "PypiToken"):
        name = name.replace(brand, brand.capitalize())
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
