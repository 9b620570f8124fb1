"""From a checked config to the parts of a run: stream, sinks, store, model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streammeta.config import ModelConfig
from streammeta.config_file import RunConfig, SinkConfig, SourceConfig, options_of
from streammeta.errors import ConfigError, UsageError
from streammeta.runtime import Pace
from streammeta.serve.inlet import ApiSource
from streammeta.serve.server import check_extra
from streammeta.sources import FileSource, IterableSource, Source, decide_task
from streammeta.sources.base import Forgets
from streammeta.sources.labelled import labelled
from streammeta.sources.merged import MergedSource
from streammeta.store import LocalStore

if TYPE_CHECKING:
    from scenarios.scenario import Card
    from streammeta.engine import Engine
    from streammeta.events import Event
    from streammeta.sinks import Sink
    from streammeta.snapshot import Snapshot

FIRST_EVENTS = 8  # read, and learned by a model that is thrown away, before a run starts


@dataclass(slots=True)
class Parts:
    """What a run is made of; ``card`` is there when the stream is a scenario.

    ``why`` says how the task was chosen; ``inlet`` is the part of the source that the HTTP API
    fills.
    """

    source: Source
    model: ModelConfig
    why: str
    sinks: list[Sink]
    store: LocalStore | None
    card: Card | None
    inlet: ApiSource | None = None

    def make(self, *, new: bool = False) -> Callable[[Snapshot | None], Engine]:
        """What the host calls for a new or a restored engine; ``new``: never a restored one."""
        from streammeta.engine import Engine

        config = self.model

        def engine(snapshot: Snapshot | None) -> Engine:
            if snapshot is None or new:
                return Engine(config)
            return Engine.restore(config, snapshot)

        return engine


def assemble(path: Path, config: RunConfig) -> Parts:
    """Build everything that can be built without starting, and try the model on the first events.

    After this a run can only fail by what changes outside: nothing of an earlier run has been
    touched so far.

    Raises:
        ConfigError: a name or an option in the config cannot be used.
        SourceError: the stream cannot be opened.
    """
    sinks = build_sinks(path, config.sinks)
    check_sources(path, config)
    if config.serve is not None:
        check_extra()
    try:
        pace = Pace.parse(config.pace)
        source, card, task, why = _both(config)
    except UsageError as fault:
        raise ConfigError(f"{path}: {fault}") from fault
    model = config.model.model_copy(update={"task": task})
    first = _first_events(source)
    inlet = source if isinstance(source, ApiSource) else _inlet(config)
    if inlet is not None and inlet is not source:
        source = MergedSource(source, inlet)
    if first and pace.kind == "time" and all(event.ts is None for event in first):
        raise ConfigError(
            f"{path}: pace is {config.pace!r}, by event time, but the events have none: name the "
            f"time column, or use a pace like 500/s"
        )
    try_model(path, model, first)
    store = LocalStore(config.checkpoint.folder) if config.checkpoint else None
    return Parts(source, model, why, sinks, store, card, inlet)


def open_stream(section: SourceConfig) -> Source:
    """The source of a section, nothing read; the task is not decided.

    Raises:
        ConfigError, UsageError: an option cannot be used, or a package is missing.
    """
    if section.plugged is not None:
        return _plugged(section)
    return _stream(section, "auto" if section.scenario is not None else "regression")[0]


def _first_events(source: Source) -> list[Event]:
    """The first events; none of a source that keeps what it is sent, for that begins with a read.

    A dry run must not take anything from a pipe, or a port.
    """
    if isinstance(source, Forgets):
        return []
    return source.read(source.start(), FIRST_EVENTS)[0]


def try_model(path: Path, model: ModelConfig, events: Sequence[Event] = ()) -> None:
    """Build a model that is thrown away, and let it learn ``events``.

    Building checks the learner's name, the detectors, the device and that the init file exists;
    the first event builds the learner itself and reads the init file.

    Raises:
        ConfigError: one of these cannot be used.
    """
    from streammeta.engine import Engine

    try:
        Engine(model).observe(events)
    except ConfigError as fault:
        raise ConfigError(f"{path}: {fault}") from fault
    except (ImportError, AttributeError) as fault:
        raise ConfigError(f"{path}: model: a part of it cannot be imported: {fault}") from fault


def build_sinks(path: Path, configs: Sequence[SinkConfig]) -> list[Sink]:
    """The sinks, none of them opened.

    Raises:
        ConfigError: an option cannot be used, or two sinks have one name.
    """
    try:
        sinks = [_sink(config) for config in configs]
    except UsageError as fault:
        raise ConfigError(f"{path}: {fault}") from fault
    names = [sink.name for sink in sinks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(
            f"{path}: sinks: two are called {twice[0]!r} (the name of a file without its folder): "
            f"commits keep their positions by name, so each needs its own"
        )
    return sinks


def check_sources(path: Path, config: RunConfig) -> None:
    """What can be said of the sources while none of them is opened.

    Raises:
        ConfigError: one cannot be made, or nothing tells the task.
    """
    try:
        made = {
            part: _plugged(section)
            for part, section in (("source", config.source), ("labels", config.labels))
            if section is not None and section.plugged is not None
        }
        for source in made.values():
            source.close()
        if config.labels is not None and not config.labels.target and "labels" not in made:
            raise UsageError("labels: needs 'target', the column with the labels")
        if config.model.task == "auto":
            part = "source" if config.labels is None else "labels"
            _check_task(config, part, made.get(part))
    except UsageError as fault:
        raise ConfigError(f"{path}: {fault}") from fault


def _check_task(config: RunConfig, part: str, source: Source | None) -> None:
    """Where the labels come from has to have some before it runs."""
    if config.source is None:
        raise UsageError(
            "model.task: events that come over HTTP have no labels to decide by before they come: "
            "say classification or regression"
        )
    if source is not None and not isinstance(source, FileSource):
        section = getattr(config, part)
        raise UsageError(
            f"model.task: source {section.plugged!r} has no labels to decide by before it runs: "
            f"say classification or regression"
        )


def _both(config: RunConfig) -> tuple[Source, Card | None, str, str]:
    """The stream, merged with that of its labels where they come from elsewhere."""
    if config.source is None:
        return _over_http(config)
    if config.labels is None:
        return _stream(config.source, config.model.task)
    labels, _, task, why = _stream(config.labels, config.model.task)
    events, card, _, _ = _stream(config.source, task)
    return labelled(events, labels), card, task, f"{why}, in labels"


def _inlet(config: RunConfig) -> ApiSource | None:
    """What the HTTP API fills, where it has a journal."""
    serve = config.serve
    if serve is None or serve.journal is None:
        return None
    return ApiSource(serve.journal, serve.queue, serve.fsync)


def _over_http(config: RunConfig) -> tuple[Source, Card | None, str, str]:
    """The stream of what is sent over HTTP alone."""
    source = _inlet(config)
    assert source is not None  # RunConfig demands one of the two
    return source, None, config.model.task, "as configured"


def _stream(config: SourceConfig, task: str) -> tuple[Source, Card | None, str, str]:
    if config.scenario is not None:
        from scenarios.scenario import scenario

        stream = scenario(config.scenario, seed=config.seed, rows=config.rows)
        card = stream.card
        if task not in ("auto", card.task):
            raise UsageError(f"model.task is {task}, but scenario {card.name} is {card.task}")
        delayed = IterableSource(stream.events, card.name, label_delay=config.label_delay)
        return delayed, card, card.task, "the scenario's own"
    if config.plugged is not None:
        return _by_kind(config, task)
    assert config.path is not None  # SourceConfig demands one of the two
    file = FileSource(
        config.path,
        target=config.target or None,
        time=config.time,
        key=config.key,
        id=config.id,
        ignore=config.ignore,
        horizon=config.horizon,
        label_delay=config.label_delay,
        rows=config.rows,
    )
    labels = file.sniff().targets
    chosen, why = decide_task(labels) if task == "auto" else (task, "as configured")
    return file, None, chosen, why


def _plugged(config: SourceConfig) -> Source:
    component, options = options_of(config)
    source: Source = component.load()(**options)
    return source


def _by_kind(config: SourceConfig, task: str) -> tuple[Source, None, str, str]:
    source = _plugged(config)
    if task != "auto":
        return source, None, task, "as configured"
    assert isinstance(source, FileSource)  # check_sources demands it
    return source, None, *decide_task(source.sniff().targets)


def _sink(config: SinkConfig) -> Sink:
    component, options = options_of(config)
    made: Sink = component.load()(**options)
    return made
