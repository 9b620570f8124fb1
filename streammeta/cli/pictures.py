"""The reports of ``evaluate``, ``replay`` and ``bench``: results as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from streammeta.charts import (
    Band,
    Line,
    Mark,
    band_chart,
    change_chart,
    line_chart,
    rolling_mean,
    share_chart,
)
from streammeta.cli.console import DRIFT_HEAD, many, number
from streammeta.live import Collector
from streammeta.meta.insight import EXPLAINED, Insight
from streammeta.report import Report
from streammeta.scores import WINDOW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scenarios.bench import Done, FoundDrift, Summary
    from scenarios.prequential import Result
    from streammeta.events import DriftDetected, Output
    from streammeta.live import Snapshot

    Series = Sequence[tuple[NDArray[np.float64], Sequence[tuple[int, int]]]]

MOST_ALARMS = 40  # that are told
LEAST_SHARE, MOST_INPUTS = 0.01, 10  # of the inputs that are told
MOST_LINES = 6  # models in a chart: the default, and the best of the others
MOST_STREAMS = 12  # of a bench that are drawn
NAMES = {"accuracy": "accuracy (share right)", "mae": "error (units of the target)"}


class Watcher:
    """Collects what a report shows of the first model beyond its scores, while it runs."""

    def __init__(self, task: str) -> None:
        self._collector = Collector("", task)

    def __call__(self, model: Any, outputs: Sequence[Output]) -> None:
        """After each chunk; every few rows a look at the weights as well."""
        self._collector.record(outputs)
        if self._collector.curious and hasattr(model, "statistics"):
            self._collector.sample(model.statistics())

    @property
    def found(self) -> Snapshot:
        """All of it."""
        return self._collector.look(at=0.0)


def evaluation_report(
    title: str,
    told: str,
    results: Sequence[Result],
    *,
    settings: Mapping[str, str],
    drifts: Sequence[tuple[int, int]] | None = None,
    series: Sequence[Series] = (),
    found_drifts: Sequence[FoundDrift] = (),
    found: Snapshot | None = None,
) -> Report:
    """The page of one stream: scores, recovery, weights, alarms, what was learned, settings.

    Args:
        title: of the page.
        told: what the stream is.
        results: one for each model, the default first.
        settings: what makes the run again, by name; ``command`` is shown to be copied.
        drifts: the true ones in rows of the stream, ``None`` where nobody knows them.
        series: for each result its losses with the drifts to align them at.
        found_drifts: when the first model noticed each of them.
        found: what a ``Watcher`` has seen of the first model.
    """
    first = results[0]
    page = Report(title).text(told)
    _scores(page, results, drifts)
    _recovery(page, results, series, known=drifts is not None)
    if found is not None:
        _weights(page, first, found, drifts)
    if first.experts:
        ranked = sorted(
            first.experts.items(), key=lambda e: e[1], reverse=first.scores.higher_is_better
        )
        page.folded(
            f"Own score of each expert of {first.model}",
            ["expert", first.scores.main],
            [[n, number(v)] for n, v in ranked],
        )
    if first.watches:
        _true_drifts(page, found_drifts)
    _alarms(page, first)
    if found is not None:
        _adapting(page, found)
    _insights(page, first.insights)
    return provenance_of(page, settings)


def provenance_of(page: Report, settings: Mapping[str, str]) -> Report:
    """The command, the settings, and the code it was run with."""
    from scenarios.bench import command_line, provenance
    from scenarios.bench.provenance import in_words

    page.heading("How this was made").code(command_line()).text(in_words(provenance()))
    if settings:
        page.folded("All settings", ["setting", "value"], [[n, v] for n, v in settings.items()])
    return page


def _scores(
    page: Report, results: Sequence[Result], drifts: Sequence[tuple[int, int]] | None
) -> None:
    """The rolling score of every model with the alarms of the first, and the table of scores."""
    first = results[0]
    window = min(WINDOW, max(20, first.scores.n // 20))
    main = first.scores.main
    page.heading("Score").picture(
        line_chart(
            f"{main.replace('mae', 'mean absolute error').capitalize()}, last {window:,} labels",
            [_rolling(r, window) for r in results],
            x_label="row of the stream",
            y_label=NAMES.get(main, main),
            alarms=_marks(first.alarms) or None,
            drifts=drifts or (),
        )
    )
    names = list(first.metric)
    head = ["model", "rows", *names, "drifts", "events/s", "latency p50 / p99 us"]
    rows = [
        [
            r.model,
            f"{r.scores.n:,}",
            *(number(r.metric[name]) for name in names),
            str(len(r.drifts)),
            f"{r.events / r.seconds:,.0f}" if r.seconds else "-",
            f"{r.latency.p50:,.0f} / {r.latency.p99:,.0f}",
        ]
        for r in results
    ]
    truth = {
        None: "Nobody knows when this stream really changes.",
        True: "Grey: where the stream really changes.",
        False: "The stream is known not to change.",
    }[None if drifts is None else bool(drifts)]
    raised = f"{first.model} raised no alarm."
    if first.alarms:
        raised = f"Dashed: alarms of {first.model}; point at one to read what moved."
    page.text(f"{raised} {truth}")
    page.table(head, rows)


def _recovery(
    page: Report, results: Sequence[Result], series: Sequence[Series], *, known: bool
) -> None:
    first = results[0].scores
    bands, drifts = bands_of([(r.model, s) for r, s in zip(results, series, strict=False)],
                             first.higher_is_better)  # fmt: skip
    if not bands:
        return
    ours = results[0].model
    at = many(drifts, "true drift") if known else f"{many(drifts, 'change')} found by {ours}"
    page.heading("Recovery").picture(
        band_chart(
            f"After a drift: mean over {at}",
            bands,
            x_label="rows since the drift began",
            y_label=NAMES.get(first.main, first.main),
            zero="drift",
        )
    )
    if drifts > 2:
        page.text("Shaded: 95 % interval of the mean over the drifts.")
    if not known:
        page.text(
            f"Drawn around the rows where alarms of {ours} put the beginning of a change. An alarm "
            "tells of losses, so a part of what is seen there was picked, not caused by a change."
        )


def bands_of(
    models: Sequence[tuple[str, Series]], higher_is_better: bool
) -> tuple[list[Band], int]:
    """The losses (or scores) of every model around its drifts, and how many drifts there are."""
    from scenarios.bench.recovery import aligned

    bands, drifts = [], 0
    for name, series in models:
        found = aligned(series)
        if found is None:
            continue
        drifts = max(drifts, found.drifts)
        mean, low, high = found.mean, found.low, found.high
        if higher_is_better:
            mean, low, high = 1.0 - mean, (1.0 - high).clip(0.0), (1.0 - low).clip(None, 1.0)
        rows = found.rows.tolist()
        bands.append(Band(name, rows, mean.tolist(), low.tolist(), high.tolist()))
    return bands, drifts


def _weights(
    page: Report, first: Result, found: Snapshot, drifts: Sequence[tuple[int, int]] | None
) -> None:
    if not found.weights:
        return
    rows, shares = thinned(found.weight_rows, largest_first(found.weights))
    page.heading("Who is trusted").picture(
        share_chart(
            "Weights of the families of experts",
            rows,
            shares,
            x_label="row of the stream",
            y_label="share of the mixture",
            alarms=_marks(first.alarms) if first.watches else None,
            drifts=drifts or (),
        )
    )
    if len(first.key_names) > 1:
        page.text("The weights of the key that came first; every key has its own.")


def thinned(
    rows: Sequence[float], shares: Mapping[str, Sequence[float]], most: int = 160
) -> tuple[list[float], dict[str, list[float]]]:
    """At most ``most`` points, each the mean over equally many neighbours.

    >>> thinned([0.0, 1.0, 2.0, 3.0], {"a": [1.0, 0.0, 1.0, 1.0]}, most=2)
    ([0.5, 2.5], {'a': [0.5, 1.0]})
    """
    step = max(1, -(-len(rows) // most))

    def means(values: Sequence[float]) -> list[float]:
        return [fmean(values[i : i + step]) for i in range(0, len(values), step)]

    return means(rows), {name: means(values) for name, values in shares.items()}


def largest_first(
    shares: Mapping[str, Sequence[float]], most: int = 8
) -> dict[str, Sequence[float]]:
    """The families with the greatest share, the others added up."""
    ranked = sorted(shares, key=lambda name: -sum(shares[name]))
    if len(ranked) <= most:
        return {name: shares[name] for name in ranked}
    rest = [sum(values) for values in zip(*(shares[n] for n in ranked[most - 1 :]), strict=True)]
    return {name: shares[name] for name in ranked[: most - 1]} | {"others": rest}


def _adapting(page: Report, found: Snapshot) -> None:
    """The loss of challengers before and after they adapted, and the query loss of outer steps."""
    if not found.adaptations:
        return
    unit = "nats" if found.task == "classification" else "squared error, standardised"
    page.heading("Adapting, and learning to adapt").picture(
        change_chart(
            "Adapting: loss on support rows",
            found.before.rows,
            found.before.values,
            found.after.values,
            x_label="row of the stream",
            y_label=f"mean loss ({unit})",
        )
    )
    page.text(
        f"{found.adaptations:,} adaptations of challengers from meta-parameters: when a key is "
        "new, at every alarm, and again as the young segment grows."
    )
    if found.meta:
        page.picture(
            line_chart(
                "Learning to adapt: loss on query rows",
                [Line(learner, *points) for learner, points in found.meta.items()],
                x_label="row of the stream",
                y_label=f"mean query loss ({unit})",
                alarms=None,
            )
        )
        page.text("After adapting to the support rows of a task. Outer steps lower it.")


def _marks(alarms: Sequence[DriftDetected]) -> list[Mark]:
    return [
        Mark(a.row, a.explanation.text() if a.explanation is not None else f"on {a.signal}")
        for a in alarms
    ]


def _true_drifts(page: Report, drifts: Sequence[FoundDrift]) -> None:
    """Each with the alarm that found it."""
    if not drifts:
        return
    rows = [drift.cells() for drift in drifts[:MOST_ALARMS]]
    page.heading("True drifts").table(DRIFT_HEAD, rows, words=["what"])
    if len(drifts) > MOST_ALARMS:
        page.text(f"The first {MOST_ALARMS} of {len(drifts):,}.")


def _alarms(page: Report, result: Result) -> None:
    """Every alarm with its explanation, and the quantiles of what moved farthest."""
    if not result.alarms:
        return
    page.heading(f"Alarms of {result.model}")
    keyed = any(alarm.key for alarm in result.alarms)
    rows, moved = [], []
    for alarm in result.alarms[:MOST_ALARMS]:
        key = [alarm.key] if keyed else []
        told = alarm.explanation
        why = told.text() if told is not None else ""
        votes = told.votes if told is not None else {}
        voted = ", ".join(f"{name} {vote:.1f}" for name, vote in votes.items() if vote > 0)
        rows.append([f"{alarm.row:,}", f"{alarm.onset:,}", *key, alarm.signal, why, voted])
        for m in told.moved if told is not None else ():
            before, after = (" / ".join(f"{q:.3g}" for q in side) for side in (m.before, m.after))
            moved.append([f"{alarm.row:,}", *key, m.feature, f"{m.effect:+.2f}", before, after])
    of = ["key"] if keyed else []
    page.table(
        ["row", "since", *of, "signal", "what changed", "votes, in nats"], rows,
        words=["signal", "what changed", "votes, in nats"],
    )  # fmt: skip
    if len(result.alarms) > MOST_ALARMS:
        page.text(f"The first {MOST_ALARMS} of {len(result.alarms):,}.")
    if moved:
        page.text("Features that moved: the shift in standard deviations, and the 10 %, 50 % and "
                  "90 % quantiles before and after.")  # fmt: skip
        page.table(["row", *of, "feature", "shift", "before", "after"], moved)


def _insights(page: Report, found: Sequence[Insight]) -> None:
    """The learned rates and the moves of adaptation, a table for each meta-learner."""
    for told in found:
        page.heading(f"What {told.learner} has learned about adapting")
        likeness = f"; the mean cosine between two moves is {told.likeness:.2f}"
        page.text(
            f"{told.updates:,} outer steps. Adapting to the newest {told.tasks} tasks moves the "
            f"weights along {told.directions} directions for the most part ({EXPLAINED:.0%} of the "
            f"squared length), {told.first:.0%} along the first"
            f"{likeness if told.likeness == told.likeness else ''}."
        )
        rows = [
            [layer.name, *(number(v) for v in (layer.least, layer.median, layer.most)),
             f"{layer.share:.1%}"]
            for layer in told.layers
        ]  # fmt: skip
        head = ["parameters", "least inner rate", "median", "greatest", "share of the moves"]
        page.table(head, rows)
        named = [one for one in told.inputs if one.share >= LEAST_SHARE][:MOST_INPUTS]
        if named:
            page.text("What adaptation changes most is what the prediction makes of these inputs:")
            page.table(["input", "share of the change"], [[n, f"{s:.1%}"] for n, s in named])


def _rolling(result: Result, window: int) -> Line:
    line = rolling_mean(result.losses, window)
    rows = [float(result.rows[int(i)]) for i in line.x]
    settled = [i for i, at in enumerate(line.x) if at >= window // 4]  # a mean of few says little
    rows, values = [rows[i] for i in settled], [line.y[i] for i in settled]
    good = result.scores.higher_is_better
    return Line(result.model, rows, [1.0 - y for y in values] if good else values)


def bench_report(
    title: str,
    told: str,
    tables: Sequence[Summary],
    done: Sequence[Done],
    drifts: Mapping[tuple[str, int], Sequence[tuple[int, int]]],
) -> Report:
    """The page of a suite: its tables and pictures, then every stream over its rows.

    Args:
        title: of the page.
        told: what the suite shows.
        tables: of the suite.
        done: its runs.
        drifts: the true ones by stream and seed, where they are known.
    """
    page = Report(title).text(told)
    for summary in tables:
        page.heading(summary.title).table(summary.head, summary.rows)
        if summary.note:
            page.text(summary.note)
        if summary.lines:
            page.picture(
                line_chart(
                    summary.title,
                    summary.lines,
                    x_label=summary.x_label,
                    y_label=summary.y_label,
                    alarms=None,
                    logarithmic=True,
                )
            )
    streams = list(dict.fromkeys(d.record.stream for d in done if len(d.losses)))
    for stream in streams[:MOST_STREAMS]:
        _stream(page, stream, [d for d in done if d.record.stream == stream], drifts)
    if len(streams) > MOST_STREAMS:
        page.text(f"Drawn: the first {MOST_STREAMS} of {len(streams)} streams.")
    return provenance_of(page, {})


def _stream(
    page: Report,
    stream: str,
    done: Sequence[Done],
    drifts: Mapping[tuple[str, int], Sequence[tuple[int, int]]],
) -> None:
    """The score over the rows of the first seed, and recovery over the drifts of all seeds."""
    chunk = min(d.record.chunk for d in done)
    done = [d for d in done if d.record.chunk == chunk]
    models = _best(done)
    first = done[0].record
    seed = first.seed
    shown = [d for m in models for d in done if (d.record.model, d.record.seed) == (m, seed)]
    if not shown:
        return
    window = min(WINDOW, max(20, min(d.record.rows for d in shown) // 20))
    truth = drifts.get((stream, seed))
    alarms = [Mark(row, "") for row in shown[0].record.drifts]
    page.heading(f"{stream} over its rows").picture(
        line_chart(
            f"{stream}: {first.main}, last {window:,} labels, seed {seed}",
            [_line(d, window) for d in shown],
            x_label="row of the stream",
            y_label=NAMES.get(first.main, first.main),
            alarms=alarms or None,
            drifts=truth or (),
        )
    )
    every = [
        (m, [(whole(d), drifts[stream, d.record.seed]) for d in done
             if d.record.model == m and (stream, d.record.seed) in drifts])
        for m in models
    ]  # fmt: skip
    bands, n = bands_of(every, first.higher_is_better)
    if bands:
        page.picture(
            band_chart(
                f"{stream}: after a drift, mean over {many(n, 'true drift')}",
                bands,
                x_label="rows since the drift began",
                y_label=NAMES.get(first.main, first.main),
                zero="drift",
            )
        )


def _best(done: Sequence[Done]) -> list[str]:
    """The default model and the best of the others by their mean score."""
    scores: dict[str, list[float]] = {}
    for d in done:
        scores.setdefault(d.record.model, []).append(d.record.score)
    sign = -1.0 if done[0].record.higher_is_better else 1.0
    ours = [model for model in scores if model == "streammeta"]
    others = [model for model in scores if model not in ours]
    ranked = sorted(others, key=lambda m: sign * sum(scores[m]) / len(scores[m]))
    return [*ours, *ranked][:MOST_LINES]


def _line(done: Done, window: int) -> Line:
    line = rolling_mean(done.losses.tolist(), window)
    kept = [i for i, at in enumerate(line.x) if at >= window // 4]
    rows = [float(done.rows[int(line.x[i])]) for i in kept]
    good = done.record.higher_is_better
    values = [1.0 - line.y[i] if good else line.y[i] for i in kept]
    return Line(done.record.model, rows, values)


def whole(done: Done) -> NDArray[np.float64]:
    """The losses by row from 0, nan where none was scored."""
    import numpy as np

    found = np.full(int(done.rows.max()) + 1 if len(done.rows) else 0, np.nan)
    found[done.rows] = done.losses
    return found
