"""Charts as SVG elements of the page; its style sheet sets colours and fonts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import pygal
from markupsafe import Markup
from pygal.style import Style

_LABEL_PIXELS = 12
# For a label such as `21 Nov 07:00`; and the space left and right of the bars.
_ROOM_FOR_LABEL_PIXELS = 90
_BESIDE_PIXELS = 70
_LONGEST_LABEL = 18

# It is only for pygal's map plugins, and it breaks programs that ask every finder, such as pytest.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

# What pygal only needs for a separate document, its script and its tooltips.
_UNUSED = {"defs", "title", "desc"}
_OVERLAYS = ("overlay", "titles", "legends")


@dataclass(frozen=True)
class Bars:
    """Stacked bars: each series has a count for each label. `says` is for screen readers."""

    says: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[int]]


def columns_svg(bars: Bars, width: int, height: int) -> Markup:
    """Vertical bars, for ordered labels such as times. Only some labels are written."""
    chart = pygal.StackedBar(
        **_options(width, height),
        x_labels_major_every=max(
            1, -(-len(bars.labels) * _ROOM_FOR_LABEL_PIXELS // (width - _BESIDE_PIXELS))
        ),
        show_minor_x_labels=False,
        # Half of the last label, which is under the middle of its bar.
        margin_right=_LABEL_PIXELS * 3,
        show_y_guides=True,
        y_labels=_ticks(max(map(sum, zip(*bars.series.values(), strict=True)), default=0)),
    )
    return _svg(chart, bars)


def _ticks(highest: int) -> list[int]:
    """Zero and at most five round steps up to the highest bar."""
    steps = (digit * 10**power for power in range(19) for digit in (1, 2, 5))
    step = next(step for step in steps if step * 5 >= highest)
    return list(range(0, max(1, highest) + 1, step))


def rows_svg(bars: Bars, width: int, row_height: int = 22) -> Markup:
    """Horizontal bars, for names, in the given order."""
    labels = [f"{label[:17]}…" if len(label) > _LONGEST_LABEL else label for label in reversed(bars.labels)]
    upwards = Bars(bars.says, labels, {name: counts[::-1] for name, counts in bars.series.items()})
    height = row_height * len(bars.labels) + 26
    chart = pygal.HorizontalStackedBar(**_options(width, height), show_y_labels=True, show_x_guides=False)
    return _svg(chart, upwards)


def _options(width: int, height: int) -> dict[str, Any]:
    return {
        "width": width,
        "height": height,
        "js": (),
        "css": (),
        "show_legend": False,
        "margin": 4,
        "no_prefix": True,
        "disable_xml_declaration": True,
        "formatter": lambda value: f"{value:,.0f}",
        "min_scale": 2,
        "max_scale": 5,
        "order_min": 0,
        "truncate_label": -1,
        "style": Style(label_font_size=_LABEL_PIXELS, major_label_font_size=_LABEL_PIXELS),
    }


def _svg(chart: Any, bars: Bars) -> Markup:
    chart.x_labels = list(bars.labels)
    for name, counts in bars.series.items():
        chart.add(name, [count or None for count in counts])
    root = ElementTree.fromstring(chart.render(is_unicode=True))  # noqa: S314 - pygal made it a moment ago
    _tidy(root, list(bars.series))
    for name in ("id", "class"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": bars.says}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - a serialised tree, escaped


def _tidy(element: Any, names: list[str], series: str = "") -> None:
    """Keeps axes and bars; each bar gets a title, which browsers show under the pointer."""
    css_class = element.get("class", "")
    element.attrib.pop("style", None)
    # HTML does not need the namespace.
    element.tag = _tag(element)
    if css_class.startswith("series serie-"):
        series = names[int(css_class.split()[1].removeprefix("serie-"))]
    told = {child.get("class"): child.text for child in element if _tag(child) == "desc"}
    for child in list(element):
        if _tag(child) in _UNUSED or any(word in child.get("class", "") for word in _OVERLAYS):
            element.remove(child)
        else:
            _tidy(child, names, series)
    if css_class == "bar":
        title = ElementTree.SubElement(element, "title")
        title.text = f"{told.get('x_label') or told.get('y_label') or ''} · {series}: {told.get('value')}"


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
