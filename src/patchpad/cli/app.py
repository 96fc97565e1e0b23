"""Entry point: finds the command, prints errors in two lines, sets the exit code. Imports no torch."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import cyclopts
from cyclopts import App

from patchpad.cli.openmp import adapt_openmp
from patchpad.errors import PatchpadError
from patchpad.version import __version__

COMMANDS = {
    "quickstart": "train, evaluate and sample a small model on bundled text, in five minutes on a laptop",
    "train": "train a model on your own text, or resume a run",
    "study": "train and measure the arms of a comparison from several seeds, and write tables and plots",
    "evaluate": "bits per byte and compute at each threshold",
    "calibrate": "measure the table that translates compute into a threshold",
    "generate": "continue a prompt",
    "inspect": "a text's bytes with their entropies, patches and scratchpads, in the terminal or as a page",
    "configs": "the presets: configurations that --config takes by name",
    "cost": "parameters, FLOPs per byte and cache bytes of a configuration",
}

HELP = """Byte-level language models with Scratchpad Patching.

Results go to stdout, logs and progress to stderr. Add --debug to any command to see the traceback of an error."""


def build_app(chosen: str = "") -> App:
    """Returns the app; a command's module is imported when it is called or its help is shown.

    Args:
        chosen: the command that is about to run; its help is its docstring, that of the others the summary.
    """
    app = App(
        name="patchpad",
        help=HELP,
        version=__version__,
        help_flags=["--help", "-h"],
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,  # `main` says so itself
    )
    for name, summary in COMMANDS.items():
        app.command(f"patchpad.cli.{name}:{name}", name=name, **({} if name == chosen else {"help": summary}))
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a locale that cannot show a character must not end a command
            stream.reconfigure(errors="backslashreplace")
    try:
        adapt_openmp(tokens)
        app = build_app(tokens[0] if tokens else "")
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        if tokens[:1] == ["train"] and not {"--help", "-h"}.isdisjoint(tokens):
            from patchpad.cli.train_help import print_keys

            print_keys(app.console)
        if sys.stdout is not None:  # None where the shell has closed it
            sys.stdout.flush()
    except PatchpadError as error:
        return _report(error, debug, error.message, error.hint, error.exit_code)
    except cyclopts.CycloptsError as error:
        command = tokens[0] if tokens and tokens[0] in COMMANDS else ""
        see = f"See: patchpad {command} --help".replace("  ", " ")
        if isinstance(error, cyclopts.UnusedCliTokensError):
            see = f"Write an option before each value: --data A --data B. {see}"
        return _report(error, debug, " ".join(str(error).split()), see, 2)
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):  # rich ends the program when its reader has gone
            raise
        return 0
    except BrokenPipeError:
        # The reader has gone (`| head`): what it wanted was delivered. Python must not flush stdout again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report(None, debug, "interrupted", "", 130)
    except OSError as error:
        return _report(error, debug, str(error), "Check the path, its permissions and the free space.", 1)
    return 0


def _report(error: BaseException | None, debug: bool, message: str, hint: str, code: int) -> int:
    if debug and error is not None:
        traceback.print_exception(error)
    print(f"patchpad: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)
    return code


def console_script() -> None:
    """What the `patchpad` command runs."""
    raise SystemExit(main())
