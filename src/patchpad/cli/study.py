"""`patchpad study` and `patchpad study report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json, print_text

study = App(name="study")


@study.default
def run(
    file: Annotated[Path, Parameter(name="FILE", help="The study: a YAML file like those in configs/studies/.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder of the study. What is already done there is not done again.")],
    arms: Annotated[list[str] | None, Parameter(negative=(), help="Only this arm. May be repeated.")] = None,
    seeds: Annotated[list[int] | None, Parameter(negative=(), help="Only this seed. May be repeated.")] = None,
    data: Annotated[
        list[str] | None,
        Parameter(negative=(), help="Files to train on: PATH for the first text, NAME=PATH for another."),
    ] = None,
    validation_data: Annotated[
        list[str] | None, Parameter(negative=(), help="Held-out files, in the same form.")
    ] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:N or mps, for every arm.")] = None,
    json: Json = False,
) -> None:
    """Train and measure every arm of FILE from every seed, then write DIR/report.md, DIR/report.html and plots.

    Run it again to continue: finished arms are skipped, and a stopped one is resumed. Ctrl-C saves.
    """
    from patchpad.study.definition import choose_runs, load_study

    loaded = load_study(file)
    runs = choose_runs(loaded, arms or (), seeds or ())

    from patchpad.errors import StudyError, TrainingInterrupted
    from patchpad.study.progress import study_progress_for_stderr
    from patchpad.study.report import has_results, write_study_report
    from patchpad.study.run import run_study

    try:
        with study_progress_for_stderr(runs) as progress:
            done = run_study(
                loaded,
                out=out,
                arms=arms or (),
                seeds=seeds or (),
                data=data or (),
                validation_data=validation_data or (),
                device=device,
                command=command_words(file, out, arms, seeds, data, validation_data, device),
                progress=progress,
            )
    except (StudyError, TrainingInterrupted):  # what is done is worth reading
        if has_results(out):
            write_study_report(out)
        raise
    written = write_study_report(out) if has_results(out) else None
    if json:
        print_json({"results": [str(path) for path in done], "report": written and str(written)})
    elif written:
        print_text(f"{len(done)} of {len(runs)} runs are done. Report: {written}")
    else:
        print_text(f"0 of {len(runs)} runs are done: other processes are at them. No report yet.")


@study.command
def report(
    folder: Annotated[Path, Parameter(name="DIR", help="The folder of `patchpad study FILE --out DIR`.")],
    /,
    *,
    pdf: Annotated[bool, Parameter(negative=(), help="Write each plot as PDF too.")] = False,
    json: Json = False,
) -> None:
    """Write DIR/report.md, DIR/report.html and the plots again from DIR/results alone, without training.

    PDF needs the extra: pip install "patchpad[plot]"
    """
    from patchpad.study.report import write_study_report

    written = write_study_report(folder, pdf=pdf)
    if json:
        print_json({"report": str(written)})
    else:
        print_text(str(written))


def command_words(
    file: Path,
    out: Path,
    arms: list[str] | None,
    seeds: list[int] | None,
    data: list[str] | None,
    validation_data: list[str] | None,
    device: str | None,
) -> list[str]:
    """Returns the words of the command that was given."""
    words = ["study", str(file), "--out", str(out)]
    options = (("--arms", arms), ("--seeds", seeds), ("--data", data), ("--validation-data", validation_data))
    for name, values in options:
        for value in values or ():
            words += [name, str(value)]
    return words + (["--device", device] if device else [])
