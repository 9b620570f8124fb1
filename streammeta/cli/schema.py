"""``streammeta schema``: what a config may say, as JSON Schema, for editors and for checks."""

from __future__ import annotations

import json
from typing import Any

import typer

from streammeta.errors import UsageError

EPILOG = """[bold]Examples[/]

streammeta schema > streammeta.schema.json

streammeta schema --source redis
"""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    source: str | None = typer.Option(
        None, "--source", help="Only what a source of this kind takes.", show_default=False
    ),
    sink: str | None = typer.Option(
        None, "--sink", help="Only what a sink of this kind takes.", show_default=False
    ),
) -> None:
    """Print the JSON schema of a config, or of one kind of source or sink."""
    if source is not None and sink is not None:
        raise UsageError("--source and --sink: one at a time")
    if source is not None:
        found = _kind_schema("sources", source)
    elif sink is not None:
        found = _kind_schema("sinks", sink)
    else:
        found = config_schema()
    typer.echo(json.dumps({"$schema": DIALECT, **found}, indent=2))


def config_schema() -> dict[str, Any]:
    """The schema of a whole config, each kind of source and sink with the fields that it takes."""
    from streammeta.config_file import RunConfig, SinkConfig, SourceConfig

    found = RunConfig.model_json_schema()
    parts = found["$defs"]
    plain = SourceConfig.model_json_schema()["properties"]
    known = {name: value for name, value in plain.items() if name not in ("kind", "follow")}
    closed = {"type": "object", "additionalProperties": False}
    read_once = {
        "title": "a scenario, or a file that is read once",
        **closed,
        "properties": known,
        "oneOf": [{"required": ["scenario"]}, {"required": ["path"]}],
    }
    followed = _with({"follow": {"const": True}}, _kind_schema("sources", "follow"), ["follow"])
    parts["SourceConfig"] = {
        "description": SourceConfig.__doc__,
        "anyOf": [read_once, followed, *_kinds("sources", ())],
    }
    parts["SinkConfig"] = {
        "description": SinkConfig.__doc__,
        "anyOf": [*_kinds("sinks", ("jsonl",))],
    }
    return found


def _kinds(kind: str, default: tuple[str, ...]) -> list[dict[str, Any]]:
    """The schemas of all that a config can name; the ``default`` kind need not be named."""
    from streammeta.registry import components

    found = []
    for name in components(kind):
        try:
            own = _kind_schema(kind, name)
        except UsageError:
            continue  # it can only be made in Python
        named = {"kind": {"const": name}}
        found.append(_with(named, own, [] if name in default else ["kind"]))
    return found


def _with(first: dict[str, Any], schema: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """The same with some more properties."""
    properties = {**first, **schema.get("properties", {})}
    return {**schema, "properties": properties, "required": required + schema.get("required", [])}


def _kind_schema(kind: str, name: str) -> dict[str, Any]:
    """The fields that one component takes, described as its documentation does.

    Raises:
        UsageError: there is no such component, or no config can make it.
    """
    from pydantic import create_model

    from streammeta.config import Section
    from streammeta.config_file import ARGUMENTS
    from streammeta.registry import find

    component = find(kind, name)
    fields: dict[str, Any] = component.settings()
    names = {argument: field for field, argument in ARGUMENTS.items()}
    model = create_model("Options", __base__=Section, **fields)
    found = model.model_json_schema()
    documented = described(component.load().__doc__ or "")
    properties = {}
    for argument, value in found.get("properties", {}).items():
        value.pop("title", None)
        if argument in documented:
            value["description"] = documented[argument]
        properties[names.get(argument, argument)] = value
    found["title"], found["description"] = f"{kind[:-1]} {name}", component.summary
    found["properties"] = properties
    if "required" in found:
        found["required"] = [names.get(argument, argument) for argument in found["required"]]
    return found


def described(documentation: str) -> dict[str, str]:
    """What the ``Args:`` of a docstring say of each argument.

    >>> described("A.\\n\\n    Args:\\n        a: one\\n            line.\\n        b: two.\\n")
    {'a': 'one line.', 'b': 'two.'}
    """
    from inspect import cleandoc

    _, _, block = cleandoc(documentation).partition("Args:\n")
    found: dict[str, str] = {}
    last = ""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        name, colon, told = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            last, found[name] = name, told
        elif last and line.strip():
            found[last] += f" {line.strip()}"
    return found
