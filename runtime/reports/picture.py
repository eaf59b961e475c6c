"""One figure as three: a PNG, an SVG that stands alone, and the SVG inside a page, which follows its colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from runtime.reports.theme import SCHEME, any_script, save_figure, title_strip

# What XML cannot hold, whatever a name contains.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_FAMILY = "'DejaVu Sans'"
_FONT = re.compile(f'{_FAMILY}[^;"]*')
_SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
_SCHEME = {colour.lower(): f"var({name})" for colour, name in SCHEME.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")


@dataclass(frozen=True)
class Picture:
    """``svg``: the text to put into a page; ``width_px``: as it was drawn."""

    svg: str
    width_px: int


def save_picture(figure: Figure, stem: Path, title: str) -> Picture:
    """Save ``stem``.png and .svg with the title; the SVG for a page is without, which gives it as text.

    Ids in a page begin with the stem's name. Raises ``OSError``.
    """
    save_figure(figure, stem.with_name(stem.name + ".png"), title)
    figure.set_layout_engine("none")  # it is laid out now
    drawn, heading = _svg(figure), _svg(title_strip(title, figure.get_figwidth()))
    alone = _stacked(_root(heading), _root(drawn))
    stem.with_name(stem.name + ".svg").write_text(alone, encoding="utf-8", newline="\n")
    return Picture(_inline(drawn, stem.name), round(figure.get_figwidth() * 96))


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with any_script():
        FigureCanvasSVG(figure).print_svg(text, metadata=metadata)  # type: ignore[no-untyped-call]
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.getvalue())


def _root(text: str) -> ElementTree.Element:
    """Without what names the program and the day."""
    root = ElementTree.fromstring(text)
    for found in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(found)
    return root


def _stacked(*pictures: ElementTree.Element) -> str:
    """One SVG of several, one below the other."""
    boxes = [tuple(map(float, each.attrib["viewBox"].split()[2:])) for each in pictures]
    width, height = max(box[0] for box in boxes), sum(box[1] for box in boxes)
    size = {"width": f"{width:g}pt", "height": f"{height:g}pt", "viewBox": f"0 0 {width:g} {height:g}"}
    outer, top = ElementTree.Element(f"{{{_SVG}}}svg", size), 0.0
    for each, (wide, high) in zip(pictures, boxes, strict=True):
        each.attrib.update(y=f"{top:g}", width=f"{wide:g}", height=f"{high:g}")
        outer.append(each)
        top += high
    text = ElementTree.tostring(outer, encoding="unicode", xml_declaration=False)
    return _FONT.sub(f"{_FAMILY}, Verdana, sans-serif", text) + "\n"


def _inline(text: str, prefix: str) -> str:
    """Elements of the SVG as HTML takes them: no namespaces, ids of this picture only, colours by name."""
    root = _root(text)
    for parent in list(root.iter()):
        for style in parent.findall(f"{{{_SVG}}}style"):
            parent.remove(style)
    links = {link[1] for link in re.finditer(r'(?:href="|url\()#([^")]+)', text)}
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
        each.text, each.tail = (each.text if each.tag == "text" else None), None
        each.attrib = dict(_attributes(each.attrib, links, prefix))
    root.attrib = {"viewBox": root.attrib["viewBox"], "aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode")


def _attributes(found: dict[str, str], links: set[str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if name == "id":
            if value in links:
                yield "id", f"{prefix}-{value}"
        elif name.endswith("href"):
            yield "href", value.replace("#", f"#{prefix}-", 1) if value.startswith("#") else value
        elif name == "clip-path":
            yield name, value.replace("url(#", f"url(#{prefix}-")
        elif name in ("style", "fill", "stroke"):
            value = _FONT.sub("var(--sans)", value).replace("url(#", f"url(#{prefix}-")
            yield name, _COLOUR.sub(lambda colour: _SCHEME.get(colour[0], colour[0]), value)
        elif name == "d":
            yield name, value.replace("\n", "")
        elif not value.startswith("rotate(-0 "):
            yield name, value
