"""One run as one self-contained page: `report.html`, with the same drawings as SVG and PNG files beside it.

The page holds inline SVG and no script, loads nothing, and says so in its content security policy. Everything that came
from outside (labels, names, errors) passes Jinja's escaping; no response text is ever read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import jinja2
import vl_convert
from markupsafe import Markup

from analysis.evidence import gather
from analysis.marks import LEGEND
from analysis.page import Page, compose
from engine.store.layout import write_whole
from engine.store.reader import open_results

if TYPE_CHECKING:
    from pathlib import Path

    from analysis.panels import Panel

_PNG_SCALE: Final = 2.0
_DRAWN: Final = frozenset(
    {"svg", "g", "path", "text", "tspan", "rect", "line", "circle", "defs", "clipPath", "style", "title", "desc"}
)
"""Elements that a chart's SVG may hold: nothing that runs, loads or links."""
_REFERENCE: Final = re.compile(r"(url\(#|\bid=\"|href=\"#)")

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        page: The HTML file.
        figures: The drawings, SVG and PNG.
        done: Cells done.
        cells: Cells in the plan.
    """

    page: Path
    figures: tuple[Path, ...]
    done: int
    cells: int


def write_report(run_dir: Path, out: Path | None = None) -> Report:
    """Write a run's report.

    Args:
        run_dir: The run directory.
        out: Folder to write into; `report` inside the run directory when omitted. Its files are replaced.

    Raises:
        StoreError: When the run has no readable results.
    """
    with open_results(run_dir) as results:
        evidence = gather(results)
    page = compose(evidence)
    folder = out if out is not None else run_dir / "report"
    drawings = folder / "figures"
    drawings.mkdir(parents=True, exist_ok=True)
    panels = [panel for figure in page.figures for strip in figure.strips for panel in strip.panels]
    _remove_old(drawings, keep={panel.name for panel in panels})
    svg, written = {}, []
    for panel in panels:
        text, paths = _draw(panel, drawings)
        svg[panel.name] = inline_svg(text, panel.name)
        written += paths
    _write(folder / "report.html", render(page, svg).encode())
    return Report(folder / "report.html", tuple(written), evidence.done, len(evidence.cells))


def render(page: Page, svg: dict[str, Markup]) -> str:
    """Return the page's HTML.

    Args:
        page: What it says.
        svg: The drawings by panel name, ready to stand in HTML.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("analysis").joinpath("report.html.jinja").read_text(encoding="utf-8")
    css = Markup(files("analysis").joinpath("report.css").read_text(encoding="utf-8"))  # noqa: S704  # our own file
    return environment.from_string(source).render(page=page, css=css, svg=svg, marks=LEGEND)


def inline_svg(text: str, name: str) -> Markup:
    """Make a chart's SVG safe to stand in a page beside others.

    Identifiers get the panel's name in front, so that no two drawings share one.

    Args:
        text: SVG as `vl_convert` writes it.
        name: The panel's name.

    Raises:
        ValueError: When it holds an element or attribute that could run, load or link.
    """
    for element in ET.fromstring(text).iter():  # noqa: S314  # our own renderer's output; no entities in it
        tag = element.tag.rpartition("}")[2]
        active = [key for key in element.attrib if key.lower().startswith("on") or key.endswith("href")]
        if tag not in _DRAWN or active:
            raise ValueError(f"the drawing `{name}` holds <{tag}> {' '.join(active)}, which is not allowed")
    return Markup(_REFERENCE.sub(rf"\g<1>{name}-", text))  # noqa: S704  # every element was checked above


def _draw(panel: Panel, folder: Path) -> tuple[str, list[Path]]:
    spec = _drawable(panel.chart.to_dict())
    text = str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
    png = vl_convert.vegalite_to_png(spec, scale=_PNG_SCALE, allowed_base_urls=[])
    paths = [folder / f"{panel.name}.svg", folder / f"{panel.name}.png"]
    for path, content in zip(paths, (text.encode(), png), strict=True):
        _write(path, content)
    return text, paths


def _drawable(part: Any) -> Any:
    """Return a part of a chart without the characters that XML does not have: the renderer would end this process."""
    if isinstance(part, dict):
        return {key: _drawable(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_drawable(value) for value in part]
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", part) if isinstance(part, str) else part


def _remove_old(folder: Path, keep: set[str]) -> None:
    """Remove drawings of an earlier report that this one does not have."""
    for path in folder.iterdir():
        if path.suffix in {".svg", ".png"} and path.stem not in keep:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda partial: partial.write_bytes(content), 0o644)
