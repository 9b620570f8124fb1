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
GAINS = (
    f"{DEFAULT} gains: difference of the main score over the same rows, with its 95 % interval by "
    "moving-block bootstrap over the rows of every seed"
)
COST = (
    "p50/p99 us: microseconds for an answer and the learning that follows it, median and 99th "
    "percentile over chunks, mean over seeds; memory is shown by the suite speed"
)
NAMED = 3  # streams that a note names one by one


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
            head += ["events/s", "p50/p99 us"]
            tables.append(Summary(_title(here), head, rows, note, detail=many))
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
        "/".join(f"{mean(run.latency_us[name] for run in runs):,.0f}" for name in ("p50", "p99")),
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
    """The main score of every model on every stream, and the best possible.

    Each stream has the score of its own task; of several chunks the smallest is shown.
    """
    percent = [_main(book, stream) == "accuracy" for stream in book.streams]
    lines = {model: [book.mean(model, stream) for stream in book.streams] for model in book.models}
    lines["best possible"] = [_best(book.of(stream=stream)) for stream in book.streams]
    rows = [[name, *map(_cell, values, percent)] for name, values in lines.items()]
    short = [stream.partition(":")[2] or stream for stream in book.streams]
    notes = [_capped(book), _chunks(book)]
    if len(short) > FEW or max(map(len, short)) > SHORT:
        numbers = [str(i) for i in range(1, len(short) + 1)]
        legend = "; ".join(f"{n}: {s}" for n, s in zip(numbers, book.streams, strict=True))
        notes, short = [legend, *notes], numbers
    scores: dict[str, list[str]] = {}
    for name, stream in zip(short, book.streams, strict=True):
        main = _main(book, stream)
        scores.setdefault(f"{main}, %" if main == "accuracy" else main, []).append(name)
    if len(scores) > 1:
        notes += [f"{score} on {', '.join(names)}" for score, names in scores.items()]
    title = (
        f"{next(iter(scores)) if len(scores) == 1 else 'main score'}: every model on every stream"
    )
    return Summary(title, ["model", *short], rows, "; ".join(filter(None, notes)))


def _main(book: Book, stream: str) -> str:
    """The name of the main score on ``stream``."""
    return book.of(stream=stream)[0].main


def _best(runs: Sequence[Record]) -> float:
    known = [run.card["best"] for run in runs if run.card["best"] is not None]
    return mean(known) if known else float("nan")


def _cell(value: float, percent: bool) -> str:
    if value != value:
        return "-"
    return f"{100.0 * value:.1f}" if percent else f"{value:.4f}"


def standings(book: Book) -> list[Summary]:
    """Mean ranks with the critical difference, and wins, draws and losses of the default.

    Ranks are over the streams that all ranked models have, each in the direction of its own main
    score. Who saw less than the others gets none, so that no stream drops out for its sake.
    """
    unranked = _unranked(book)
    ranked = [model for model in book.models if model not in unranked]
    shared = [s for s in book.streams if all(_ran(book, model, s) for model in ranked)]
    if len(ranked) < 2 or len(shared) < 2:
        return []
    scores = {model: [_height(book, model, stream) for stream in shared] for model in ranked}
    ranks = mean_ranks(scores, higher_is_better=True)
    rows = [
        [model, f"{ranks[model]:.2f}" if model in ranks else "-", *_record(book, model)]
        for model in sorted(book.models, key=lambda m: ranks.get(m, float("inf")))
    ]
    difference = critical_difference(len(ranked), len(shared))
    over = f"{len(shared)} streams"
    if len(shared) < len(book.streams):
        over = f"{len(shared)} of {len(book.streams)} streams"
    notes = [
        f"mean ranks over {over} that lie less than {difference:.2f} apart do not differ at 5 % "
        f"(Nemenyi); a stream is won or lost where the 95 % interval of the difference over the "
        f"same rows leaves out 0",
        _chunks(book),
    ]
    if unranked:
        told = (f"{model} ({why})" for model, why in unranked.items())
        notes.append(f"without a rank: {', '.join(told)}")
    head = ["model", "mean rank", f"{DEFAULT} wins", "draws", "losses"]
    title = f"ranks, and how {DEFAULT} stands against each"
    return [Summary(title, head, rows, "; ".join(filter(None, notes)))]


def _unranked(book: Book) -> dict[str, str]:
    """Why a model has no rank: a cap, or a stream that it misses and most others have."""
    whys = {model: f"first {_seen(book, model):,} rows" for model in book.models
            if _short(book, model)}  # fmt: skip
    whole = [model for model in book.models if model not in whys]
    common = [s for s in book.streams if 2 * sum(_ran(book, m, s) for m in whole) > len(whole)]
    for model in whole:
        missed = [stream for stream in common if not _ran(book, model, stream)]
        if missed:
            many = len(missed) > NAMED
            whys[model] = f"not on {f'{len(missed)} streams' if many else ', '.join(missed)}"
    return whys


def _ran(book: Book, model: str, stream: str) -> bool:
    """Whether ``model`` has a score on ``stream``."""
    value = book.mean(model, stream)
    return value == value


def _height(book: Book, model: str, stream: str) -> float:
    """The main score of ``model`` on ``stream``, turned so that higher is better."""
    sign = 1.0 if book.of(stream=stream)[0].higher_is_better else -1.0
    return sign * book.mean(model, stream)


def _chunks(book: Book) -> str:
    """Which chunk means and ranks are of, where there are several."""
    chunks = sorted({run.chunk for run in book.runs})
    return f"chunk {book.chunk} only, of {', '.join(map(str, chunks))}" if len(chunks) > 1 else ""


def _record(book: Book, model: str) -> list[str]:
    pairs = [pair for pair in book.pairs if pair.model == model and pair.chunk == book.chunk]
    if not pairs:
        return ["", "", ""]
    verdicts = [pair.verdict for pair in pairs]
    return [str(verdicts.count(kind)) for kind in ("win", "draw", "loss")]


def _short(book: Book, model: str) -> bool:
    """Whether a cap kept ``model`` from seeing all rows of some stream."""
    return any(run.asked.get("cap") and run.rows < run.card["rows"] for run in book.of(model=model))


def _seen(book: Book, model: str) -> int:
    """The most rows that ``model`` was scored on."""
    return max(run.rows for run in book.of(model=model))


def _capped(book: Book) -> str:
    short = [model for model in book.models if _short(book, model)]
    if not short:
        return ""
    return (
        f"{', '.join(short)}: only the first {_seen(book, short[0]):,} rows, so without a rank; "
        f"differences and wins are over those rows"
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
        "predict and learn, a fresh process for each run, warmed up, one thread; latency is that "
        "of a whole chunk; peak MB is the process while the model ran, interpreter and libraries "
        "included; of it new: above what it held before the run"
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
        GAINS,
    ]
    if known:
        parts.append(
            f"found: true drifts with an alarm within {MAX_DELAY} rows, summed over seeds as false "
            f"alarms are; recovery: rows until the loss is back for good at the model's own level "
            f"before the drift (>: not after every drift), area: loss above that level until the "
            f"next drift"
        )
    return "; ".join([*parts, COST, best])
