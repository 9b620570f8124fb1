"""``schema``: what it allows is what a config may say."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from test_cli import streammeta

from streammeta import registry
from streammeta.cli.init import TEMPLATES, template_text
from streammeta.cli.schema import config_schema

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

EXAMPLES = Path(__file__).parent.parent / "examples"
CONFIGS = {
    **{f"template {name}": template_text(name) for name in TEMPLATES},
    **{path.name: path.read_text() for path in EXAMPLES.glob("*.toml")},
}


@pytest.fixture(scope="module")
def validator():
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_template_and_example_is_allowed(name, validator):
    assert list(validator.iter_errors(tomllib.loads(CONFIGS[name]))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "[model]\nseed = 1",
        '[source]\nkind = "redis"\nurl = "redis://x"',
        '[source]\nkind = "redis"\nurl = "redis://x"\nstream = "s"\ntopic = "t"',
        '[source]\nkind = "pulsar"',
        '[source]\nscenario = "sea"\npath = "x.csv"',
        '[source]\nscenario = "sea"\n[[sinks]]\nkind = "webhook"',
        '[source]\nscenario = "sea"\n[[sinks]]\npath = "p"\noutputs = "predicted"',
        '[source]\nscenario = "sea"\n[model]\nchunk = 0',
        '[source]\nscenario = "sea"\n[model]\nsed = 0',
        '[source]\nkind = "http"\njournal = "j"\nport = 99999',
    ],
)
def test_what_a_config_must_not_say_is_not_allowed(wrong, validator):
    assert list(validator.iter_errors(tomllib.loads(wrong)))


def test_every_kind_is_there_with_a_description_of_each_field():
    schema = config_schema()
    for kind, part in (("sources", "SourceConfig"), ("sinks", "SinkConfig")):
        found = {}
        for each in schema["$defs"][part]["anyOf"]:
            constant = each["properties"].get("kind", {}).get("const")
            if constant:
                found[constant] = each
        only_in_python = {"iterable", "frame"}
        assert found.keys() == registry.components(kind).keys() - only_in_python
        for name, each in found.items():
            for field, told in each["properties"].items():
                assert field == "kind" or told.get("description"), f"{name}: {field}"


def test_the_command_prints_all_of_it_or_one_kind():
    assert json.loads(streammeta("schema").stdout)["title"] == "RunConfig"
    one = json.loads(streammeta("schema", "--sink", "redis").stdout)
    assert one["title"] == "sink redis"
    assert one["required"] == ["url", "stream"]
    assert "outputs" in one["properties"]
    assert "did you mean redis" in streammeta("schema", "--source", "reddis", code=2).stderr
    told = streammeta("schema", "--source", "frame", code=2).stderr
    assert "can only be made in Python" in told
