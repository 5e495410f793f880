"""Private data is found in the forms that its makers publish, and examples, dates and versions are none."""

from __future__ import annotations

import base64
import json

import pytest

from engine.plan.audit.private import private

RANDOM = (
    "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2dE3f"  # every token here is put together, so that no scanner takes it for one
)


def claims(**values: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"key: sk-{RANDOM}.", "an API key (sk-…)"),
        (f"sk-proj-{RANDOM}", "an API key (sk-…)"),
        (f"ghp_{RANDOM[:36]}", "a GitHub token"),
        (f"github_pat_{RANDOM}", "a GitHub token"),
        (f"(glpat-{RANDOM[:20]})", "a GitLab token"),
        ("hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "a Hugging Face token"),
        (f"xoxb-123456789012-{RANDOM[:24]}", "a Slack token"),
        (f"AIza{RANDOM[:35]}", "a Google API key"),
        (f"sk_live_{RANDOM[:24]}", "a Stripe key"),
        ("AKIA" + "Q3EGRIFT5LWXZ2NB", "an AWS access key"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{RANDOM * 3}", "a private key"),
        (f"{claims(alg='HS256')}.{claims(sub='heron')}.{RANDOM}", "a JSON web token"),
        ("Write to mira.holm@fenwick.org, please.", "an e-mail address"),
        ("Call +49 30 901820-15.", "a telephone number"),
        ("+14155238886", "a telephone number"),
        ("(415) 523-8886 or 415-523-8886", "a telephone number"),
        ("card 4539 1488 0343 6467", "a card number"),
        ("3714 496353 98456", "a card number"),
        ("IBAN DE89 3704 0044 0532 0130 00, Berlin", "a bank account (IBAN)"),
        ("GB82WEST12345698765432 THE END", "a bank account (IBAN)"),
        ("UA213223130000026007233566001", "a bank account (IBAN)"),
        ("SA0380000000608010167519", "a bank account (IBAN)"),
        ("MT84MALT011000012345MTLCAST001S", "a bank account (IBAN)"),
        ("KD12 IBAN DE89 3704 0044 0532 0130 00", "a bank account (IBAN)"),
        ("Write to mira.holm@fenwick.md", "an e-mail address"),
        ("Write to mira.holm@fenwick.com.py", "an e-mail address"),
        (f"key=\\nghp_{RANDOM[:36]}", "a GitHub token"),
        (f"my_ghp_{RANDOM[:36]}", "a GitHub token"),
        (f"\\nsk-proj-{RANDOM}", "an API key (sk-…)"),
        ("\\nhf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "a Hugging Face token"),
        ("KEY_AKIA" + "Q3EGRIFT5LWXZ2NB", "an AWS access key"),
        (f"token\\n{claims(alg='HS256')}.{claims(sub='heron')}.{RANDOM}", "a JSON web token"),
        ("Call 0049 30 901820-15.", "a telephone number"),
        ("Call 415.523.8886.", "a telephone number"),
        ("(415) 523 8886", "a telephone number"),
        ("Call 0049 (0)30 901820, please.", "a telephone number"),
        ("tel: (415)523-8886", "a telephone number"),
    ],
)
def test_private_data_is_found(text: str, what: str) -> None:
    assert [found.what for found in private(f"Some words before. {text} And after.")] == [what]


@pytest.mark.parametrize(
    "text",
    [
        "On 2024-05-17 at 12:30:45 (UTC+01:00), version 1.22.333.4444.",
        "me@example.com, a@b.test, git@github.com:heron/nest.git, icon@2x.png, @property",
        f"sk-toggleable__control-label-arrow sk-{'x' * 40} ghp_{'0' * 36} AKIAIOSFODNN7EXAMPLE",
        "(555) 123-4567, +1 415 555 0123, +44 7700 900123, 123-456-7890, ISBN 978-0-306-40615-7",
        "4111 1111 1111 1111, 4539 1488 0343 6468, 1234 5678 9012 3456, 0.4539148803436467",
        "DE89 3704 0044 0532 0130 01, BLOCK CAPITALS OF AT12 3456 THINGS",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 550e8400-e29b-41d4-a716-446655440000",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "12 + 1000000000 = 1,000,000,012, and 3 +4 = 7",
        "version 415.523.8886.1, 10.415.523.8886, 415 523 8886 12, 12 415 523 8886, 001 002 003 004 005, 0011 0101 1110, 415 523.8886, 415.523 8886 and $415.523",
        "The sum of 250 300 4000 is none, nor is 00492 or 00123456789012345678, 0.00493090182015 or 1.0049 30 901820",
        "task-list-of-many-things-and-more-Of-2024, disk-usage-Of-Every-Folder-In-2024, whisk-a1-B2-c3-d4-e5-f6-g7-h8",
    ],
)
def test_examples_dates_and_versions_are_none(text: str) -> None:
    assert private(text) == []


def test_a_token_that_is_nested_deeply_takes_no_stack() -> None:
    nested = base64.urlsafe_b64encode(b'{"a":' + b"[" * 1400).decode().rstrip("=")
    assert private(f"{nested}.{claims(sub='heron')}.{RANDOM}") == []


@pytest.mark.parametrize(
    "piece",
    [
        "DE8 ",
        "AA11",
        "0049 ",
        "415 ",
        "415.",
        "_sk-",
        "a",
        "1 ",
        "sk-",
        "@",
        "eyJ",
        "+1",
        "a.b@c.",
        "DE89",
        "-----BEGIN RSA ",
    ],
)
def test_hostile_text_takes_no_time(piece: str) -> None:
    assert private(piece * (200_000 // len(piece))) == []  # a quadratic pattern would take minutes
