"""Entry point: the Typer application and its error handling."""

from __future__ import annotations

import shlex
import sys
import traceback
from importlib.metadata import version

import typer
from typer.exceptions import TyperException

from export.cli import (
    bench,
    distill,
    doctor,
    embed,
    evaluate,
    export,
    info,
    methods,
    package,
    parity,
    report,
    study,
    train,
    tune,
    verify,
)
from export.cli.output import complain, say
from vitnla.common.errors import InputError, VitDeployError

app = typer.Typer(
    name="vitdeploy", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Decompose a trained Vision Transformer, export it, and measure what that gained and cost.",
)  # fmt: skip
for module in (
    export,
    tune,
    info,
    verify,
    bench,
    parity,
    evaluate,
    package,
    embed,
    train,
    distill,
    study,
    report,
    doctor,
    methods,
):
    app.command()(getattr(module, module.__name__.rpartition(".")[2]))

BAD_USE, UNFORESEEN, INTERRUPTED = 2, 70, 130
"""Exit codes beside those of the errors; 70 is EX_SOFTWARE of sysexits.h."""


_LONGEST = 300
"""So much of an unforeseen error's text is shown."""


@app.callback()
def root(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Options of every command; `--debug` is understood anywhere on the line."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that DESIGN gives each kind of outcome."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        code = app(words, standalone_mode=False)
        if code == INTERRUPTED:  # how Typer hands on a Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code)
    except VitDeployError as error:
        if debug:
            raise
        complain(error)
        sys.exit(error.exit_code)
    except TyperException as error:
        complain(InputError(str(error), "see vitdeploy --help"))
        sys.exit(BAD_USE)
    except (KeyboardInterrupt, typer.Abort):
        say("error: interrupted; nothing half-written was left")
        sys.exit(INTERRUPTED)
    except Exception as error:  # whatever is left is a fault of this program, and must not look like a verdict
        if debug:
            traceback.print_exc()
        report_unforeseen(error, words)
        sys.exit(UNFORESEEN)


def report_unforeseen(error: Exception, words: list[str]) -> None:
    """Say what went wrong, and what a report of it should hold."""
    text = " ".join(str(error).split())[:_LONGEST]
    kind = type(error).__name__
    say(f"error: unforeseen: {kind}: {text}" if text else f"error: unforeseen: {kind}")
    command = shlex.join(["vitdeploy", *words])
    say(
        f"hint:  this is a fault of vitdeploy {version('vitdeploy')}, not of what you gave: please report it with this version, "
        f"the command ({command}) and what it prints with --debug"
    )
