"""The reports of ``evaluate``, ``replay`` and ``bench``: results as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streammeta.cli.console import number
from streammeta.meta.insight import EXPLAINED, Insight
from streammeta.report import Line, Report, chart, rolling_mean
from streammeta.scores import WINDOW

if TYPE_CHECKING:
    from scenarios.prequential import Result


MOST_ALARMS = 40  # that are told
LEAST_SHARE, MOST_INPUTS = 0.01, 10  # of the inputs that are told


def evaluation_report(
    title: str,
    told: str,
    results: Sequence[Result],
    drifts: Sequence[tuple[int, int]] = (),
) -> Report:
    """Scores as a table, the rolling score as a picture with the first model's alarms."""
    first = results[0]
    page = Report(title).text(told).heading("Scores")
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
    window = min(WINDOW, max(20, first.scores.n // 20))
    page.table(head, rows).heading(f"{first.scores.main} over the last {window} labels")
    lines = [_rolling(r, window) for r in results]
    page.picture(
        chart(
            lines,
            x_label="row",
            y_label=first.scores.main,
            alarms=first.drifts,
            drifts=drifts,
        )
    )
    page.text(f"Triangles: alarms of {first.model}. Shaded: true drifts, where they are known.")
    _alarms(page, first)
    if first.experts:
        page.heading(f"Own score of each expert of {first.model}")
        ranked = sorted(
            first.experts.items(), key=lambda e: e[1], reverse=first.scores.higher_is_better
        )
        page.table(["expert", first.scores.main], [[n, number(v)] for n, v in ranked])
    _insights(page, first.insights)
    return page


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
    page.table(["row", "since", *of, "signal", "what changed", "votes, in nats"], rows)
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
    good = result.scores.higher_is_better
    return Line(result.model, rows, [1.0 - y for y in line.y] if good else line.y)
