"""Plots as SVG: bars and lines on logarithmic or linear scales, without a library.

Two kinds of plots with a handful of marks need less code than a plotting library needs set-up, and
the files are small enough to be read, kept in a repository and compared.
"""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from bench.report import number

WIDTH = 720
ROW = 26  # height of a bar with its gap
LEFT, RIGHT, TOP, BOTTOM = 170, 90, 56, 44
LINES_HEIGHT = 260
MOST_TICKS = 6
OURS, OTHERS = "#0b6e99", "#b8c4cc"
COLORS = (OURS, "#d1682b", "#5b8c3a", "#8a5aa6", "#a8862c", "#6b7780")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}"
    ".small{font-size:11px;fill:#57606a}.grid{stroke:#e4e8eb}.range{stroke:#24292f}"
)


class Scale:
    """From values to pixels."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, *, logarithmic: bool
    ) -> None:
        self._log = logarithmic
        least, most = min(values), max(values)
        if logarithmic:
            least, most = math.floor(math.log10(least)), math.ceil(math.log10(most))
        else:
            least = 0.0
        self._least, self._span = least, (most - least) or 1.0
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        position = math.log10(value) if self._log else value
        return self._start + (self._end - self._start) * (position - self._least) / self._span

    def ticks(self) -> list[float]:
        """Values to draw a line at."""
        if self._log:
            return [10.0**n for n in range(int(self._least), int(self._least + self._span) + 1)]
        power = 10.0 ** math.floor(math.log10(self._span))
        steps = (power * share for share in (0.1, 0.2, 0.5, 1, 2))
        step = next(step for step in steps if self._span / step <= MOST_TICKS)
        return [n * step for n in range(int(self._span / step) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _document(height: float, title: str, unit: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}"'
            f' viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
            _text(16, 24, title, "title"),
            _text(16, 42, unit, "small"),
            *parts,
            "</svg>\n",
        ]
    )


def bars(title: str, unit: str, values: Mapping[str, Sequence[float]]) -> str:
    """A bar for each name, on a logarithmic scale; a value is a median with its least and most."""
    height = TOP + ROW * len(values) + BOTTOM
    every = [value for spread in values.values() for value in spread]
    scale = Scale(every, LEFT, WIDTH - RIGHT, logarithmic=True)
    parts = []
    for tick in scale.ticks():
        parts.append(_line(scale(tick), TOP, scale(tick), height - BOTTOM, "grid"))
        parts.append(_text(scale(tick), height - BOTTOM + 16, number(tick), "small", "middle"))
    for row, (name, (median, least, most)) in enumerate(values.items()):
        top = TOP + row * ROW
        color = OURS if name.startswith("p2pnet") else OTHERS
        width = max(1.0, scale(median) - LEFT)
        parts.append(_text(LEFT - 8, top + 17, name, anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{top + 4}" width="{width:.1f}" height="{ROW - 8}"'
            f' fill="{color}" rx="2"/>'
        )
        parts.append(_line(scale(least), top + ROW / 2, scale(most), top + ROW / 2, "range"))
        parts.append(_text(scale(max(median, most)) + 6, top + 17, number(median)))
    return _document(height, title, f"{unit}; logarithmic", parts)


def lines(
    title: str, unit: str, marks: Sequence[object], series: Mapping[str, Sequence[float | None]],
    *, logarithmic: bool = True,
) -> str:  # fmt: skip
    """A line for each name over `marks`, which are evenly spaced; None is left out."""
    height = TOP + LINES_HEIGHT + BOTTOM
    every = [value for values in series.values() for value in values if value is not None]
    down = Scale(every, TOP + LINES_HEIGHT, TOP, logarithmic=logarithmic)
    left, right = 70.0, float(WIDTH - LEFT)
    across = [left + (right - left) * n / max(1, len(marks) - 1) for n in range(len(marks))]
    parts = []
    for tick in down.ticks():
        parts.append(_line(left, down(tick), right, down(tick), "grid"))
        parts.append(_text(left - 8, down(tick) + 4, number(tick), "small", "end"))
    for x, mark in zip(across, marks, strict=True):
        parts.append(_text(x, TOP + LINES_HEIGHT + 18, str(mark), "small", "middle"))
    labels: list[float] = []
    for n, (name, values) in enumerate(series.items()):
        color = COLORS[n % len(COLORS)]
        points = [(x, down(v)) for x, v in zip(across, values, strict=True) if v is not None]
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        label = points[-1][1] + 4
        while any(abs(label - other) < 14 for other in labels):  # or names would overlap
            label += 14
        labels.append(label)
        parts.append(_text(points[-1][0] + 10, label, name))
    return _document(height, title, unit, parts)
