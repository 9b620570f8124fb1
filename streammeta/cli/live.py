"""What a person sees while ``streammeta run`` is attached: a progress line and announcements."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streammeta.cli.console import many
from streammeta.events import DriftDetected, MetaUpdated, Output, Predicted, Rejected
from streammeta.scores import Scores, scores_for

REDRAW = 0.1  # seconds, on a terminal
REPRINT = 5.0  # seconds, elsewhere
SPEED_OVER = 3.0  # seconds over which rows/s is taken
TAKEN_FOR_FALSE = 500  # rows of a key after its fault in which an alarm is told as its detection


class LiveView:
    """Reads outputs, draws one line, and says above it what has just happened.

    Args:
        console: where.
        task: ``classification`` or ``regression``.
        total: rows of the stream, where known.
        announcements: what to say when a row passes.
        faults: rows at which the world changes, for the key of the row; those that are announced
            count, all of them by default.
    """

    def __init__(
        self,
        console: Console,
        task: str,
        total: int | None = None,
        announcements: Mapping[int, str] | None = None,
        faults: Collection[int] | None = None,
    ) -> None:
        self.scores: Scores = scores_for(task)
        self.drifts: list[int] = []
        self.rows = 0
        self.rejected = 0
        self._updates: Counter[str] = Counter()
        self._console = console
        self._total = total
        self._announcements = dict(announcements or {})
        self._faults = self._announcements.keys() & (faults or self._announcements)
        self._since: dict[str, list[int]] = {}  # rows of a key from its last fault on
        self._drawn = 0.0
        self._seen: deque[tuple[float, int]] = deque([(monotonic(), 0)])
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def take(self, outputs: Sequence[Output]) -> None:
        """Read the outputs of some events and redraw if it is time."""
        for output in outputs:
            if isinstance(output, Predicted):
                self.rows = max(self.rows, output.row + 1)
                self._follow(output)
                if output.row in self._announcements:
                    self._say(output.row, self._announcements[output.row], "bold red")
            elif isinstance(output, DriftDetected):
                self.drifts.append(output.row)
                self._say(output.row, self._told(output), "bold yellow")
            elif isinstance(output, MetaUpdated):
                self._updates[output.learner] += 1
            elif isinstance(output, Rejected):
                self.rejected += 1
        self.scores.observe(outputs)
        now = monotonic()
        if now - self._drawn >= (REDRAW if self._live.is_started else REPRINT):
            self._drawn = now
            self._draw(now)

    @property
    def meta_updates(self) -> int:
        """Outer steps; a learner and its partner take theirs together."""
        return max(self._updates.values(), default=0)

    def say(self, text: str) -> None:
        """A line above the progress line."""
        self._console.print(text, markup=False)

    def line(self, now: float) -> str:
        """Rows, rows/s, rolling score, drifts, outer steps, rejected."""
        self._seen.append((now, self.rows))
        while len(self._seen) > 2 and now - self._seen[0][0] > SPEED_OVER:
            self._seen.popleft()
        (before, rows), score = self._seen[0], self.scores
        speed = (self.rows - rows) / (now - before) if now > before else 0.0
        of = f" of {self._total:,}" if self._total else ""
        window = min(score.n, 500)
        parts = [
            f"{self.rows:,}{of} rows",
            f"{speed:,.0f} rows/s",
            f"{score.main} {score.rolling:.3f} over the last {window}"
            if window
            else "no label yet",
            many(len(self.drifts), "drift"),
            f"{self.meta_updates:,} meta-updates",
        ]
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        return "  ".join(parts)

    def _draw(self, now: float) -> None:
        text = self.line(now)
        if self._live.is_started:
            self._live.update(Text(text, style="cyan", no_wrap=True, overflow="ellipsis"))
            self._live.refresh()
        elif self.rows:
            self._console.print(text, markup=False)

    def _say(self, row: int, text: str, style: str) -> None:
        self._console.print(Text(f"row {row:>6,}: {text}", style=style))

    def _follow(self, asked: Predicted) -> None:
        if asked.row in self._faults:
            self._since[asked.key] = [asked.row]
        elif (rows := self._since.get(asked.key)) is not None and len(rows) <= TAKEN_FOR_FALSE + 1:
            rows.append(asked.row)

    def _told(self, drift: DriftDetected) -> str:
        of = f"{drift.key}: " if drift.key else ""
        text = f"{of}drift detected by {drift.detector} on {drift.signal}"
        if drift.explanation is not None and drift.explanation.text():
            text += f": {drift.explanation.text()}"
        if not self._faults:
            return text
        after = bisect_right(self._since.get(drift.key, []), drift.row) - 1
        if not 0 <= after <= TAKEN_FOR_FALSE:
            return f"{text} (no fault before it: false alarm)"
        return f"{text} ({after} {'of its ' if drift.key else ''}rows after the fault)"
