"""``streammeta run``: attach to the stream that a config names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import typer

from streammeta.cli import logs
from streammeta.cli.console import many, number, out, tell_of_compiling

if TYPE_CHECKING:
    from rich.console import Console

    from streammeta.cli.assembly import Parts
    from streammeta.cli.comparison import Comparison
    from streammeta.cli.live import LiveView
    from streammeta.cli.serving import Serving
    from streammeta.config_file import RunConfig, SinkConfig
    from streammeta.engine import Engine
    from streammeta.events import Output
    from streammeta.metrics import Metrics, MetricsServer
    from streammeta.runtime import RunEnd, ShardHost
    from streammeta.serve.published import PublishedModel
    from streammeta.sinks import Sink
    from streammeta.sources.base import SourceStatus
    from streammeta.store import LocalStore

SAMPLE = 1.0  # seconds between two looks at the model's statistics

EPILOG = """[bold]Examples[/]

streammeta run examples/quickstart.toml

streammeta run prices.toml --resume --pace 500/s --set model.inner_lr=0.05

[dim]Environment: STREAMMETA_SECTION__FIELD overrides the file, such as STREAMMETA_METRICS__PORT=0.
Ctrl-C or SIGTERM: finish the chunk, commit, stop, exit 0; a second Ctrl-C exits at once, 130.[/]
"""


def run(
    config: Path = typer.Argument(
        ..., metavar="CONFIG", help="A TOML, YAML or JSON file.", show_default=False
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Check the config, open the stream, say what would run, stop."
    ),
    max_events: int | None = typer.Option(
        None, min=1, help="Stop after this many events.", show_default=False
    ),
    sets: list[str] = typer.Option(
        [], "--set", help="section.field=value, over file and environment.", show_default=False
    ),
    resume: bool | None = typer.Option(
        None,
        "--resume/--fresh",
        help="Go on from the last commit, or forget all commits (what a source has journaled is "
        "kept, and learned again); default: as configured, else go on.",
        show_default=False,
    ),
    new_model: bool = typer.Option(
        False,
        "--new-model",
        help="Go on at the last commit's place in the stream, but with a model that knows nothing: "
        "after a change of the model, or of streammeta.",
    ),
    init: Path | None = typer.Option(
        None, help="File with meta-parameters to start from: model.init.", show_default=False
    ),
    pace: str | None = typer.Option(
        None, help="max, realtime, 10x or 500/s; default: as configured.", show_default=False
    ),
    form: str = typer.Option(
        "console",
        "--logs",
        envvar="STREAMMETA_LOGS",
        help="What stderr is for: console, or json, one object a line.",
    ),
) -> None:
    """Attach to a stream: predict, learn, notice drift, adapt; serve metrics while it runs."""
    logs.configure(form)
    from streammeta.cli.assembly import assemble
    from streammeta.config_file import load_config
    from streammeta.errors import UsageError
    from streammeta.runtime import drain_on_signals

    if init is not None:
        sets = [*sets, f"model.init={json.dumps(str(init))}"]
    settings = load_config(config, sets=sets).config
    if pace is not None:
        settings = settings.model_copy(update={"pace": pace})
    console = logs.console()
    tell_of_compiling(console)
    parts = assemble(config, settings)
    comparison = planned_comparison(config, settings)
    _announce(console, config, settings, parts)
    if dry_run:
        parts.source.close()
        _check(config, settings)
        console.print("dry run: everything checked, nothing started")
        return
    fresh = not resume if resume is not None else _fresh(settings)
    if new_model and fresh:
        raise UsageError("--new-model goes on where a commit stands, --fresh forgets all commits")
    with drain_on_signals() as stop:
        start = _Start(fresh, new_model)
        end = _attach(console, settings, parts, start, max_events, stop, comparison)
        if comparison is not None and end.reason == "finished":
            _compare(console, comparison, stop)


class _Start(NamedTuple):
    """What becomes of commits that exist: forgotten, or taken up, perhaps without their model."""

    fresh: bool
    new_model: bool


def _attach(
    console: Console,
    settings: RunConfig,
    parts: Parts,
    start: _Start,
    max_events: int | None,
    stop: Callable[[], bool],
    comparison: Comparison | None,
) -> RunEnd:
    """The live part: from the first event to the last, or to the signal."""
    from streammeta.cli.live import LiveView
    from streammeta.runtime import run_local

    card = parts.card
    told = card.announcements if card else {}
    faults = {start for start, _ in card.drifts} if card else None
    view = LiveView(console, parts.model.task, card.rows if card else None, told, faults)
    metrics = _metrics(parts) if settings.metrics.enabled else None
    server = serving = None
    finished = False
    try:
        if metrics is not None:
            server = _serve(metrics, settings)
            console.print(f"metrics: http://{server.host}:{server.port}/metrics", markup=False)
        serving = _serving(settings, parts, metrics, stop)
        host = _open(console, settings, parts, start, metrics, serving)
        if serving is not None:
            serving.start(host)
            console.print(f"page and api: {serving.address}", markup=False)
        if comparison is not None:
            comparison.start()
        begin = monotonic()
        watch = _Watch(view, host, metrics, serving)
        with view:
            end = run_local(
                host,
                pace=settings.pace,
                max_events=max_events,
                stop=stop,
                on_outputs=watch.take,
                on_wait=watch.look,
                on_turn=serving.turn if serving is not None else None,
                commit_seconds=settings.checkpoint.every_seconds if settings.checkpoint else None,
            )
        _close(console, view, end, monotonic() - begin, parts)
        finished = end.reason == "finished"
        return end
    finally:
        if comparison is not None and not finished:
            comparison.cancel()
        if serving is not None:
            serving.close()
        if server is not None:
            server.close()
        if parts.store is not None:
            parts.store.release()


def _metrics(parts: Parts) -> Metrics:
    from streammeta.metrics import Metrics

    model = parts.model
    metrics = Metrics(
        "streammeta",
        "regression" if model.task == "regression" else "classification",
        learners=model.learners if model.replay else (),
        detectors=model.detectors,
    )
    metrics.begins(parts.source.name, parts.sinks, checkpoints=parts.store is not None)
    return metrics


def _serving(
    settings: RunConfig, parts: Parts, metrics: Metrics | None, stop: Callable[[], bool]
) -> Serving | None:
    if settings.serve is None:
        return None
    from streammeta.cli.serving import Serving

    return Serving(settings.serve, parts, metrics, stop)


def _open(
    console: Console,
    settings: RunConfig,
    parts: Parts,
    start: _Start,
    metrics: Metrics | None,
    serving: Serving | None,
) -> ShardHost:
    """A host on which a shard is open: a new one, or taken up where its last commit left it."""
    from streammeta.runtime import ShardHost
    from streammeta.sinks.base import Checks
    from streammeta.sources.base import Forgets

    if parts.store is not None:
        _claim(parts.store)
    for sink in parts.sinks:
        if isinstance(sink, Checks):
            sink.check()
    if isinstance(parts.source, Forgets):
        parts.source.read(parts.source.start(), 0)  # it begins to listen, if it can
    if parts.store is not None and start.fresh:
        parts.store.clear(0)  # last of all: what is forgotten here cannot be had back
    host = ShardHost(
        parts.source,
        (serving or parts).make(new=start.new_model),
        parts.store,
        parts.sinks if serving is None else [*parts.sinks, serving.outlet],
        commit_every=settings.checkpoint.every_events if settings.checkpoint else 1000,
        chunk=parts.model.chunk,
        observer=metrics,
    )
    if host.open():
        told = " with a new model" if start.new_model else ""
        console.print(f"resumed after event {host.statistics().events:,}{told}")
    if metrics is not None:
        metrics.ready = True
    return host


def _serve(metrics: Metrics, settings: RunConfig) -> MetricsServer:
    from streammeta.errors import SinkError, UsageError
    from streammeta.metrics import MetricsServer

    try:
        return MetricsServer(metrics, settings.metrics.host, settings.metrics.port)
    except UsageError as fault:
        raise SinkError(str(fault)) from fault


def _claim(store: LocalStore) -> None:
    """Make the folder of the commits and claim it.

    Raises:
        SinkError: the folder cannot be made or written.
        StoreError: another process uses it.
    """
    from streammeta.errors import SinkError

    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.claim()
    except OSError as fault:
        raise SinkError(f"checkpoint.folder: {store.folder}: {fault.strerror}") from fault


class _Watch:
    """What is done with the outputs of each poll, and when there are none: draw, and once a second
    tell how a live source is doing and sample the model."""

    def __init__(
        self, view: LiveView, host: ShardHost, metrics: Metrics | None, serving: Serving | None
    ) -> None:
        self._view, self._host, self._metrics = view, host, metrics
        self._serving = serving
        self._sampled = 0.0
        self._fault = ""
        self._gaps = 0

    def take(self, outputs: list[Output]) -> None:
        self._view.take(outputs)
        if self._serving is not None:
            self._serving.take(outputs)
        self.look()

    def look(self) -> None:
        from streammeta.sources.base import Live, Queues

        now, source = monotonic(), self._host.source
        if self._serving is not None:
            self._serving.pause()
        if now - self._sampled < SAMPLE:
            return
        self._sampled = now
        if isinstance(source, Live):
            self._tell(source.name, source.status())
        engine: Engine | PublishedModel = self._host.model  # type: ignore[assignment]
        if self._metrics is not None:
            if isinstance(source, Queues):
                self._metrics.queue(source.queued)
            self._metrics.sample(engine.statistics())
        if self._serving is not None:
            self._serving.sample(self._host)

    def _tell(self, name: str, status: SourceStatus) -> None:
        if self._metrics is not None:
            self._metrics.source(name, not status.fault, status.lag, status.gaps)
        if bool(status.fault) != bool(self._fault):
            self._view.say(f"{status.fault}; trying again" if status.fault else f"{name}: is back")
        if status.gaps > self._gaps:
            self._view.say(f"{name}: events were lost before they could be read")
        self._fault, self._gaps = status.fault, status.gaps


def planned_comparison(path: Path, settings: RunConfig) -> Comparison | None:
    """The jobs of [compare], checked before anything starts."""
    from streammeta.errors import ConfigError, UsageError

    if settings.compare is None:
        return None
    if settings.source is None or settings.source.scenario is None:
        raise ConfigError(f"{path}: compare: needs source.scenario, a stream with known drifts")
    from streammeta.cli.comparison import Comparison

    try:
        return Comparison(settings, settings.compare)
    except UsageError as fault:
        raise ConfigError(f"{path}: compare: {fault}") from fault


def _compare(console: Console, comparison: Comparison, stop: Callable[[], bool]) -> None:
    from streammeta.cli.comparison import comparison_table, footnote

    console.print(f"comparing models over seeds: {len(comparison.jobs)} runs")
    outcomes = comparison.finish(stop, console)
    if not outcomes:
        console.print("comparison stopped")
        return
    out().print(comparison_table(outcomes))
    out().print(f"[dim]{footnote()}[/]")


def _announce(console: Console, path: Path, settings: RunConfig, parts: Parts) -> None:
    """What is about to run."""
    name, model = parts.source.name, parts.model
    console.print(f"{path}: {name}, {model.task} ({parts.why})", markup=False)
    if parts.card is not None:
        console.print(f"  {parts.card.description}", markup=False)
    learns = f"{model.learner}, {model.inner_steps} inner steps, device {model.device}"
    console.print(f"model: {learns}, chunk {model.chunk}, seed {model.seed}; pace {settings.pace}")
    for section, sink in zip(settings.sinks, parts.sinks, strict=True):
        console.print(f"{section.kind}: {_place(section, sink)}", markup=False)
    if settings.checkpoint is not None:
        told = f"{settings.checkpoint.folder}, every {settings.checkpoint.every_events:,} events"
        console.print(f"checkpoints: {told}", markup=False)


def _place(section: SinkConfig, sink: Sink) -> str:
    """Where a sink writes to; its name, where that says it as well: never an address with a
    password."""
    given = section.model_extra or {}
    named = (given[name] for name in ("subject", "topic", "stream") if given.get(name))
    return section.path or next(named, sink.name)


def _check(path: Path, settings: RunConfig) -> None:
    """Try every source and sink as things are.

    Raises:
        SourceError, SinkError: one cannot be reached; a run would wait for it, or fail.
    """
    from streammeta.cli.reaching import reached
    from streammeta.errors import SinkError, SourceError

    faults = [one for one in reached(path, settings) if one.outcome == "fault"]
    if not faults:
        return
    told = "; ".join(f"{one.name}: {one.told}" for one in faults)
    kind = SinkError if all(one.name.startswith("sink") for one in faults) else SourceError
    raise kind(f"dry run: {told}; streammeta doctor {path} says what else there is to see to")


def _close(console: Console, view: LiveView, end: RunEnd, seconds: float, parts: Parts) -> None:
    """One line on what happened."""
    names = {"finished": "end of the stream", "max_events": "--max-events", "stopped": "stopped"}
    score = view.scores
    here = " since it was resumed" if end.total > end.events else ""
    told = (
        f"{names[end.reason]}: {end.events:,} events in {seconds:.1f} s{here}, "
        f"{score.main} {number(score.values()[score.main])}, {many(len(view.drifts), 'drift')}, "
        f"{view.meta_updates:,} meta-updates, {view.rejected:,} rejected"
    )
    console.print(told, markup=False)
    if here and not end.events:
        console.print("nothing new has come since then; --fresh begins from the first event")
    if end.reason != "finished" and parts.store is not None:
        console.print(f"committed after event {end.total:,}; go on with --resume")


def _fresh(settings: RunConfig) -> bool:
    return settings.checkpoint is not None and settings.checkpoint.on_start == "fresh"
