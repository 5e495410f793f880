"""The report: self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis.report import Report, inline_svg, write_report

pytestmark = pytest.mark.slow

BREAKOUTS = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "<!--<script>",
    "]]><script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "</title></text><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u2028\u2029\u202etxt.exe",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "${alert(1)}`",
    "\x1b[31mred",
]


class Page(HTMLParser):
    """Elements and attributes of a page, and its text."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.html = report.page.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


@pytest.fixture(scope="module")
def page(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(small_run, tmp_path_factory.mktemp("report")))


def report_of(study: Any, tmp_path: Path) -> Page:
    return Page(write_report(study.write(tmp_path / "run")))


ALLOWED = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "p",
    "h1",
    "h2",
    "h3",
    "div",
    "strong",
    "dl",
    "dt",
    "dd",
    "section",
    "ul",
    "li",
    "svg",
    "g",
    "path",
    "text",
    "tspan",
    "rect",
    "line",
    "circle",
    "defs",
    "clippath",
    "b",
    "details",
    "summary",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "code",
    "span",
    "footer",
}


def test_it_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert page.tags() <= ALLOWED
    for tag, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "href", "xlink:href", "action")
        ], tag
    without_names = page.html.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert not re.findall(r"https?://|@import|url\((?!#)", without_names)


def test_the_policy_forbids_everything_but_style(page: Page) -> None:
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "script" not in policy
    assert page.html.index("Content-Security-Policy") < page.html.index("<style>")


def test_the_first_screen_says_what_when_and_how_far(page: Page) -> None:
    top = page.text[: page.text.index("Harm by category")]
    for part in ("quickstart", "What does fine-tuning do to refusals?", "2026-11-20 09:30 UTC", "17 of 17", "complete"):
        assert part in top
    assert "sha256 aaaaaaaaaaaa" in top
    assert "0.2.0" in top
    assert "Not a finding about real models" in top
    assert "Before fine-tuning, the model fully answered" in top
    assert "2 seeds" in top


def test_figures_are_on_disk_as_svg_and_png(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "cost-99.svg").write_text("old")
    report = write_report(small_run, tmp_path)
    assert report.page == tmp_path / "report.html"
    assert (report.done, report.cells) == (17, 17)
    assert {path.suffix for path in report.figures} == {".svg", ".png"}
    assert sorted((tmp_path / "figures").iterdir()) == sorted(report.figures)
    assert all(path.stat().st_size > 1000 for path in report.figures)


def test_identifiers_are_unique(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_each_figure_has_a_caption_and_its_numbers(page: Page) -> None:
    for number in (1, 2, 3):
        assert f"Figure {number}." in page.text
        assert f"The numbers of figure {number}" in page.text
    assert "95%" in page.text


def test_untrusted_text_never_becomes_markup(sweeps: Any, tmp_path: Path) -> None:
    study = sweeps.SweepStudy(per_category=1, description=BREAKOUTS[0], sweep=BREAKOUTS[1], engine_version=BREAKOUTS[3])
    for row, bad in zip(study.rows["prompts"], BREAKOUTS, strict=False):
        row["category"] = bad
    for at, bad in enumerate(BREAKOUTS):
        study.tuned(f"src{bad}", (10, 1, 1e-3, at), label=bad, mitigations=(bad,))
        why = {"error_type": bad, "error": bad, "traceback": bad}
        study.stage(f"broken-{at}", "tune", ["cell-x"], "failed", **why)
        study.add("pins", kind=bad, ref=bad, pin=bad, detail=bad)
    study.baseline()
    page = report_of(study, tmp_path)
    assert page.tags() <= ALLOWED
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on") or a in ("src", "href")]
    assert "alert(1)" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_characters_that_xml_lacks_do_not_end_the_process(sweeps: Any, tmp_path: Path) -> None:
    study = sweeps.SweepStudy(per_category=1)
    for row, bad in zip(study.rows["prompts"], ("\x01", "\x1b[31m", "\ufffe", "\x9b"), strict=False):
        row["category"] += bad
    study.tuned("src\x1b[31mred", (10, 1, 1e-3, 0))
    study.baseline()
    assert "src" in report_of(study, tmp_path).text


def test_a_drawing_that_could_act_is_refused() -> None:
    for body in (
        "<script/>",
        "<a href='x'/>",
        "<rect onclick='x'/>",
        "<image href='x'/>",
        "<foreignObject/>",
        "<use href='#x'/>",
    ):
        with pytest.raises(ValueError, match="not allowed"):
            inline_svg(f'<svg xmlns="http://www.w3.org/2000/svg">{body}</svg>', "x")


def test_no_finished_cell(empty_run: Path, sweeps: Any, tmp_path: Path) -> None:
    page = Page(write_report(empty_run, tmp_path / "empty"))
    assert "nothing to report" in page.text
    assert "The plan has no cells" in page.text
    study = sweeps.SweepStudy(per_category=1)
    study.tuned("s", (10, 1, 1e-3, 0), state="pending")
    page = report_of(study, tmp_path)
    assert "0 of 1 cell are done" in page.text or "0 of 1" in page.text
    assert "Partial results" in page.text
    assert "pending" in page.text


def test_a_partial_run_says_what_is_missing(sweeps: Any, tmp_path: Path) -> None:
    study = sweeps.SweepStudy(per_category=3, usd_per_hour=None, standin="false")
    for seed in (0, 1):
        study.tuned("s", (10, 1, 1e-3, seed))
    study.tuned("s", (10, 5, 1e-3, 0), state="failed", label="the failed one")
    study.tuned("s", (10, 5, 1e-3, 1), state="pending")
    study.baseline()
    page = report_of(study, tmp_path)
    assert "3 of 5 cells are done; 1 failed and 1 pending" in page.text
    assert "Not a finding about real models" not in page.text
    assert "of device time" in page.text
    assert "no price is known" in page.text
    assert "$" not in page.text.replace("never as $0", "")
    assert "failed" in page.text


def test_what_is_possibly_billed_stands_beside_the_bill_where_there_is_any(sweeps: Any, tmp_path: Path) -> None:
    words = "more for 1,200 tokens, if the provider billed replies that never came"
    for lost, wanted in (({}, False), ({"possibly_billed_prompt_tokens": 1200, "possibly_billed_usd": 0.25}, True)):
        study = sweeps.SweepStudy(per_category=1)
        study.tuned("s", (10, 1, 1e-3, 0))
        study.stage("generate-lost", "generate", [], **study.usage(1.0, **lost))
        page = report_of(study, tmp_path / str(wanted))
        assert (words in page.text) == wanted
        assert ("and up to $0.25 more" in page.text) == wanted


def test_one_seed_is_said_to_be_one(sweeps: Any, tmp_path: Path) -> None:
    study = sweeps.SweepStudy(per_category=3)
    study.tuned("s", (10, 5, 1e-3, 0))
    study.baseline()
    page = report_of(study, tmp_path)
    assert "1 seed: seed variance not estimated" in page.text
    assert "How harm grows" not in page.text  # a single dose shows no slope


def test_without_a_baseline_no_change_is_claimed(sweeps: Any, tmp_path: Path) -> None:
    study = sweeps.SweepStudy(per_category=3)
    study.tuned("s", (10, 5, 1e-3, 0), baseline_cell_id=None)
    study.tuned("s", (10, 5, 1e-3, 1), baseline_cell_id=None)
    page = report_of(study, tmp_path)
    assert "The untuned model was not measured" in page.text
    assert "Before fine-tuning" not in page.text


def test_without_utility_it_says_so(study: Any, tmp_path: Path) -> None:
    study.prompts("bench", {"A": ["p1"], "B": ["p2"]})
    study.cell("c", tune_key="tune-c")
    study.evaluation("c", "harm", "bench", 2, "generate-c")
    study.stage("tune-c", "tune", ["c"])
    study.stage("generate-c", "generate", ["c"])
    key = study.judgement("c", "harm", "rubric", 0, "harm")
    study.stage(key, "judge", ["c"])
    study.verdicts(key, {"p1": 5, "p2": 1})
    page = report_of(study, tmp_path)
    assert "Utility was not measured" in page.text
    assert "Utility</th>" not in page.html.split('id="cells"')[1]


def test_a_report_is_replaced_not_mixed(small_run: Path, tmp_path: Path) -> None:
    first = write_report(small_run, tmp_path).page.read_bytes()
    second = write_report(small_run, tmp_path).page.read_bytes()
    assert first == second
    assert not list(tmp_path.rglob("*.tmp"))
