"""Entry point: finds the command, prints errors in two lines, sets the exit code. Imports no torch."""

import keyword
import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import cyclopts
from cyclopts import App

from patchpad import plugins
from patchpad.cli.openmp import adapt_openmp
from patchpad.cli.streams import flush_or_drop, help_width, prepare_streams, print_error
from patchpad.errors import MissingPluginError, OtherRankError, PatchpadError
from patchpad.launcher import launched_place, require_one_process, told_once
from patchpad.plugin_loading import fault_of_plugin
from patchpad.version import __version__

COMMANDS = {
    "quickstart": "train, evaluate and sample a small model on bundled text, in five minutes on a laptop",
    "train": "train a model on your own text, or resume a run",
    "prepare": "turn texts of any format into a corpus that opens at once and stays on the disk",
    "study": "train and compare several models from several seeds, and write tables and plots",
    "plot": "draw metrics of several runs in one plot, finished or not, as SVG or PNG",
    "evaluate": "measure bits per byte of a text, or scores of tasks, and the compute at each threshold",
    "compare": "show results of task suites side by side, with paired differences and plots",
    "lm-eval": "run EleutherAI's lm_eval, with its own command line, on a run",
    "calibrate": "measure the table that translates compute into a threshold",
    "generate": "continue a prompt",
    "serve": "serve a model over HTTP with OpenAI's API, and a playground in the browser",
    "convert": "use the layers of a trained subword model as the trunk of a byte model",
    "release": "write the model of any step into a new folder, without training state",
    "export": "write a folder that Hugging Face transformers loads",
    "import": "turn an exported folder into a run, also after further training",
    "inspect": "show a text's bytes with entropies, patches and scratchpads, in the terminal or as a page",
    "configs": "list the presets: configurations that --config takes by name",
    "cost": "show parameters, FLOPs per byte and cache bytes of a configuration",
}

HELP = """Byte-level language models with Scratchpad Patching.

Results go to stdout, logs and progress to stderr.

Every command also takes --quiet (no progress and only warnings in the log), --debug (the traceback of an error) and
--plugin MODULE (a module that is installed or in the working folder, or the path of a .py file; may be repeated)."""

HELP_FLAGS = ("--help", "-h")
PASS_WORDS_ON = ("lm-eval",)
"""Commands whose words another program reads. Only directly behind such a command is --help that of patchpad."""
SWITCHES = ("--debug", "--quiet")
PLUGIN = "--plugin"
"""Takes a value, and like a switch it may stand anywhere."""
TAKE_ANY_VALUE = ("--prompt", "--prompts", "--stop", "--text", "--words")
"""Options whose value may begin with a hyphen, so that `--prompt --debug` continues the text `--debug`."""


def build_app(chosen: str = "", *, with_help: bool = False) -> App:
    """Returns the app; a command's module is imported when it is called or its help is shown.

    Args:
        chosen: the command that is about to run; its help is its docstring, that of the others the summary.
        with_help: help will be shown, so its width is bounded: in a column or two rich would never end.
    """
    app = App(
        name="patchpad",
        help=HELP,
        version=__version__,
        help_flags=HELP_FLAGS,
        version_flags=["--version", "-V"],
        suppress_keyboard_interrupt=False,  # `main` says so itself
    )
    if with_help:
        from rich.console import Console

        app.console = Console(width=help_width())
    for name, summary in COMMANDS.items():
        home = name.replace("-", "_") + "_" * keyword.iskeyword(name)
        options: dict[str, Any] = {} if name == chosen else {"help": summary}
        if name == chosen and name in PASS_WORDS_ON and not with_help:
            options = {"help_flags": (), "version_flags": ()}
        app.command(f"patchpad.cli.{home}:{home}", name=name, **options)
    app.register_install_completion_command(help="Make the Tab key complete commands and options in your shell.")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    tokens, switches, modules = split_switches(given)
    debug = "--debug" in switches
    prepare_streams(is_quiet="--quiet" in switches)
    code = 0
    try:
        place = launched_place()
        if place.rank:
            logging.getLogger("patchpad").setLevel(logging.ERROR)
        if tokens[:1] != ["train"]:
            require_one_process()
        adapt_openmp(tokens)
        with told_once(place):
            plugins.load(*modules)
        with_help = _asks_for_help(tokens)
        app = build_app(tokens[0] if tokens else "", with_help=with_help)
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        if with_help and tokens[:1] == ["train"]:
            from patchpad.cli.train_help import print_keys

            print_keys(app.console)
        sys.stdout.flush()
    except OtherRankError as error:
        code = error.exit_code
        if debug:
            traceback.print_exception(error)
    except MissingPluginError as error:
        hint = _command_with(error.plugin, tokens, modules, switches)
        code = _report(error, debug, error.message, hint, error.exit_code)
    except PatchpadError as error:
        code = _report(error, debug, error.message, error.hint, error.exit_code)
    except cyclopts.CycloptsError as error:
        command = tokens[0] if tokens and tokens[0] in COMMANDS else ""
        see = f"See: patchpad {command} --help".replace("  ", " ")
        if isinstance(error, cyclopts.UnusedCliTokensError):
            see = f"Write an option before each value: --data A --data B. {see}"
        code = _report(error, debug, " ".join(str(error).split()), see, 2)
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):  # rich ends the program when its reader has gone
            raise
    except BrokenPipeError:
        pass  # the reader has gone (`| head`): what it wanted was delivered
    except KeyboardInterrupt as error:
        code = _report(error, debug, "interrupted", "", 130)
    except OSError as error:
        message = str(error) if error.filename or not error.strerror else f"cannot read or write: {error.strerror}"
        code = _report(error, debug, message, "Check the path, its permissions and the free space.", 1)
    except Exception as error:
        fault = fault_of_plugin(error)
        if fault is None:
            raise
        code = _report(error, debug, *fault, 1)
    flush_or_drop()
    return code


def _asks_for_help(tokens: Sequence[str]) -> bool:
    words = tokens[1:2] if tokens[:1] and tokens[0] in PASS_WORDS_ON else tokens
    return not tokens or not set(HELP_FLAGS).isdisjoint(words)


def split_switches(arguments: Sequence[str]) -> tuple[list[str], set[str], list[str]]:
    """Takes the switches of every command out of the words of a command line; a value of an option is left alone.

    Returns:
        The other words, the switches, and the modules of plug-ins; "" where one is missing.
    """
    tokens: list[str] = []
    switches = set()
    modules = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, value = argument.partition("=")
        if tokens and tokens[-1] in TAKE_ANY_VALUE:
            tokens.append(argument)
        elif argument in SWITCHES:
            switches.add(argument)
        elif name == PLUGIN:
            modules.append(value if has_value else rest.pop(0) if rest else "")
        else:
            tokens.append(argument)
    return tokens, switches, modules


def _command_with(plugin: str, tokens: Sequence[str], modules: Sequence[str], switches: set[str]) -> str:
    """Returns the hint for a plug-in that was not loaded: the same command, with it."""
    options = [word for module in (*modules, plugin) for word in (PLUGIN, module)]
    words = [*tokens[:1], *sorted(switches), *options, *tokens[1:]]
    file = " (with the path of that file)" if plugin.endswith(".py") else ""
    return f"If you trust it, load it{file}: {shlex.join(['patchpad', *words])}"


def _report(error: BaseException, debug: bool, message: str, hint: str, code: int) -> int:
    if debug:
        traceback.print_exception(error)
    print_error(message, hint)
    return code


def console_script() -> None:
    """What the `patchpad` command runs."""
    raise SystemExit(main())
