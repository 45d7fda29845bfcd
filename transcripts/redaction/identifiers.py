"""Personal identifiers: e-mail addresses, telephone numbers, bank accounts, cards, social security numbers, IPs.

What has a check sum is checked, so that an order number stays what it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

import phonenumbers

from transcripts.redaction.finding import Finding

# Every quantifier is bounded, so that each takes time linear in the text's length.
_EMAIL = re.compile(
    r"[\w.!#$%&'*+/=?^{|}~-]{1,64}"
    r"(?:@|\s{0,2}[\[({]\s{0,2}at\s{0,2}[\])}]\s{0,2})"
    r"(?:\w[\w-]{0,62}(?:\.|\s{0,2}[\[({]\s{0,2}dot\s{0,2}[\])}]\s{0,2})){1,8}[^\W\d_][\w-]{1,62}",
    re.IGNORECASE,
)
_PHONE = re.compile(r"(?<![\w.,/-])(?:\+|\(|00)?\d(?:[ ()./\u00a0\u2011-]{0,3}\d){6,16}(?![\w/-])(?![.,]\d)")
_NO_PHONE = re.compile(r"\d+\.\d+|\d{4}-\d\d-\d\d(?:[ T-]?\d\d.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}(?: .*)?")
# What stands between groups: a space or hyphen, or one that does not break, as pages and documents have them.
_BETWEEN = " \u00a0\u2007\u202f\u2010\u2011-"
_IBAN = re.compile(rf"(?<![A-Za-z0-9])[A-Z]{{2}}\d{{2}}(?:[{_BETWEEN}]?[A-Z0-9]){{10,32}}", re.IGNORECASE)
_CARD = re.compile(rf"(?<![\dA-Za-z.])[2-6](?:[{_BETWEEN}]?\d){{12,18}}(?!\d)")
# Area, group and serial; those that the Social Security Administration never gives away are left alone.
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- \u00a0\u2011])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])")

# Characters of a country's account numbers, by the registry of ISO 13616.
_IBAN_CHARACTERS = {
    **{"NO": 15, "BE": 16, "DK": 18, "FI": 18, "FO": 18, "GL": 18, "NL": 18, "MK": 19, "SI": 19},
    **{"AT": 20, "BA": 20, "EE": 20, "KZ": 20, "LT": 20, "LU": 20, "XK": 20, "CH": 21, "HR": 21, "LI": 21, "LV": 21},
    **{"BG": 22, "BH": 22, "CR": 22, "DE": 22, "GB": 22, "GE": 22, "IE": 22, "ME": 22, "RS": 22, "VA": 22},
    **{"AE": 23, "GI": 23, "IL": 23, "IQ": 23, "OM": 23, "TL": 23, "AD": 24, "CZ": 24, "ES": 24, "MD": 24, "PK": 24},
    **{"RO": 24, "SA": 24, "SE": 24, "SK": 24, "TN": 24, "VG": 24, "LY": 25, "PT": 25, "ST": 25, "IS": 26, "TR": 26},
    **{"FR": 27, "GR": 27, "IT": 27, "MC": 27, "MR": 27, "SM": 27, "AL": 28, "AZ": 28, "BY": 28, "CY": 28, "DO": 28},
    **{"GT": 28, "HU": 28, "LB": 28, "PL": 28, "BR": 29, "EG": 29, "PS": 29, "QA": 29, "UA": 29, "JO": 30, "KW": 30},
    **{"MU": 30, "MT": 31, "SC": 31, "LC": 32},
}


def find_emails(text: str) -> Iterator[Finding]:
    """Yield addresses, also those with ``[at]`` and ``(dot)``."""
    if "@" in text or "at" in text or "AT" in text:
        for match in _EMAIL.finditer(text):
            yield Finding(kind="email", start=match.start(), end=match.end())


class PhoneDetector:
    """Finds numbers that the numbering plans allow: international ones, and those of some regions."""

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = (None, *regions)

    def __call__(self, text: str) -> Iterator[Finding]:
        """Yield the numbers."""
        for match in _PHONE.finditer(text):
            if not _NO_PHONE.fullmatch(match[0]) and any(_is_phone(match[0], region) for region in self._regions):
                yield Finding(kind="phone", start=match.start(), end=match.end())


def _is_phone(text: str, region: str | None) -> bool:
    if text.startswith("00") and region is None:
        text = f"+{text[2:]}"
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def find_ibans(text: str) -> Iterator[Finding]:
    """Yield account numbers of the right length and check sum, in groups or not."""
    for match in _IBAN.finditer(text):
        wanted = _IBAN_CHARACTERS.get(match[0][:2].upper(), 0)
        places = [place for place, character in enumerate(match[0]) if character not in _BETWEEN][:wanted]
        account = "".join(match[0][place] for place in places).upper()
        if wanted and len(account) == wanted and _has_check_sum(account):
            yield Finding(kind="iban", start=match.start(), end=match.start() + places[-1] + 1)


def _has_check_sum(account: str) -> bool:
    """ISO 7064 mod 97-10."""
    digits = "".join(str(int(character, 36)) for character in account[4:] + account[:4])
    return int(digits) % 97 == 1


def find_cards(text: str) -> Iterator[Finding]:
    """Yield card numbers of 13 to 19 digits whose check digit is right."""
    for match in _CARD.finditer(text):
        digits = [int(character) for character in match[0] if character.isdigit()]
        if len(set(digits)) > 1 and _luhn(digits):
            yield Finding(kind="card", start=match.start(), end=match.end())


def _luhn(digits: list[int]) -> bool:
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def find_social_security_numbers(text: str) -> Iterator[Finding]:
    """Yield numbers of the United States' form, 3-2-4 digits, that can have been given to somebody."""
    for match in _SSN.finditer(text):
        yield Finding(kind="ssn", start=match.start(), end=match.end())


def find_ips(text: str) -> Iterator[Finding]:
    """Yield addresses that are anybody's in particular: public ones."""
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if address.is_global:
                yield Finding(kind="ip", start=match.start(), end=match.end())
