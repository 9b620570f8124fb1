"""Tables made from a book: a leaderboard per stream, all streams at a glance, ranks, speed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from scenarios.bench.book import DEFAULT, ENOUGH_SEEDS, MAX_DELAY, Book, Record, interval_of
from scenarios.bench.statistics import critical_difference, mean_ranks
from scenarios.bench.suite import Summary

FEW, SHORT = 8, 17  # streams, and characters of a name, up to which columns bear names
INTERVALS = (
    "± is the 95 % interval of the mean (its farther side): Student's t over the seeds from "
    f"{ENOUGH_SEEDS} on where each has rows of its own, else moving-block bootstrap over the rows"
)


def standard(book: Book) -> list[Summary]:
    """The leaderboard of each stream; with several streams also a glance, ranks and records."""
    tables = leaderboard(book)
    if len(book.streams) > 1:
        tables += [glance(book), *standings(book)]
    return tables


def leaderboard(book: Book) -> list[Summary]:
    """Every model on every stream: scores, difference to the default, drifts, cost."""
    tables: list[Summary] = []
    for stream in book.streams:
        for chunk in sorted({run.chunk for run in book.of(stream=stream)}):
            here = book.of(stream=stream, chunk=chunk)
            models = list(dict.fromkeys(run.model for run in here))
            groups = [[run for run in here if run.model == model] for model in models]
            names = [here[0].main, *list(here[0].metric)[1:3]]
            head = ["model", *(n.replace("_temporal", "-temp") for n in names), f"{DEFAULT} gains"]
            known = here[0].card["drifts"] > 0
            head += ["found", "false", "recovery", "area"] if known else ["alarms"]
            rows = [_row(book, group, names, known) for group in groups]
            note = _note(here, known, first=not tables)
            many = len(book.streams) > 1
            tables.append(Summary(_title(here), [*head, "events/s"], rows, note, detail=many))
    return tables


def _row(book: Book, runs: Sequence[Record], names: Sequence[str], known: bool) -> list[str]:
    first = runs[0]
    pair = book.pair(first.model, first.stream, first.chunk)
    return [
        _model(runs),
        plus_minus(runs),
        *(f"{mean(run.value(name) for run in runs):.4f}" for name in names[1:]),
        f"{signed(pair.difference)} [{signed(pair.low)}, {signed(pair.high)}]" if pair else "",
        *(_drift_cells(runs) if known else [f"{mean(len(r.drifts) for r in runs):.1f}"]),
        f"{mean(run.events_per_second for run in runs):,.0f}",
    ]


def _model(runs: Sequence[Record]) -> str:
    """The model's name, what it chose, and that it did not see all rows."""
    first = runs[0]
    notes = " ".join(sorted({run.note for run in runs if run.note}))
    cap = first.asked.get("cap")
    short = f" first {first.rows:,}" if cap and first.rows < first.card["rows"] else ""
    return f"{first.model}{f' ({notes})' if notes else ''}{short}"


def _drift_cells(runs: Sequence[Record]) -> list[str]:
    """Drifts found and false alarms, summed over seeds; rows to recover and loss, their means."""
    reports = [run.drift_report for run in runs if run.drift_report]
    back = [run.recovery for run in runs if run.recovery]
    found, false = "-", "-"
    if reports and any(run.watches for run in runs):
        hits = sum(report["found"] for report in reports)
        found = f"{hits} of {hits + sum(report['missed'] for report in reports)}"
        false = f"{sum(report['false_alarms'] for report in reports)}"
    if not back:
        return [found, false, "-", "-"]
    late = sum(r["drifts"] - r["recovered"] for r in back)
    mark = ">" if late else ""
    rows = mean(r["rows"] for r in back)
    return [found, false, f"{mark}{rows:,.0f}", f"{mean(r['area'] for r in back):.1f}"]


def glance(book: Book) -> Summary:
    """The main score of every model on every stream, and the best possible."""
    first = book.runs[0]
    percent = first.main == "accuracy"
    rows = [
        [model, *(_cell(book.mean(model, stream), percent) for stream in book.streams)]
        for model in book.models
    ]
    best = [_best(book.of(stream=stream)) for stream in book.streams]
    rows.append(["best possible", *("-" if b is None else _cell(b, percent) for b in best)])
    short = [stream.partition(":")[2] or stream for stream in book.streams]
    notes = [_capped(book)]
    if len(short) > FEW or max(map(len, short)) > SHORT:
        numbers = [str(i) for i in range(1, len(short) + 1)]
        legend = "; ".join(f"{n}: {s}" for n, s in zip(numbers, book.streams, strict=True))
        notes, short = [legend, *notes], numbers
    unit = ", %" if percent else ""
    title = f"{first.main}{unit}: every model on every stream"
    return Summary(title, ["model", *short], rows, "; ".join(filter(None, notes)))


def _best(runs: Sequence[Record]) -> float | None:
    known = [run.card["best"] for run in runs if run.card["best"] is not None]
    return mean(known) if known else None


def _cell(value: float, percent: bool) -> str:
    if value != value:
        return "-"
    return f"{100.0 * value:.1f}" if percent else f"{value:.4f}"


def standings(book: Book) -> list[Summary]:
    """Mean ranks with the critical difference, and wins, draws and losses of the default."""
    whole = [model for model in book.models if not _short(book, model)]
    complete = [
        stream
        for stream in book.streams
        if all(book.mean(model, stream) == book.mean(model, stream) for model in whole)
    ]
    if len(whole) < 2 or len(complete) < 2:
        return []
    scores = {model: [book.mean(model, stream) for stream in complete] for model in whole}
    ranks = mean_ranks(scores, book.runs[0].higher_is_better)
    rows = [
        [model, f"{ranks[model]:.2f}" if model in ranks else "-", *_record(book, model)]
        for model in sorted(book.models, key=lambda m: ranks.get(m, float("inf")))
    ]
    difference = critical_difference(len(whole), len(complete))
    note = (
        f"mean ranks over {len(complete)} streams that lie less than {difference:.2f} apart do not "
        f"differ at 5 % (Nemenyi); a stream is won or lost where the 95 % interval of the "
        f"difference over the same rows leaves out 0"
    )
    head = ["model", "mean rank", f"{DEFAULT} wins", "draws", "losses"]
    return [Summary(f"ranks, and how {DEFAULT} stands against each", head, rows, note)]


def _record(book: Book, model: str) -> list[str]:
    verdicts = [pair.verdict for pair in book.pairs if pair.model == model]
    if not verdicts:
        return ["", "", ""]
    return [str(verdicts.count(kind)) for kind in ("win", "draw", "loss")]


def _short(book: Book, model: str) -> bool:
    """Whether a cap kept ``model`` from seeing all rows of some stream."""
    return any(run.asked.get("cap") and run.rows < run.card["rows"] for run in book.of(model=model))


def _capped(book: Book) -> str:
    short = [model for model in book.models if _short(book, model)]
    if not short:
        return ""
    rows = max(run.rows for run in book.of(model=short[0]))
    return (
        f"{', '.join(short)}: only the first {rows:,} rows, so without a rank; differences and "
        f"wins are over those rows"
    )


def speed(book: Book) -> list[Summary]:
    """Events per second, latency and memory of each model at each chunk."""
    rows = []
    for run in book.runs:
        latency = run.latency_us
        rows.append(
            [
                run.stream,
                run.model,
                str(run.chunk),
                f"{run.events_per_second:,.0f}",
                *(f"{latency[name]:,.0f}" for name in ("p50", "p99", "max")),
                f"{run.peak_rss_mb:,.0f}",
                f"{run.growth_mb:,.0f}",
                f"{run.score:.4f}",
            ]
        )
    head = [
        "stream",
        "model",
        "chunk",
        "events/s",
        "p50 us",
        "p99 us",
        "max us",
        "peak MB",
        "of it new",
        "score",
    ]
    note = (
        "predict and learn, one process, one thread; latency is that of a whole chunk; peak MB is "
        "the process while the model ran, interpreter and libraries included; of it new: above "
        "what it held before the run"
    )
    return [Summary("speed", head, rows, note)]


def plus_minus(runs: Sequence[Record], digits: int = 4) -> str:
    """The mean main score with half its 95 % interval."""
    value = interval_of(runs)
    if value.mean != value.mean:
        return "-"
    half = f" ± {value.half:.{digits}f}" if value.half == value.half else ""
    return f"{value.mean:.{digits}f}{half}"


def signed(value: float, digits: int = 4) -> str:
    """With its sign.

    >>> signed(0.00123), signed(-0.5), signed(-0.00001)
    ('+0.0012', '-0.5000', '+0.0000')
    """
    text = f"{value:+.{digits}f}"
    return text.replace("-", "+") if float(text) == 0.0 else text


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and sample standard deviation of the values that are defined.

    >>> spread([0.9, 0.92]), spread([0.5]), spread([float("nan")])
    ('0.9100 ± 0.0141', '0.5000', '-')
    """
    values = [value for value in values if value == value]
    if not values:
        return "-"
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def _title(runs: Sequence[Record]) -> str:
    first = runs[0]
    rows = max(run.rows for run in runs)
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    late = first.asked.get("label_delay")
    delay = f", labels {late} rows late" if late else ""
    return f"{first.stream}: {rows:,} rows scored, chunk {first.chunk}{delay}, seeds {seeds}"


def _note(runs: Sequence[Record], known: bool, first: bool) -> str:
    """How to read the columns, once, and what is possible."""
    best = f"best possible: {runs[0].card['ceiling']}"
    if not first:
        return best
    parts = [
        INTERVALS,
        f"{DEFAULT} gains: difference of the main score over the same rows with its 95 % interval",
    ]
    if known:
        parts.append(
            f"found: true drifts with an alarm within {MAX_DELAY} rows, summed over seeds as false "
            f"alarms are; recovery: rows until the loss is back for good at the model's own level "
            f"before the drift (>: not after every drift), area: loss above that level until the "
            f"next drift"
        )
    return "; ".join([*parts, best])
