"""The command ``streammeta``: one file per command, data on stdout, everything else on stderr.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from streammeta import __version__
from streammeta.cli import (
    bench,
    checkpoint,
    components,
    dashboards,
    detect,
    doctor,
    eval_detector,
    evaluate,
    init,
    logs,
    pretrain,
    replay,
    run,
    schema,
    validate,
)
from streammeta.errors import StreamMetaError

INTERRUPTED = 130
INTERNAL = 70

app = typer.Typer(
    name="streammeta",
    help="Learn from a data stream, notice when it changes, adapt in a few steps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streammeta {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
) -> None:
    """Learn from a data stream, notice when it changes, adapt in a few steps."""


app.command("run", epilog=run.EPILOG)(run.run)
app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("replay", epilog=replay.EPILOG)(replay.replay)
app.command("bench", epilog=bench.EPILOG)(bench.bench)
app.command("pretrain", epilog=pretrain.EPILOG)(pretrain.pretrain)
app.command("detect", epilog=detect.EPILOG)(detect.detect)
app.command("eval-detector", epilog=eval_detector.EPILOG)(eval_detector.eval_detector)
app.command("validate", epilog=validate.EPILOG)(validate.validate)
app.command("init", epilog=init.EPILOG)(init.init)
app.command("schema", epilog=schema.EPILOG)(schema.schema)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(components.app, name="components")
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(checkpoint.app, name="checkpoint")


def main() -> None:
    """Run the command; faults become one line on stderr and an exit code.

    Exit codes: 0 ok, 1 a gate or a run of a bench failed, 2 usage, 69 source or sink unreachable,
    70 internal error, 78 invalid config, 130 interrupted.
    """
    # The networks are small: a second thread only waits for the first, and where another process
    # wants the same core it waits for long. Whoever knows better sets the variable.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app(prog_name="streammeta")
    except StreamMetaError as fault:
        logs.fault(str(fault))
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        logs.fault("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has gone (``| head``): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as fault:  # noqa: BLE001 - the last line of defence, and it is reported
        told = f"internal error: {type(fault).__name__}: {fault}"
        logs.fault(told, exception=traceback.format_exc())
        sys.exit(INTERNAL)
