"""What the commands share in showing things: consoles, score tables, a progress line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from streammeta.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scenarios.prequential import Progress, Result
    from streammeta.events import DriftDetected
    from streammeta.scores import Scores

ALARMS = 12  # that are told
REDRAW = 0.1  # seconds between two drawings of a progress line
DRIFT_HEAD = ("true drift at row", "what", "first alarm", "rows later")  # of scenarios
DEFAULT_MODEL = "streammeta"
PIPED_WIDTH = 120  # columns of a table that does not go to a terminal


def many(n: int, thing: str) -> str:
    """So many things, in words.

    >>> many(1, "drift"), many(1200, "drift")
    ('1 drift', '1,200 drifts')
    """
    return f"1 {thing}" if n == 1 else f"{n:,} {thing}s"


def out() -> Console:
    """The console of stdout: results."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, emoji=False, width=PIPED_WIDTH)


def err() -> Console:
    """The console of stderr: everything that is not a result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def tell_of_compiling(console: Console) -> None:
    """If code has to be compiled in what follows, which takes minutes, ``console`` hears of it."""
    from streammeta.compiling import when_compiling

    when_compiling(partial(console.print, markup=False), helped=True)


def plain_table(title: str | None = None) -> Table:
    """A table in the house's style."""
    from rich import box
    from rich.table import Table

    return Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )


def model_names(text: str) -> tuple[str, ...]:
    """The names of a comma-separated ``--models``: the default model first, then as given.

    Raises:
        UsageError: there is none.
    """
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise UsageError(f"--models is {text!r}, expected names such as streammeta,no_change")
    return tuple(sorted(found, key=lambda name: name != DEFAULT_MODEL))


def number(value: float | None, digits: int = 4) -> str:
    """A score for people: four decimals, a dash where it is not defined.

    >>> number(0.92314), number(float("nan")), number(1234567.0)
    ('0.9231', '-', '1.235e+06')
    """
    if value is None or value != value:
        return "-"
    text = f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.{digits}g}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def score_table(results: Sequence[Result], title: str | None = None) -> Table:
    """One row per model: scores, drifts, speed; the best of the main score in bold green."""
    table = plain_table(title)
    scores = results[0].scores
    columns = [n for n in results[0].metric if n != "mae_last_value"]
    table.add_column("model")
    table.add_column("rows", justify="right")
    for name in columns:
        table.add_column(name.replace("_", "-"), justify="right")
    for name in ("drifts", "events/s", "p50 us", "p99 us"):
        table.add_column(name, justify="right")
    main = [r.metric[scores.main] for r in results]
    known = [value for value in main if value == value]
    best = (max if scores.higher_is_better else min)(known) if known else None
    for result, value in zip(results, main, strict=True):
        cells = [number(result.metric[name]) for name in columns]
        if value == best and len(results) > 1:
            cells[0] = f"[bold green]{cells[0]}[/]"
        speed = result.events / result.seconds if result.seconds else 0.0
        table.add_row(
            result.model,
            f"{result.scores.n:,}",
            *cells,
            str(len(result.drifts)),
            f"{speed:,.0f}",
            f"{result.latency.p50:,.0f}",
            f"{result.latency.p99:,.0f}",
        )
    return table


def alarm_table(of: str, alarms: Sequence[DriftDetected], most: int | None = ALARMS) -> Table:
    """The first ``most`` alarms: when, since when, by what signal, and why."""
    from rich.markup import escape

    told = alarms[:most]
    more = f", the first {len(told)} of {len(alarms):,}" if len(told) < len(alarms) else ""
    table = plain_table(f"alarms of {of}{more}")
    for name in ("row", "since"):
        table.add_column(name, justify="right")
    keyed = any(alarm.key for alarm in told)
    for name in (*(("key",) if keyed else ()), "signal", "what changed"):
        table.add_column(name)
    for alarm in told:
        why = alarm.explanation.text() if alarm.explanation is not None else ""
        key = (escape(alarm.key),) if keyed else ()
        table.add_row(f"{alarm.row:,}", f"{alarm.onset:,}", *key, alarm.signal, escape(why))
    return table


@contextmanager
def progress_lines(total: int | None) -> Iterator[Callable[[str], Progress | None]]:
    """A progress bar per model on stderr; silent where stderr is not a terminal.

    ``total`` is the number of rows, or ``None`` when it is not known.
    """
    console = err()
    tell_of_compiling(console)
    if not console.is_terminal:
        yield lambda name: None
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>9,} rows  {task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:

        def begin(name: str) -> Progress:
            task = bars.add_task(name, total=total, told="")
            drawn = 0.0

            def draw(rows: int, scores: Scores, drifts: int) -> None:
                nonlocal drawn
                now = monotonic()
                if now - drawn >= REDRAW or rows == total:
                    drawn = now
                    told = f"last {min(rows, 500)}: {scores.main} {scores.rolling:.4f}"
                    bars.update(task, completed=rows, told=f"{told}  drifts {drifts}")

            return draw

        yield begin
