"""`patchpad plot`. Imports no torch."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json, print_text
from patchpad.errors import ConfigError
from patchpad.files import write_atomically
from patchpad.pages.line_plot import line_plot_svg
from patchpad.pages.pdf import pdf_of, require_pdf
from patchpad.pages.png import png_of, require_png
from patchpad.training.run_plot import XKey, plot_of_runs

ENDINGS = (".svg", ".png", ".pdf")


def plot(
    *runs: Annotated[Path, Parameter(name="RUN", help="Run, finished or not; one of its steps; or a file of metrics.")],
    out: Annotated[Path, Parameter(help="File to write; it ends in .svg, .png or .pdf.")],
    key: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="Key of metrics.jsonl, such as train/bpb. Repeat it for several of one unit. Default: val/bpb, or "
            "train/bpb where no run has been validated yet.",
        ),
    ] = None,
    x: Annotated[XKey, Parameter(help="Horizontal axis.")] = "bytes_seen",
    smooth: Annotated[int, Parameter(help="Draw means over this many neighbouring lines of metrics.")] = 1,
    log_x: Annotated[bool, Parameter(negative=(), help="Logarithmic horizontal axis.")] = False,
    json: Json = False,
) -> None:
    """Draw metrics of several runs in one plot, as SVG, PNG or PDF, also while they train.

    PNG and PDF need the extra: pip install "patchpad[plot]"
    """
    if not runs:
        raise ConfigError("no RUN is given; allowed: one or more", hint="Write: patchpad plot RUN --out FILE.svg")
    ending = out.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"--out is {out}; allowed: a name that ends in {' or '.join(ENDINGS)}")
    require = {".png": require_png, ".pdf": require_pdf}.get(ending)
    if require:
        require()
    plotted = plot_of_runs(runs, key or (), x=x, smooth=smooth, log_x=log_x)
    if ending == ".pdf":
        write_atomically(out, pdf_of(plotted))
    else:
        drawn = line_plot_svg(plotted, element_id="plot-metrics", standalone=True)
        write_atomically(out, png_of(drawn) if ending == ".png" else drawn + "\n")
    if json:
        print_json({"out": str(out)})
    else:
        print_text(str(out))
