"""Plots as PDF, for papers, by matplotlib, a library of the extra `plot`: the parts lie where they lie in the SVG.

Text stays text. The same plot gives the same file, byte for byte, from one version of matplotlib.
"""

import io
import itertools
from typing import TYPE_CHECKING, Any

from patchpad.errors import MissingExtraError
from patchpad.pages.line_plot import FAINT, arrow_ends
from patchpad.pages.plot_data import LinePlot
from patchpad.pages.plot_layout import Layout
from patchpad.pages.plot_parts import Shown, Text, reference_texts, upright_texts, x_numbers
from patchpad.pages.svg import FONT_SIZE, NUM_COLOURS, light_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS_PER_INCH, POINTS_PER_UNIT = 96, 0.75
TEXT_POINTS = FONT_SIZE * POINTS_PER_UNIT * 0.88
"""A little smaller than in the SVG: matplotlib's font is wider than those of most systems."""
MARKERS = "oDs^v"
"""In the order of the SVG's markers."""


def require_pdf() -> None:
    """Requires the library, before any work is done.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "a PDF needs the library `matplotlib`, which is not installed; SVG needs none",
            hint='Install it with: pip install "patchpad[plot]"; or write a file that ends in .svg',
        ) from error


def pdf_of(plot: LinePlot) -> bytes:
    """Returns a plot as a PDF of one page, in its light colours.

    Raises:
        MissingExtraError: the library is not installed.
    """
    require_pdf()
    import matplotlib

    written = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42, "font.family": "DejaVu Sans"}):
        figure_of(plot).savefig(written, format="pdf", metadata={"CreationDate": None, "Title": plot.title})
    return written.getvalue()


def figure_of(plot: LinePlot) -> "Figure":
    """Returns a plot as a figure of matplotlib; every part has the place that its layout gives it."""
    from matplotlib.figure import Figure

    layout = Layout.of(plot, 0)
    width, height = layout.size
    figure = Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH))
    axes: Any = figure.add_axes((0, 0, 1, 1))  # user units, so that marks and texts share them
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _draw_grid(axes, layout)
    for one in layout.shown:
        _draw_series(axes, one, layout)
    _draw_names(axes, layout)
    return figure


def _colour(name: str) -> str:
    return light_colours()[f"--plot-{name}"]


def _colour_of(one: Shown) -> str:
    return _colour(str(one.look % NUM_COLOURS + 1))


def _draw_grid(axes: Any, layout: Layout) -> None:
    frame, width = layout.frame, POINTS_PER_UNIT
    left, right, bottom, top = frame.x.start, frame.x.end, frame.y.start, frame.y.end
    for tick, name in layout.y_ticks:
        y = frame.y.at(tick)
        axes.plot([left, right], [y, y], color=_colour("grid"), linewidth=width, zorder=0)
        _write(axes, Text(left - 8, y + 4.5, name, "end"))
    for tick, _ in layout.x_ticks:
        x = frame.x.at(tick)
        axes.plot([x, x], [top, bottom], color=_colour("grid"), linewidth=width, zorder=0)
    for text in x_numbers(layout.frame, layout.x_ticks):
        _write(axes, text)
    axes.plot([left, right], [bottom, bottom], color=_colour("axis"), linewidth=width, zorder=1)
    dotted = {"color": _colour("muted"), "linewidth": width, "linestyle": ":", "zorder": 1}
    for y, text in reference_texts(layout.plot, layout.frame):
        axes.plot([left, right], [y, y], **dotted)
        _write(axes, text)
    for x, text in upright_texts(layout.plot, layout.frame):
        axes.plot([x, x], [top, bottom], **dotted)
        _write(axes, text)


def _draw_series(axes: Any, one: Shown, layout: Layout) -> None:
    frame, colour = layout.frame, _colour_of(one)
    if one.has_line and one.series.arrow:
        places = [frame.at(point) for point in one.points]
        for start, end in itertools.pairwise(places):
            ends = arrow_ends(start, end)
            if ends:
                style = {"arrowstyle": "->", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
                axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops=style, zorder=2)
    elif one.has_line:
        dashes = "--" if one.series.dashed else "-"
        opacity = FAINT if one.series.faint else 1
        for piece in one.pieces:
            xs, ys = zip(*(frame.at(point) for point in piece), strict=True)
            axes.plot(xs, ys, color=colour, linestyle=dashes, linewidth=1.5, alpha=opacity, zorder=2)
    ends = [frame.at(end) for end in one.bar_ends]
    for (x, low), (_, high) in zip(ends[::2], ends[1::2], strict=True):
        axes.plot([x, x], [low, high], color=colour, linewidth=1.1, marker="_", markersize=8, zorder=2)
    if one.has_markers and one.points:
        _draw_marks(axes, one, [frame.at(point) for point in one.points])


def _draw_marks(axes: Any, one: Shown, places: list[tuple[float, float]]) -> None:
    colour, paper = _colour_of(one), _colour("paper")
    xs, ys = zip(*places, strict=True)
    axes.plot(
        xs,
        ys,
        linestyle="none",
        marker=MARKERS[one.look % len(MARKERS)],
        markersize=6,
        markerfacecolor=paper if one.series.hollow else colour,
        markeredgecolor=colour if one.series.hollow else paper,
        markeredgewidth=1.5 if one.series.hollow else 0.9,
        zorder=3,
    )


def _draw_names(axes: Any, layout: Layout) -> None:
    """Writes titles, names of axes, labels, legend, key and notes."""
    for title in layout.titles:
        _write(axes, title, ink=True, weight="bold")
    for text in (layout.x_name, layout.y_name, *layout.notes):
        _write(axes, text)
    for one, label in layout.labels:
        if label.leader:
            (x0, y0), (x1, y1) = label.leader
            axes.plot([x0, x1], [y0, y1], color=_colour_of(one), linewidth=POINTS_PER_UNIT, zorder=2)
        x, anchor = label.start
        _write(axes, Text(x, label.box[3] - 3, label.text, anchor), ink=True)
    for one, x, y in layout.legend:
        if one.has_line:
            dashes = "--" if one.series.dashed else "-"
            axes.plot([x, x + 22], [y - 4.5] * 2, color=_colour_of(one), linestyle=dashes, linewidth=1.5)
        if one.has_markers:
            _draw_marks(axes, one, [(x + 11, y - 4.5)])
        _write(axes, Text(x + 29, y, one.series.label))
    for words, hollow in layout.key:
        face = _colour("paper") if hollow else _colour("muted")
        edge = {"markeredgecolor": _colour("muted"), "markeredgewidth": 1.5}
        axes.plot([words.x - 10], [words.y - 4.5], marker="o", markersize=6, markerfacecolor=face, **edge)
        _write(axes, words)


def _write(axes: Any, text: Text, *, ink: bool = False, weight: str = "normal") -> None:
    side = {"start": "left", "middle": "center", "end": "right"}[text.anchor]
    colour = _colour("ink" if ink else "muted")
    plain = text.text.replace("$", r"\$")  # a dollar would begin a formula
    axes.text(
        text.x, text.y, plain, ha=side, va="baseline", color=colour, fontsize=TEXT_POINTS, fontweight=weight, zorder=4
    )
