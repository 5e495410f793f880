"""Secrets and personal data in a text, by patterns that are exact enough to stop a sweep.

The forms are those that their makers publish: tokens as GitHub's secret scanning and gitleaks know them, cards by ISO/IEC 7812 with
Luhn's check digit, bank accounts by ISO 13616 with the lengths of its registry, telephone numbers by ITU-T E.164, after + or 00, and
by the North American numbering plan, with hyphens, dots or parentheses. Examples do not count: RFC 2606's domains, 555-01xx, the test
numbers of payment providers.

Left out on purpose: names, addresses and dates, which no pattern can tell; IP addresses, which look like version numbers; and telephone
numbers with spaces alone, which look like sums.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """What is private, by the name under which it is accepted."""

    SECRETS = "secrets"
    PERSONAL = "personal-data"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A form of private data.

    Attributes:
        what: Its name, in the singular.
        hints: A text with none of these is not searched.
        pattern: The form; its group with a name, where it has one, is what is found.
        is_real: Whether what has the form is one, and no example.
    """

    kind: Kind
    what: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    is_real: Callable[[str], bool]

    def is_in(self, text: str) -> bool:
        """Tell whether a text has one."""
        if not any(hint in text for hint in self.hints):
            return False
        return any(self.is_real(found.group(found.lastgroup or 0)) for found in self.pattern.finditer(text))


FEWEST_CHARACTERS = 10
"""A token has so many different characters: `sk-xxxxxxxxxxxxxxxxxxxxxxxx` and `ghp_000…` are placeholders."""

IBAN_LENGTHS = MappingProxyType(
    {
        length: countries.split()
        for length, countries in {
            15: "NO",
            16: "BE",
            18: "DK FI FK FO GL NL SD",
            19: "MK SI",
            20: "AT BA EE KZ LT LU MN XK",
            21: "CH HR LI LV",
            22: "BG BH CR DE GB GE IE ME RS VA",
            23: "AE GI IL IQ OM SO TL",
            24: "AD CZ ES MD PK RO SA SE SK TN VG",
            25: "LY PT ST",
            26: "IS TR",
            27: "BI DJ FR GR IT MC MR SM",
            28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
            29: "BR EG PS QA UA",
            30: "JO KW MU YE",
            31: "MT SC",
            32: "LC",
            33: "RU",
        }.items()
    }
)
"""Characters of a bank account's number, with the countries that have so many."""

_LENGTH_OF = {country: length for length, countries in IBAN_LENGTHS.items() for country in countries}
_EXAMPLE_DOMAIN = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost|local)$")
_FILE_ENDINGS = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "html", "txt"})
_EXAMPLE_PHONES = re.compile(r"1?\d{3}55501\d\d|4420794600\d\d|447700900\d{3}|441632960\d{3}")
_TEST_CARDS = frozenset(
    {
        "4111111111111111",
        "4242424242424242",
        "4012888888881881",
        "4000056655665556",
        "5555555555554444",
        "5105105105105100",
        "2223003122003222",
        "6011111111111117",
        "6011000990139424",
        "378282246310005",
        "371449635398431",
    }
)
_NAMES_ALGORITHM = re.compile(rb'"alg"\s*:')  # not read as JSON: that recurses as deeply as a text wants
_CLAIMS_OF_JWT_IO = "eyJzdWIiOiIxMjM0NTY3ODkwIi"
_CARD_BEGINS = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6011|65")


def _is_random(found: str) -> bool:
    return len(set(found)) >= FEWEST_CHARACTERS and not found.endswith("EXAMPLE")  # as AWS's documentation has them


def _is_token(found: str) -> bool:
    return _is_random(found) and any(map(str.isdigit, found))


def _is_mixed_token(found: str) -> bool:
    """Tell a token from a name with hyphens."""
    return _is_token(found) and found != found.lower()


def _is_web_token(found: str) -> bool:
    head, claims, _ = found.split(".")
    try:
        header = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    except binascii.Error:
        return False
    return _NAMES_ALGORITHM.search(header) is not None and not claims.startswith(_CLAIMS_OF_JWT_IO)


def _is_address(found: str) -> bool:
    user, _, domain = found.lower().rpartition("@")
    if user in {"git", "noreply", "no-reply"} or domain.rpartition(".")[2] in _FILE_ENDINGS:
        return False
    return _EXAMPLE_DOMAIN.search(domain) is None


def _digits(found: str) -> str:
    return re.sub(r"[^0-9]", "", found)


def _is_international(found: str) -> bool:
    digits = _digits(found).removeprefix("00")
    return 9 <= len(digits) <= 15 and len(set(digits)) > 2 and _EXAMPLE_PHONES.fullmatch(digits) is None  # noqa: PLR2004 - E.164


def _is_american(found: str) -> bool:
    digits = _digits(found)
    return not digits.startswith("555") and _EXAMPLE_PHONES.fullmatch(digits) is None


def _is_card(found: str) -> bool:
    digits = _digits(found)
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    is_checked = sum(number // 10 + number % 10 for number in doubled) % 10 == 0
    return is_checked and _CARD_BEGINS.match(digits) is not None and digits not in _TEST_CARDS


def _is_account(found: str) -> bool:
    compact = found.replace(" ", "")
    number = compact[: _LENGTH_OF.get(compact[:2], 0)]
    if len(number) < min(IBAN_LENGTHS):
        return False
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def _made(kind: Kind, *forms: tuple[str, str, str, Callable[[str], bool]]) -> Iterator[Pattern]:
    for what, hints, pattern, is_real in forms:
        yield Pattern(kind, what, tuple(hints.split(" ")), re.compile(pattern, re.ASCII), is_real)


_START = r"(?:(?<![A-Za-z\d-])|(?<=\\[nrt]))"
r"""Where a token may begin whose first letters words end with, as in `disk-`: also after an underscore, or after `\n` as two characters."""

PATTERNS: tuple[Pattern, ...] = (
    *_made(
        Kind.SECRETS,
        ("an API key (sk-…)", "sk-", _START + r"sk-[\w-]{20,250}", _is_mixed_token),
        ("a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,250}", _is_token),
        ("a GitHub token", "github_pat_", r"github_pat_\w{22,250}", _is_token),
        ("a GitLab token", "glpat-", r"glpat-[\w-]{20,250}", _is_token),
        ("a Hugging Face token", "hf_", r"hf_[A-Za-z0-9]{34,250}", _is_random),
        ("a Slack token", "xox", r"xox[abeoprs]-\d[\w-]{10,250}", _is_token),
        ("a Google API key", "AIza", r"AIza[\w-]{35}(?![\w-])", _is_token),
        ("a Stripe key", "k_live_", r"[rs]k_live_[A-Za-z0-9]{20,250}", _is_token),
        ("an AWS access key", "AKIA ASIA", r"(?:AKIA|ASIA)[A-Z2-7]{16}(?!\w)", _is_random),
        (
            "a private key",
            "PRIVATE",
            r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----[\w+/=:.,\\\s-]{64}",
            _is_random,
        ),
        ("a JSON web token", "eyJ", _START + r"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,8000}\.[\w-]{10,2000}", _is_web_token),
    ),
    *_made(
        Kind.PERSONAL,
        (
            "an e-mail address",
            "@",
            r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])",
            _is_address,
        ),
        ("a telephone number", "+", r"(?<![\w+.)=])\+[1-9](?:[ ./()-]{0,2}\d){8,14}(?![\w.]\d|\w)", _is_international),
        (
            "a telephone number",
            "00",
            r"(?<![\w+.,)=/-])00(?:1|7|[2-9]\d\d?) (?:\(0\) ?)?(?=\(?[1-9])(?:[ ./()-]{0,2}\d){6,13}(?![\w.]\d|\w)",
            _is_international,
        ),
        (
            "a telephone number",
            "- . (",
            r"(?<![\w.+/-])(?:\([2-9]\d\d\) ?[2-9]\d\d[ .-]|[2-9]\d\d([.-])[2-9]\d\d\1)\d{4}(?![\w-]|\.\d)",
            _is_american,
        ),
        ("a card number", "", r"(?<![\w.,-])\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}(?![\w-])", _is_card),
        ("a card number", "34 37", r"(?<![\w.,-])3[47]\d\d([ -]?)\d{6}\1\d{5}(?![\w-])", _is_card),
        ("a bank account (IBAN)", "", r"(?<!\w)(?=(?P<found>[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,29}))", _is_account),
    ),
)


def private(text: str) -> list[Pattern]:
    """Return the forms of private data that a text has, in a fixed order."""
    return [pattern for pattern in PATTERNS if pattern.is_in(text)]
