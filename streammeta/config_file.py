"""A run's configuration: TOML (YAML or JSON by suffix), the environment and ``--set``.

Precedence: ``--set section.field=value`` > ``STREAMMETA_SECTION__FIELD`` > file > defaults.
``${NAME}`` inside a text of the file, or of ``--set``, is replaced by that environment variable;
such texts are shown as written, because they are where secrets go. A fault names the place, the
field and the nearest valid name.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from streammeta.config import ModelConfig, Section
from streammeta.errors import ConfigError, UsageError
from streammeta.events import KINDS
from streammeta.registry import Component, find
from streammeta.serve.options import ServeConfig

PREFIX = "STREAMMETA_"
FLAGS = ("task", "seed", "chunk", "init")  # of the model, beside --set, where there is no config
Where = tuple[str | int, ...]


class SourceConfig(Section):
    """Where events come from: a scenario, a file, or a source by its kind, one of the three.

    A source by its kind takes the arguments of its class (``streammeta components show NAME``)
    beside those of the fields here that it knows.
    """

    model_config = ConfigDict(extra="allow", frozen=True)  # what is extra, the kind has to know

    scenario: str | None = Field(None, description="a scenario by name, such as sensor_fault")
    kind: str | None = Field(None, description="a source by name, such as redis")
    seed: int = Field(0, ge=0, description="the scenario's seed")
    path: str | None = Field(None, description="a CSV, JSONL or Parquet file")
    follow: bool = Field(False, description="wait for lines that are appended to the file")
    target: str | None = Field(None, description="column to predict")
    time: str | None = None
    key: str | None = None
    id: str | None = None
    ignore: tuple[str, ...] = ()
    horizon: int = Field(0, ge=0)
    label_delay: int = Field(0, ge=0, description="labels arrive this many rows later")
    rows: int | None = Field(None, ge=1, description="at most this many rows")

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, name: str | None) -> str | None:
        if name is not None:
            _find("sources", name)
        return name

    @property
    def plugged(self) -> str | None:
        """The source by its name in the registry; ``None``: a scenario, or a file read once."""
        return "follow" if self.follow else self.kind

    @model_validator(mode="after")
    def _one_origin(self) -> SourceConfig:
        if self.follow and self.kind not in (None, "follow"):
            raise ValueError("'follow' is for files, with 'path'")
        if self.plugged is not None:
            if self.scenario is not None:
                raise ValueError("expected one of 'scenario', 'path' and 'kind'")
            return self  # its class says which of the fields it takes
        if (self.scenario is None) == (self.path is None):
            raise ValueError("expected one of 'scenario', 'path' and 'kind'")
        if self.path is not None and self.target is None and ".jsonl" not in self.path:
            raise ValueError(
                "'path' needs 'target', the column to predict; \"\" where [labels] has it"
            )
        of_files = ("target", "time", "key", "id", "ignore", "horizon")
        given = [name for name in of_files if name in self.model_fields_set]
        if self.scenario is not None and given:
            raise ValueError(f"{given[0]!r} is for files, a scenario has its own")
        if self.path is not None and "seed" in self.model_fields_set:
            raise ValueError("'seed' is for scenarios, a file's rows are what they are")
        return self


class SinkConfig(Section):
    """Where outputs go: ``jsonl`` and ``dead_letter`` files, ``stdout``, or another kind.

    A sink takes the arguments of its class besides (``streammeta components show NAME``).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field("jsonl", description="a sink by name")
    path: str | None = None
    outputs: tuple[str, ...] | None = Field(
        None, description="kinds of outputs, such as predicted; default: the sink's own"
    )

    @property
    def plugged(self) -> str:
        """The sink by its name in the registry."""
        return self.kind

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, name: str) -> str:
        _find("sinks", name)
        return name

    @field_validator("outputs")
    @classmethod
    def _known_outputs(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in KINDS:
                raise ValueError(f"no output is called {name!r}; known: {', '.join(KINDS)}")
        return names


class MetricsConfig(Section):
    """The Prometheus endpoint."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(9108, ge=0, le=65535, description="0 takes any free port")


class CheckpointConfig(Section):
    """Where commits go."""

    folder: str
    every_events: int = Field(1000, ge=1)
    every_seconds: float = Field(
        10.0, gt=0, description="commit at least so often while events come"
    )
    on_start: str = Field(
        "resume", pattern="^(resume|fresh)$", description="what to do with commits that exist"
    )


class CompareConfig(Section):
    """After a scenario has ended: the same stream again, other models, several seeds."""

    models: tuple[str, ...] = (
        "streammeta",
        "frozen@drift",
        "reset",
        "no_challengers",
        "no_change",
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    processes: int = Field(2, ge=1)


class RunConfig(Section):
    """Everything that ``streammeta run`` reads."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["source"]}, {"required": ["serve"]}]}
    )

    serve: ServeConfig | None = None
    source: SourceConfig | None = Field(None, validate_default=True)
    labels: SourceConfig | None = Field(
        None, description="a second source, with the labels of the first one's events, by id"
    )
    model: ModelConfig = Field(default_factory=lambda: ModelConfig.model_validate({}))
    sinks: tuple[SinkConfig, ...] = ()
    metrics: MetricsConfig = Field(default_factory=lambda: MetricsConfig.model_validate({}))
    checkpoint: CheckpointConfig | None = None
    pace: str = Field("max", description="max, realtime, 10x or 500/s")
    compare: CompareConfig | None = None

    @field_validator("source")
    @classmethod
    def _has_events(cls, source: SourceConfig | None, found: ValidationInfo) -> SourceConfig | None:
        serve = found.data.get("serve")
        if source is None and "serve" in found.data and not (serve and serve.journal):
            raise PydanticCustomError("missing", "is missing")
        return source

    @model_validator(mode="after")
    def _one_clock(self) -> RunConfig:
        if self.serve is not None and self.serve.journal is not None and self.source is not None:
            from streammeta.runtime import Pace

            if Pace.parse(self.pace).kind == "time":
                raise ValueError(
                    f"pace is {self.pace!r}, by the times of a stream, but events that come over "
                    f"HTTP (serve.journal) come when they come; use max, or a pace like 500/s"
                )
        return self

    @field_validator("pace")
    @classmethod
    def _known_pace(cls, text: str) -> str:
        from streammeta.runtime import Pace

        try:
            Pace.parse(text)
        except UsageError as fault:
            raise ValueError(str(fault)) from fault
        return text

    @field_validator("model")
    @classmethod
    def _known_parts(cls, model: ModelConfig) -> ModelConfig:
        _find("learners", model.learner)
        if model.partner is not None:
            _find("learners", model.partner)
        for name in model.detectors:
            if "(" in name:
                from drift import make_detector

                make_detector(name)  # several as one: says itself what is wrong
            else:
                _find("detectors", name)
        return model


def _find(kind: str, name: str) -> None:
    """A name that nothing answers to is a fault of the config, found before anything starts."""
    try:
        find(kind, name)
    except UsageError as fault:
        raise ValueError(str(fault)) from fault


@dataclass(frozen=True, slots=True)
class Effective:
    """A checked config and where each of its values came from."""

    config: RunConfig
    origins: Mapping[Where, str] = field(default_factory=dict)
    shown: Mapping[Where, Any] = field(default_factory=dict)  # as written, without secrets

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(field, value, origin) of every value, in the order of the sections."""
        data = self.config.model_dump(mode="json")
        for where, section in _plugged(self.config):
            _put(data, where, _all_options(section))
        for where, value in _leaves(data, ()):
            origin = next(
                (self.origins[where[:n]] for n in range(len(where), 0, -1) if where[:n] in
                 self.origins),
                "default",
            )  # fmt: skip
            yield _dotted(where), json.dumps(self.shown.get(where, value), default=str), origin


def load_config(
    path: Path,
    *,
    sets: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Effective:
    """Read, merge and check a config.

    Raises:
        ConfigError: the file cannot be read, or something in it, in the environment or in
            ``sets`` is wrong. One line for each fault.
    """
    environment = os.environ if environment is None else environment
    text = _read(path)
    data = _parse(path, text)
    shown: dict[Where, Any] = {}
    origins: dict[Where, str] = {}
    for where, value in list(_leaves(data, ())):
        origins[where] = f"{path}:{line_of(text, where)}"
        told = f"{origins[where]}: {_dotted(where)}"
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "${" in text for text in texts):
            shown[where] = value
            filled = [
                _substitute(text, environment, told) if isinstance(text, str) else text
                for text in texts
            ]
            _put(data, where, filled if isinstance(value, list) else filled[0])
    for name, value in sorted(environment.items()):
        if (variable := _variable(name)) is not None:
            _override(data, variable, value, f"environment {name}")
            origins[variable] = f"environment {name}"
            shown.pop(variable, None)
    for setting in sets:
        name, equals, value = setting.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {setting}: expected section.field=value")
        where = tuple(int(p) if p.isdecimal() else p for p in name.strip().split("."))
        told = f"--set {name.strip()}"
        _override(data, where, _substitute(value, environment, told), f"--set {setting}")
        origins[where] = told
        shown.pop(where, None)
        if "${" in value:
            shown[where] = value
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as fault:
        lines = [_explain(error, path, text, origins) for error in fault.errors()]
        raise ConfigError("\n".join(lines)) from None
    lines = [_explain(error, path, text, origins) for error in _option_faults(config)]
    if lines:
        raise ConfigError("\n".join(lines))
    return Effective(config, origins, shown)


ARGUMENTS = {"outputs": "kinds"}  # fields that are called otherwise where they are an argument


def options_of(section: SourceConfig | SinkConfig) -> tuple[Component, dict[str, Any]]:
    """The component that a section names, and the arguments that the section has for it.

    Raises:
        ValidationError: an argument is missing, unknown, or of the wrong type.
        UsageError: it cannot be made from a config.
        ImportError, AttributeError: a user's own one is not there.
    """
    kind = "sources" if isinstance(section, SourceConfig) else "sinks"
    assert section.plugged is not None
    component = find(kind, section.plugged)
    fields: dict[str, Any] = component.settings()
    given = {
        ARGUMENTS.get(name, name): value
        for name, value in section.model_dump(exclude_unset=True).items()
        if name not in ("kind", "follow") and value is not None
    }
    model = create_model("Options", __base__=Section, **fields)
    checked = model.model_validate(given)
    return component, {name: getattr(checked, name) for name in checked.model_fields_set}


def _all_options(section: SourceConfig | SinkConfig) -> dict[str, Any]:
    """What a component is made with, its own defaults in place of what is not given."""
    kind = "sources" if isinstance(section, SourceConfig) else "sinks"
    named = "follow" if isinstance(section, SourceConfig) and section.follow else "kind"
    fields = {argument: name for name, argument in ARGUMENTS.items()}
    given = section.model_dump(mode="json", exclude_unset=True)
    found = {named: getattr(section, named)}
    for argument, (_, default) in find(kind, str(section.plugged)).settings().items():
        name = fields.get(argument, argument)
        found[name] = default if given.get(name) is None else given[name]
    return found


def _plugged(config: RunConfig) -> Iterator[tuple[Where, SourceConfig | SinkConfig]]:
    """The sections that name a component of the registry, and where they stand."""
    for part, source in (("source", config.source), ("labels", config.labels)):
        if source is not None and source.plugged is not None:
            yield (part,), source
    for i, sink in enumerate(config.sinks):
        yield ("sinks", i), sink


def _option_faults(config: RunConfig) -> Iterator[dict[str, Any]]:
    """What is wrong with the options of sources and sinks, as pydantic tells it."""
    for part, source in (("source", config.source), ("labels", config.labels)):
        for name in (source.model_extra or ()) if source and source.plugged is None else ():
            known = list(SourceConfig.model_fields)
            yield {"type": "extra_forbidden", "loc": (part, name), "known": known}
    for where, section in _plugged(config):
        try:
            options_of(section)
        except ValidationError as fault:
            for error in fault.errors():
                yield _as_option(where, section, dict(error))
        except (UsageError, ImportError, AttributeError) as fault:
            yield {"type": "value_error", "loc": (*where, "kind"), "msg": str(fault)}


def _as_option(
    where: Where, section: SourceConfig | SinkConfig, error: dict[str, Any]
) -> dict[str, Any]:
    names = {argument: name for name, argument in ARGUMENTS.items()}
    name = names.get(error["loc"][0], error["loc"][0])
    error["loc"] = (*where, name, *error["loc"][1:])
    what = f"{str(where[0]).removesuffix('s')} {section.plugged!r}"
    if error["type"] == "missing":
        error |= {"type": "value_error", "msg": f"is missing, {what} needs it"}
        error.pop("input")
    elif error["type"] == "extra_forbidden":
        kind = "sources" if isinstance(section, SourceConfig) else "sinks"
        component = find(kind, str(section.plugged))
        if name in type(section).model_fields:
            error |= {"type": "value_error", "msg": f"{what} takes no {name!r}"}
        error["known"] = [names.get(n, n) for n in component.settings()]
    return error


def model_config(sets: Sequence[str], given: Mapping[str, Any]) -> ModelConfig:
    """The model of a command without a config: defaults, ``given``, and ``sets`` over both.

    Raises:
        ConfigError: a setting is no ``model.field=value``, or cannot be used.
    """
    data: dict[str, Any] = {"model": dict(given)}
    origins: dict[Where, str] = {("model", name): f"--{name}" for name in given}
    for setting in sets:
        name, equals, value = setting.partition("=")
        where = tuple(name.strip().split("."))
        if not equals or len(where) < 2 or where[0] != "model":
            raise ConfigError(f"--set {setting}: expected model.field=value")
        _override(data, where, value, f"--set {setting}")
        origins[where] = f"--set {name.strip()}"
    nothing = {"source": {"scenario": ""}}  # a config has to have one
    try:
        return RunConfig.model_validate({**nothing, **data}).model
    except ValidationError as fault:
        lines = [_explain(error, Path(), "", origins) for error in fault.errors()]
        raise ConfigError("\n".join(lines)) from None


def model_overrides(sets: Sequence[str]) -> dict[str, Any]:
    """The fields of the model that ``sets`` changes, for commands that have flags for the rest.

    Raises:
        ConfigError: a setting cannot be used, or there is a flag for it.
    """
    found = model_config(sets, {}).model_dump(exclude_unset=True)
    for name in FLAGS:
        if name in found:
            raise ConfigError(f"--set model.{name}: use --{name}")
    return found


def line_of(text: str, where: Where) -> int:
    """The 1-based line on which a field is set; that of its section where it is missing.

    Good for TOML, YAML and JSON alike: each part of the path is looked for below the part before.

    >>> line_of("pace = 'max'\\n[model]\\nseed = 1\\nchunk = 0", ("model", "chunk"))
    4
    """
    lines = text.splitlines()
    at, found = 0, 1
    for depth, part in enumerate(where):
        if isinstance(part, int):
            continue
        index = where[depth + 1] if depth + 1 < len(where) else 0
        hits = [n for n in range(at, len(lines)) if _sets(lines[n], part)]
        if depth and _is_header(lines[found - 1]):  # a field stands above the next header
            ends = next((n for n in range(at, len(lines)) if _is_header(lines[n])), len(lines))
            hits = [n for n in hits if n < ends or _is_header(lines[n])]
        if not hits:
            break
        repeat = index if isinstance(index, int) and _is_header(lines[hits[0]]) else 0
        at = hits[min(repeat, len(hits) - 1)]
        found = at + 1
        at += depth + 1 < len(where) and _is_header(lines[at])
    return found


def _is_header(line: str) -> bool:
    return line.lstrip().startswith("[")


def _sets(line: str, name: str) -> bool:
    """Whether a line opens the section ``name`` or sets the field ``name``."""
    quoted = rf"[\"']?{re.escape(name)}[\"']?"
    header = rf"\s*\[+\s*(\w+\.)*{quoted}\s*[.\]]"
    return bool(
        re.match(rf"{header}|\s*(-\s+)?[{{\s]*(\w+\.)*{quoted}\s*[=:.]", line)
        or re.search(rf"[{{,]\s*{quoted}\s*[=:]", line)
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as fault:
        raise ConfigError(f"cannot read {path}: {fault.strerror or fault}") from fault
    except UnicodeDecodeError as fault:
        raise ConfigError(f"{path}: not UTF-8 text: {fault}") from fault


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        if path.suffix == ".json":
            data = json.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            data = _parse_yaml(path, text)
        elif path.suffix == ".toml":
            data = tomllib.loads(text)
        else:
            raise ConfigError(f"{path}: suffix {path.suffix!r}, expected .toml, .yaml or .json")
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"{path}: not TOML: {fault}") from fault
    except json.JSONDecodeError as fault:
        raise ConfigError(f"{path}:{fault.lineno}: not JSON: {fault.msg}") from fault
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, expected sections")
    return data


def _parse_yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError as fault:
        raise ConfigError(f"{path} needs PyYAML: pip install 'streammeta[yaml]'") from fault
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(fault).split())}") from fault


def _leaves(value: Any, where: Where) -> Iterator[tuple[Where, Any]]:
    """Every value that is not a section; a list of sections counts as sections."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*where, name))
    elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*where, i))
    else:
        yield where, value


def _put(data: Any, where: Where, value: Any) -> None:
    for part in where[:-1]:
        data = data[part]
    data[where[-1]] = value


def _override(data: dict[str, Any], where: Where, text: str, told: str) -> None:
    """Set a value given as text: TOML where it reads as TOML, else the text itself."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    place: Any = data
    for part in where[:-1]:
        if isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        elif isinstance(place, dict) and isinstance(part, str):
            place = place.setdefault(part, {})
        else:
            raise ConfigError(f"{told}: there is no {_dotted(where[:-1])}")
    if not isinstance(place, dict):
        raise ConfigError(f"{told}: {_dotted(where[:-1])} is no section")
    place[str(where[-1])] = value


def _variable(name: str) -> Where | None:
    """``STREAMMETA_MODEL__SEED`` is ("model", "seed"); other variables are not ours."""
    if not name.startswith(PREFIX) or "__" not in name:
        return None
    parts = name.removeprefix(PREFIX).lower().split("__")
    return tuple(int(p) if p.isdecimal() else p for p in parts)


def _substitute(text: str, environment: Mapping[str, str], told: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ConfigError(f"{told}: environment variable {match[1]} is not set")
        return environment[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _dotted(where: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in where)


def _explain(error: Mapping[str, Any], path: Path, text: str, origins: Mapping[Where, str]) -> str:
    """One pydantic error as one line: place, field, what is wrong, the nearest valid name."""
    where: Where = tuple(error["loc"])
    ours = next((origins[where[:n]] for n in range(len(where), 0, -1) if where[:n] in origins), "")
    ours = ours or next((o for at, o in origins.items() if at[: len(where)] == where), "")
    outside = ours.startswith(("environment", "--"))
    place = ours if outside else f"{path}:{line_of(text, where)}"
    if error["type"] == "extra_forbidden":
        known = error.get("known") or _fields_at(where[:-1])
        near = get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{place}: {_dotted(where)}: there is no such field; {hint}"
    if error["type"] == "missing":
        return f"{place}: {_dotted(where)}: is missing"
    wrong = str(error["msg"]).removeprefix("Value error, ")
    wrong = wrong[:1].lower() + wrong[1:]
    given = error.get("input")
    hidden = "input" not in error or isinstance(given, (Mapping, BaseModel))
    shown = "" if hidden else f" (got {given!r})"
    return f"{place}: {_dotted(where)}: {wrong}{shown}"


def _fields_at(where: Where) -> list[str]:
    """The fields of the section at ``where``."""
    section: type[BaseModel] = RunConfig
    for part in where:
        if isinstance(part, int) or part not in section.model_fields:
            continue
        annotation = section.model_fields[part].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        section = next((a for a in inner if issubclass(a, BaseModel)), section)
    return list(section.model_fields)
