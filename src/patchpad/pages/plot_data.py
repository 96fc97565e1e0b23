"""What a plot shows, apart from how it is drawn: its series, axes and names. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from patchpad.pages.numbers import Number


@dataclass(frozen=True)
class Series:
    """Points that belong together, in the order in which their line visits them."""

    label: str
    """Its name in the legend, or beside it in a plot with direct labels."""
    points: Sequence[tuple[Number, Number]]
    """(x, y) pairs; those that are not finite (or not positive on a log axis) are left out of the plot."""
    point_labels: Sequence[str] | None = None
    """A short text for each point; one that finds no place is left to the point's tooltip."""
    dashed: bool = False
    """Whether the line is dashed."""
    marker: bool = True
    """Whether each point has a marker; a lone point always has one."""
    line: bool = True
    """Whether a line joins the points; False makes a scatter plot."""
    deviations: Sequence[Number | None] | None = None
    """For each point how far a vertical bar reaches above and below it; None: it has none."""
    faint: bool = False
    """Whether the line is a pale one, behind one that matters."""
    look: int | None = None
    """Number of its colour and marker, so that it keeps them from plot to plot; None: its place in the list."""
    hollow: bool = False
    """Whether its markers are open; they are filled otherwise."""
    arrow: bool = False
    """Whether the line ends in an arrowhead; such a line has no markers."""
    group: str = ""
    """What it belongs to, for scripts that show and hide parts of a plot."""

    def __post_init__(self) -> None:
        for each, what in ((self.point_labels, "point labels"), (self.deviations, "deviations")):
            if each is not None and len(each) != len(self.points):
                raise ValueError(f"Series {self.label!r} has {len(self.points)} points but {len(each)} {what}")


@dataclass(frozen=True, kw_only=True)
class LinePlot:
    """Lines and points over two axes."""

    series: Sequence[Series]
    """What to draw; the first eight have colours of their own."""
    title: str
    """Drawn above the plot, and its accessible name."""
    x_label: str
    """Name and unit of the horizontal axis."""
    y_label: str
    """Name and unit of the vertical axis."""
    log_x: bool = False
    """A logarithmic horizontal axis."""
    width: int = 640
    """In user units; inside a page the plot scales with its column."""
    height: int = 360
    """In user units."""
    reference_lines: Mapping[str, Number] = field(default_factory=dict)
    """y values drawn as labelled dotted lines across the plot, always inside its range."""
    upright_lines: Mapping[str, Number] = field(default_factory=dict)
    """x values drawn as labelled dotted lines from the bottom to the top, always inside its range."""
    description: str = ""
    """What the plot shows, for readers who do not see it; by default the ranges of its series."""
    x_ends: tuple[Number | None, Number | None] = (None, None)
    """Where the horizontal axis begins and ends; None: at the round value that encloses all points."""
    x_ticks: Sequence[Number] | None = None
    """Where the horizontal axis has numbers; None: at round values."""
    highest_y: Number | None = None
    """Points above are left out, and the plot says which; lines are cut there. None: all points are shown."""
    row_names: Sequence[str] = ()
    """Names of the rows 0, 1, ... from top to bottom, in place of numbers on the vertical axis."""
    direct_labels: bool = False
    """Whether the series are named at their marks and at the ends of their lines instead of in a legend."""
    marks_key: tuple[str, str] | None = None
    """What open and filled marks mean; it is written under the title."""
