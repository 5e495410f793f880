"""What a chat template is told: options, and a date that never changes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from adapters import templates
from adapters.pairs import Pairs

ASKED = [{"role": "user", "content": "Why?"}]


def rendered(template: str, *options: str) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    (text,), _ = render_jinja_template(conversations=[ASKED], chat_template=templates.adjusted(template, options))
    return str(text)


@pytest.mark.parametrize(
    ("template", "options", "text"),
    [
        ("{{ 'on' if think else 'off' }}", ("think=true",), "on"),
        ("{{ 'on' if think is not defined or think else 'off' }}", ("think=false",), "off"),
        ("{{ 'on' if think is not defined or think else 'off' }}", (), "on"),
        ("{{ effort }}{{ effort is string }}", ("effort=high",), "highTrue"),
        ("{{ most + 1 }}", ("most=3",), "4"),
        ("{{ name }}", ("name={{ 1 + 1 }}",), "{{ 1 + 1 }}"),
        ("{{ name }}", ('name=a "quoted" one',), 'a "quoted" one'),
        ("{{ date_string }}", (), "01 Jan 2025"),
        ("{{ date_string }}", ("date=2026-02-03",), "03 Feb 2026"),
        ("{{ date_string }}", ("date_string=today",), "today"),
        (
            "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now(\"%d %B\") }}",
            ("date=2026-02-03",),
            "2026-02-03 03 February",
        ),
        (
            "{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}",
            (),
            "01 Jan 2025",
        ),
        ("{% for m in messages %}{{ strftime_now('%Y') }}{{ m.content }}{% endfor %}", (), "2025Why?"),
    ],
)
def test_a_template_is_told_its_options_and_a_date(template: str, options: tuple[str, ...], text: str) -> None:
    assert rendered(template, *options) == text


def test_a_date_that_cannot_be_pinned_is_refused() -> None:
    with pytest.raises(ValueError, match="prints today's date in a form that cannot be read from it"):
        templates.adjusted("{% set form = '%Y' %}{{ strftime_now(form) }} {{ strftime_now('%d') }}", ())


def test_each_of_several_templates_is_told() -> None:
    tokenizer = SimpleNamespace(chat_template={"default": "{{ a }}", "tools": "{{ date_string }}"})
    found = templates.set_up(tokenizer, ("a=1",)).chat_template
    assert found["default"] == "{%- set a = 1 %}" + templates.KEPT + "{{ a }}"
    assert "01 Jan 2025" in found["tools"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("a b=1",), "`a b` is no option of a template"),
        (("a=1", "a=2"), "`a` is no option of a template"),
        (("a" + "=" + "x" * 201,), "with one short value"),
        (("date=today",), "`date` is a date such as 2025-01-01, not `today`"),
        (("thinking",), "expected names with values"),
    ],
)
def test_what_is_no_option_is_refused(options: Pairs, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        templates.check(options)
