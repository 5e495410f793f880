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
    ],
)
def test_examples_dates_and_versions_are_none(text: str) -> None:
    assert private(text) == []


@pytest.mark.parametrize("piece", ["a", "1 ", "sk-", "@", "eyJ", "+1", "a.b@c.", "DE89", "-----BEGIN RSA "])
def test_hostile_text_takes_no_time(piece: str) -> None:
    assert private(piece * (200_000 // len(piece))) == []  # a quadratic pattern would take minutes
