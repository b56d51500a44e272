"""The entry point: the commands together, and what their errors become.

====  =============================================================
exit  meaning
====  =============================================================
0     finished
2     a wrong flag, path or scenario
3     finished, but void or with too few blocks to compare
4     something was lost on the way; partial results are kept
5     corrupt input was skipped
130   interrupted; partial results are kept
====  =============================================================

What a command needs is imported when it is called, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, cast

import typer

from kabench import __version__
from kabench.cli import chart, clean, collect, doctor, load, merge, render, run, scenario
from kabench.errors import KabenchError

DEBUG = "KABENCH_DEBUG"
"""Set to 1, errors are raised with their traceback."""
INTERRUPTED = 130

# typer has a click of its own in some versions and the package in others; this is the right one's
_USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__base__)

app = typer.Typer(
    name="kabench",
    help="Measure what a scheduler does to tail latency.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("load")(load.load)
app.command("merge")(merge.merge)
app.command("chart")(chart.chart)
app.command("render")(render.render)
app.command("doctor")(doctor.doctor)
app.command("collect")(collect.collect)
app.command("clean")(clean.clean)
app.add_typer(scenario.app, name="scenario")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"kabench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure what a scheduler does to tail latency."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    code = _call(arguments)
    try:
        sys.stdout.flush()
    except OSError:
        # whoever read the output has gone; the interpreter must not fail on flushing the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _call(arguments: Sequence[str] | None) -> int:
    try:
        return int(app(args=arguments, prog_name="kabench", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except _USAGE_ERROR as error:
        error.show()
        return error.exit_code
    except (BrokenPipeError, SystemExit):  # the latter is typer's answer to the former
        return 0
    except KabenchError as error:
        if os.environ.get(DEBUG) == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
