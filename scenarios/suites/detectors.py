"""Drift detectors: what they find, what they cry, what an update costs, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drift import DETECTORS as ALL
from drift import evaluate
from scenarios import bank_cost, many_keys
from scenarios.bench import Book, Gate, Outcome, Record, Suite, Summary
from scenarios.bench.tables import signed
from scenarios.detecting import DUMMIES, MAX_DELAY, STILL, WARM_UP, fits, named
from scenarios.losses import DRIFTING, EVERY, HALF_LIFE, STATIONARY, STREAMS, WIDTH
from scenarios.open_stream import unavailable

OURS, DEAF = "streammeta", "no_drift"
EXPECTED = 100_000
SLOW = tuple(name for name, kind in ALL.items() if getattr(kind, "slow", False))
DETECTORS = tuple(name for name in ALL if name not in SLOW)
CALIBRATED = tuple(
    f"{name}@{EXPECTED}"
    for name in ("page_hinkley", "hddm_a", "cusum", "ewma", "shewhart", "sprt", "evidence")
)
HELD = ("cusum", "ewma", "shewhart", "sprt", "evidence")  # to what they were calibrated to
FACTOR, ENOUGH = 2.0, 30  # and the alarms that have to be expected before it is judged
BESIDE_RIVER, FASTER = ("page_hinkley", "ddm", "hddm_a"), 20.0  # than a loop over River's
#: Streams of data: mean delay at most, from the start of a drift or from its centre.
DELAYS = {"open:sine1": 100, "open:mixed": 100, "open:circles": 400}
COST = 15.0  # us that the default detectors take for an event, at most
WITHOUT_DATA = (*STREAMS, many_keys.STREAM, bank_cost.STREAM)
STILL_ALARMS = 3  # at most, of 10 % noise
OTHERS = ("open:elec2", "open:weather", "open:sea", "open:interchanging_rbf")
ROWS_PER_FALSE_ALARM = 50_000
ABOUT = f"""
The first tables show losses without a model: errors of 10 %, or sizes of residuals in units of the
usual one. A drift comes every {EVERY:,} rows, at once or over {WIDTH} rows, and half of the
surprise is unlearned in {HALF_LIFE} rows. An alarm counts up to {MAX_DELAY:,} rows after the end of
a drift; F1, precision and recall count alarms, episode recall counts drifts. MDT: mean rows from
the start of a drift to its first alarm; NDT: MDT / {MAX_DELAY:,}; MTFA: rows outside the windows
for each false alarm; MTR: MTFA / MDT x share found; both - without a false alarm. `NAME@{EXPECTED}`
is calibrated to so many rows between two false alarms by the first {WARM_UP:,} losses, which judge
nobody. Dummies: `every@100` raises an alarm every 100 rows, `at_random` as often as there are
drifts, `never` none.

The default detectors are a bank of signals (`drift.bank`); its threshold is the rows between two
false alarms, whatever the losses. What it costs is timed on events that a default model has learned
from: features and predictions looked at, the losses of the mixture and of a frozen reference taken
and voted on.

Reaction value: the score of the default model less that of the same model deaf to its alarms.
"""


def leaves_out(stream: str, model: str) -> bool:
    """Slow detectors and dummies on long streams, and what never reacts where nothing changes."""
    idle = stream in STATIONARY and named(model)[0] in (*SLOW, *DUMMIES)
    return idle or (stream == STILL and model == DEAF)


def extra(outcome: Outcome) -> dict[str, Any]:
    """Alarms of a model within ``MAX_DELAY``, from the start and from the centre of each drift."""
    if outcome.job.stream in WITHOUT_DATA:
        return {}
    card, result = outcome.card, outcome.result
    rows = len(result.keys)
    spans = [(start, min(end, rows - 1)) for start, end in card.drifts if start < rows]
    report = evaluate(result.drifts, spans, rows, MAX_DELAY)
    each = [evaluate(result.drifts, [span], rows, MAX_DELAY).delays for span in spans]
    centred = [
        delays[0] - (end - start) / 2
        for delays, (start, end) in zip(each, spans, strict=True)
        if delays
    ]
    return {
        "found": report.found,
        "drifts": report.drifts,
        "false_alarms": report.false_alarms,
        "delay": report.mean_delay,
        "from_centre": sum(centred) / len(centred) if centred else None,
        "gradual": any(end > start for start, end in spans),
        "rows": rows,
    }


def summarise(book: Book) -> list[Summary]:
    """Losses with drifts, losses without, streams of data, and the value of the reaction."""
    tables = [_judged(book, s) for s in book.streams if s in DRIFTING]
    still = [s for s in book.streams if s in STATIONARY]
    data = [s for s in book.streams if s not in WITHOUT_DATA]
    stacked = book.of(stream=many_keys.STREAM)
    cost = book.of(stream=bank_cost.STREAM)
    return [
        *tables,
        *([_between(book, still)] if still else []),
        *([_stacked(stacked)] if stacked else []),
        *([_cost(cost)] if cost else []),
        *([_ours(book, data), _reaction(book, data)] if data else []),
    ]


def _judged(book: Book, stream: str) -> Summary:
    rows = []
    for model in book.models:
        for run in book.of(stream=stream, model=model)[:1]:
            names = ("precision", "recall", "episode_recall", "f1")
            rows.append([
                model, *(f"{run.metric[name]:.2f}" for name in names),
                _number(run, "mean_delay"), _number(run, "normalised_delay", 2),
                _number(run, "false_alarms_per_1000", 3), _number(run, "between_false_alarms"),
                _number(run, "mean_time_ratio", 1),
                _number(run, "us_per_update", 2),
            ])  # fmt: skip
    head = ["detector", "precision", "recall", "episode recall", "F1", "MDT", "NDT",
            "false/1,000", "MTFA", "MTR", "us/update"]  # fmt: skip
    title = f"{stream}: alarms within {MAX_DELAY:,} rows"
    return Summary(title, head, rows)


def _number(run: Record, name: str, digits: int = 0) -> str:
    value = run.metric.get(name)
    return "-" if value is None or value != value else f"{value:,.{digits}f}"


def _between(book: Book, streams: Sequence[str]) -> Summary:
    rows = []
    for model in book.models:
        runs = {s: book.of(stream=s, model=model)[:1] for s in streams}
        if any(runs.values()):
            rows.append([model, *(_apart(found) for found in runs.values())])
    title = "rows between two false alarms where nothing changes (number of alarms)"
    note = f"{WARM_UP:,} losses calibrate; only errors and residuals are independent"
    return Summary(title, ["detector", *streams], rows, note)


def _apart(runs: Sequence[Record]) -> str:
    if not runs:
        return "-"
    (run,) = runs
    if not run.drifts:
        return f"> {run.rows:,} (0)"
    return f"{_number(run, 'between_false_alarms')} ({len(run.drifts)})"


def _stacked(runs: Sequence[Record]) -> Summary:
    rows = [
        [
            run.model, f"{run.metric['us_loop']:.3f}", f"{run.metric['us_stacked']:.3f}",
            f"{run.metric['speedup']:.0f}x", f"{run.metric['alarms']:,.0f}",
            "yes" if run.metric["same"] else "NO",
        ]
        for run in runs
    ]  # fmt: skip
    head = ["detector", "us/update, one each", "us/update, stacked", "faster", "alarms", "the same"]
    return Summary(f"{many_keys.KEYS:,} keys: a loop over detectors, and one call", head, rows)


def _cost(runs: Sequence[Record]) -> Summary:
    rows = [
        [run.model, bank_cost.BANKS[run.model], f"{run.rows:,}", _number(run, "us_per_event", 1)]
        for run in runs
    ]
    title = "what the default detectors cost"
    return Summary(title, ["detectors", "scenario", "events", "us/event"], rows)


def _ours(book: Book, streams: Sequence[str]) -> Summary:
    rows = []
    for stream in streams:
        for run in book.of(stream=stream, model=OURS)[:1]:
            e, delay = run.extra, run.extra["delay"]
            known = e["drifts"] > 0 or stream == STILL
            rows.append([
                stream, f"{e['rows']:,}", f"{len(run.drifts)}",
                f"{e['found']} of {e['drifts']}" if known else "-",
                "-" if delay is None else f"{delay:.0f}",
                "-" if delay is None else f"{e['from_centre']:.0f}",
                f"{e['false_alarms']}" if known else "-",
            ])  # fmt: skip
    head = ["stream", "rows", "alarms", "found", "rows from start", "from centre", "false"]
    title = f"the default model's alarms, within {MAX_DELAY:,} rows"
    return Summary(title, head, rows, "false alarms are known only where the drifts are")


def _reaction(book: Book, streams: Sequence[str]) -> Summary:
    rows = []
    for stream in streams:
        pair = book.pair(DEAF, stream)
        if pair is not None:
            bounds = f"[{signed(pair.low)}, {signed(pair.high)}]"
            rows.append((pair.difference, [stream, signed(pair.difference), bounds]))
    ranked = [row for _, row in sorted(rows, key=lambda one: one[0])]
    head = ["stream", "reaction value", "95 % interval"]
    return Summary(
        "accuracy with the reaction less accuracy without, the worst first", head, ranked
    )


def gates(book: Book) -> list[Gate]:
    """Delays, false alarms, and calibration."""
    found = []
    for stream, bar in DELAYS.items():
        for run in book.of(stream=stream, model=OURS):
            found += _of_stream(stream, bar, run.extra)
    for run in book.of(stream=STILL, model=OURS):
        n = len(run.drifts)
        text = f"{STILL}: {n} alarms in {run.rows:,} rows without a drift, at most {STILL_ALARMS}"
        found.append(Gate(text, n <= STILL_ALARMS))
    for run in book.of(stream=many_keys.STREAM):
        speedup, same = run.metric["speedup"] or 0.0, bool(run.metric["same"])
        text = f"{run.model}, {many_keys.KEYS:,} keys: the same alarms {speedup:.0f} times faster"
        fast = speedup >= FASTER or run.model not in BESIDE_RIVER
        found.append(Gate(text, same and fast))
    for run in book.of(stream=bank_cost.STREAM):
        micros = run.metric["us_per_event"] or float("inf")
        text = f"{run.model}: {micros:.1f} us for each event, at most {COST:.0f}"
        found.append(Gate(text, micros <= COST))
    for stream in ("errors", "residuals"):
        for name in HELD:
            for run in book.of(stream=stream, model=f"{name}@{EXPECTED}"):
                if run.rows < ENOUGH * EXPECTED:
                    continue  # too few alarms to tell
                apart = run.metric["between_false_alarms"] or float("inf")
                text = f"{name}@{EXPECTED} on {stream}: {apart:,.0f} rows between false alarms"
                found.append(Gate(text, 1 / FACTOR <= apart / EXPECTED <= FACTOR))
    return found


def _of_stream(stream: str, bar: float, e: dict[str, Any]) -> list[Gate]:
    told = e["from_centre"] if e["gradual"] else e["delay"]
    delay = float("inf") if told is None else told
    where = "from the centre" if e["gradual"] else "from the start"
    allowed = max(1, e["rows"] // ROWS_PER_FALSE_ALARM)
    return [
        Gate(f"{stream}: {e['found']} of {e['drifts']} drifts found", e["found"] == e["drifts"]),
        Gate(f"{stream}: mean delay {delay:.0f} rows {where}, at most {bar}", delay <= bar),
        Gate(
            f"{stream}: {e['false_alarms']} false alarms in {e['rows']:,} rows, at most {allowed}",
            e["false_alarms"] <= allowed,
        ),
    ]


SUITE = Suite(
    name="detectors",
    summary="drift detectors: found, false, delays, cost, and what the reaction is worth",
    minutes=30,
    streams=(*DRIFTING, *STATIONARY, many_keys.STREAM, bank_cost.STREAM, *DELAYS, STILL, *OTHERS),
    models=(
        OURS,
        DEAF,
        *DETECTORS,
        *SLOW,
        *CALIBRATED,
        *bank_cost.BANKS,
        "every@100",
        "at_random",
        "never",
    ),
    seeds=(0,),
    quick_rows=4_000,
    protocol="detecting",
    summarise=summarise,
    gates=gates,
    extra=extra,
    unavailable=unavailable,
    about=ABOUT,
    leaves_out=leaves_out,
    fits=fits,
)
