"""Plots as pictures: one drawing, as SVG and PNG for a paper and as SVG in the page's own colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from itertools import cycle
from textwrap import fill, wrap

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from error_analysis.section import Plot, Series

PALETTE = ("#2b6cb0", "#c2571a", "#2c7a5b", "#7650c7", "#b3307a", "#66717f")
"""Of the models, in their order; style.css holds the same colours as --m0 to --m5, and others for a dark page."""
INK, LINE = "#1d2530", "#dcdfe3"
MARKS = ("o", "s", "^", "D", "v", "P")
MANY = 2000
"""Points from which a scatter is drawn as pixels: an SVG of 25,000 circles takes seconds to open."""
LINE_LENGTH = 26
"""Letters on a line of a bar's name."""
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters: found by a search, set in the page's font
    "svg.hashsalt": "misrank",  # the same plot is the same file
    "text.color": INK,
    "text.parse_math": False,  # a caption's $ is a dollar
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


def draw(plot: Plot, models: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """The plot as (SVG, PNG). A series named like a model gets that model's colour.

    A letter that Matplotlib's font lacks is a box in the PNG; the SVG has the letter.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = _figure(plot, models)
        pictures = []
        for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 200, "facecolor": "white"})):
            file = io.BytesIO()
            figure.savefig(file, format=kind, **options)
            pictures.append(file.getvalue())
        return pictures[0], pictures[1]


def in_page(svg: bytes, label: str) -> str:
    """An SVG of `draw` as an element of the page: its colours are the page's, its ids are gone, and a screen reader hears the label."""
    text = svg[svg.index(b"<svg") :].decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for number, colour in enumerate(PALETTE):
        text = text.replace(colour, f"var(--m{number})")
    text = text.replace(INK, "var(--ink)").replace(LINE, "var(--line)")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(label)}">{rest}'


def _figure(plot: Plot, models: Sequence[str]) -> Figure:
    names = _names(plot) if plot.kind == "bar" else []
    lying = len(names) > 12 or sum(map(len, names)) > 32
    row = max(0.11 + 0.11 * len(plot.series), 0.38 if max(map(len, names), default=0) > LINE_LENGTH else 0.0)
    figure = Figure(figsize=(4.6, max(2.2, 0.9 + row * len(names)) if lying else 2.9), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    colours = _colours(plot.series, models)
    drawn = {"bar": _lying_bars if lying else _bars, "line": _lines, "scatter": _points}[plot.kind]
    drawn(axes, plot, colours)
    _scales(axes, plot, lying)
    if len(plot.series) > 1:
        figure.legend(loc="outside upper left", ncols=min(3, len(plot.series)), handlelength=1.2, columnspacing=1.2)
    return figure


def _colours(series: Sequence[Series], models: Sequence[str]) -> list[str]:
    """A model's own colour; for other series the colours of no model, the quiet grey first."""
    own = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(models)}
    left = [colour for colour in reversed(PALETTE) if colour not in own.values()] or list(reversed(PALETTE))
    others = cycle(left)
    return [own[one.name] if one.name in own else next(others) for one in series]


def _names(plot: Plot) -> list[str]:
    """What the bars stand at, each once, in the order of the series."""
    return list(dict.fromkeys(_name(x) for series in plot.series for x in series.x))


def _name(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:g}"


def _bars(axes: Axes, plot: Plot, colours: list[str]) -> None:
    _grouped(axes, plot, colours, lying=False)
    axes.set_xticks(range(len(_names(plot))), _names(plot))
    axes.grid(axis="y")


def _lying_bars(axes: Axes, plot: Plot, colours: list[str]) -> None:
    _grouped(axes, plot, colours, lying=True)
    names = _names(plot)
    axes.set_yticks(range(len(names)), [two_lines(name) for name in names], linespacing=0.95)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")


def _grouped(axes: Axes, plot: Plot, colours: list[str], lying: bool) -> None:
    """Bars of all series side by side, with their intervals."""
    places = {name: place for place, name in enumerate(_names(plot))}
    width = 0.8 / max(1, len(plot.series))
    for number, (series, colour) in enumerate(zip(plot.series, colours, strict=True)):
        where = np.array([places[_name(x)] for x in series.x]) - 0.4 + width * (number + 0.5)
        bars = axes.barh if lying else axes.bar
        bars(where, series.y, 0.9 * width, color=colour, label=series.name)
        if series.low is not None and series.high is not None:
            ends = np.clip([np.subtract(series.y, series.low), np.subtract(series.high, series.y)], 0, None)
            error = {"xerr": ends, "y": where, "x": series.y} if lying else {"yerr": ends, "x": where, "y": series.y}
            axes.errorbar(**error, fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.5)  # type: ignore[arg-type]


def _lines(axes: Axes, plot: Plot, colours: list[str]) -> None:
    for number, (series, colour) in enumerate(zip(plot.series, colours, strict=True)):
        mark = MARKS[number % len(MARKS)] if len(series.x) <= 30 else ""
        axes.plot(series.x, series.y, color=colour, marker=mark, markersize=3.5, linewidth=1.5, label=series.name)
        if series.low is not None and series.high is not None:
            axes.fill_between(np.asarray(series.x), series.low, series.high, color=colour, alpha=0.15, linewidth=0)
    axes.grid()


def _points(axes: Axes, plot: Plot, colours: list[str]) -> None:
    for series, colour in zip(plot.series, colours, strict=True):
        many = len(series.x) > MANY
        axes.scatter(
            series.x, series.y, s=6 if many else 12, alpha=0.15 if many else 0.5, color=colour,
            linewidths=0, rasterized=many, label=series.name,
        )  # fmt: skip
    if plot.log_x and plot.log_y:
        axes.axline((1, 1), slope=1, color=LINE, linewidth=1.2, zorder=0)  # where both are the same
    axes.grid()


def _scales(axes: Axes, plot: Plot, lying: bool) -> None:
    along, across = (plot.y, plot.x) if lying else (plot.x, plot.y)
    axes.set_xlabel(fill(along, 60))
    axes.set_ylabel(fill(across, 28))
    if plot.kind != "bar" and plot.series and isinstance(next(iter(plot.series[0].x), 0.0), str):
        axes.tick_params(axis="x", rotation=30)
    for axis, scale, log in ((axes.xaxis, axes.set_xscale, plot.log_x), (axes.yaxis, axes.set_yscale, plot.log_y)):
        if log:
            scale("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_formatter(NullFormatter())


def two_lines(label: str) -> str:
    """A long name on two lines, a longer one cut."""
    lines = wrap(label, LINE_LENGTH)
    return "\n".join(lines if len(lines) <= 2 else [lines[0], lines[1][: LINE_LENGTH - 1] + "\u2026"])
