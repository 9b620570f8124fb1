"""A config is right before anything starts, or says on one line what is wrong where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streammeta.cli.assembly import assemble, build_sinks
from streammeta.config_file import line_of, load_config, model_config, options_of
from streammeta.errors import ConfigError

GOOD = """
pace = "500/s"

[source]
scenario = "sensor_fault"

[model]
seed = 4
chunk = 8

[[sinks]]
path = "${FOLDER}/a.jsonl"

[[sinks]]
kind = "stdout"
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(GOOD)
    return path


def fault(path: Path, text: str, **given: object) -> str:
    path.write_text(text)
    given.setdefault("environment", {})
    with pytest.raises(ConfigError) as caught:
        load_config(path, **given)  # type: ignore[arg-type]
    assert caught.value.exit_code == 78
    return str(caught.value).replace(str(path), path.name)


def test_set_goes_over_environment_goes_over_file_goes_over_defaults(good: Path) -> None:
    environment = {
        "FOLDER": "/out",
        "STREAMMETA_MODEL__SEED": "5",
        "STREAMMETA_MODEL__CHUNK": "16",
        "STREAMMETA_DATA": "/not/a/setting",
    }
    effective = load_config(good, sets=["model.seed=6"], environment=environment)
    model = effective.config.model
    assert (model.seed, model.chunk, model.support) == (6, 16, 16)
    origins = {name: origin for name, _, origin in effective.rows()}
    assert origins["model.seed"] == "--set model.seed"
    assert origins["model.chunk"] == "environment STREAMMETA_MODEL__CHUNK"
    assert origins["pace"] == f"{good}:2"
    assert origins["model.support"] == "default"
    assert origins["sinks.1.kind"] == f"{good}:15"


def test_a_variable_is_put_in_but_never_shown(good: Path) -> None:
    effective = load_config(good, environment={"FOLDER": "/secret"})
    assert effective.config.sinks[0].path == "/secret/a.jsonl"
    shown = {name: value for name, value, _ in effective.rows()}
    assert shown["sinks.0.path"] == '"${FOLDER}/a.jsonl"'


def test_a_secret_may_come_by_set_and_is_never_taken_for_its_name(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[source]\nscenario = "sine_switch"\n\n[serve]\nport = 0\n')
    sets = ("serve.token=${TOKEN}",)
    found = load_config(path, sets=sets, environment={"TOKEN": "open sesame"})
    assert found.config.serve is not None
    assert found.config.serve.token == "open sesame"
    shown = {name: value for name, value, _ in found.rows()}
    assert shown["serve.token"] == '"${TOKEN}"'
    with pytest.raises(ConfigError, match=r"--set serve.token: .*variable TOKEN is not set"):
        load_config(path, sets=sets, environment={})


def test_a_secret_may_stand_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[source]\nscenario = "sea"\n[[sinks]]\nkind = "webhook"\nurl = "http://x"\n'
        'headers = ["X-Plant: 7", "X-Key: ${KEY}"]\n'
    )
    effective = load_config(path, environment={"KEY": "secret"})
    assert effective.config.sinks[0].model_extra["headers"] == ["X-Plant: 7", "X-Key: secret"]
    shown = {name: value for name, value, _ in effective.rows()}
    assert shown["sinks.0.headers"] == '["X-Plant: 7", "X-Key: ${KEY}"]'


def test_the_effective_values_of_a_source_by_kind_are_those_that_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[source]\nkind = "redis"\nurl = "redis://${HOST}/0"\nstream = "rows"\nkey = "shop"\n'
        '[[sinks]]\nkind = "sqlite"\npath = "a.db"\noutputs = ["scored"]\n'
    )
    rows = {name: told for name, *told in load_config(path, environment={"HOST": "h"}).rows()}
    source = {name for name in rows if name.startswith("source.")}
    assert not source & {f"source.{name}" for name in ("path", "follow", "scenario", "horizon")}
    assert rows["source.field"] == ['"data"', "default"]
    assert rows["source.on_gap"] == ['"fail"', "default"]
    assert rows["source.begin"] == ['"earliest"', "default"]
    assert rows["source.give_up_after"] == ["300.0", "default"]
    assert rows["source.key"] == ['"shop"', f"{path}:5"]
    assert rows["source.url"] == ['"redis://${HOST}/0"', f"{path}:3"]
    sink = {name: told for name, told in rows.items() if name.startswith("sinks.0.")}
    assert list(sink) == ["sinks.0.kind", "sinks.0.path", "sinks.0.outputs"]
    assert sink["sinks.0.outputs"] == ['["scored"]', f"{path}:9"]


def test_a_file_that_is_followed_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[source]\npath = "a.csv"\nfollow = true\ntarget = "y"\n')
    rows = {name: value for name, value, _ in load_config(path, environment={}).rows()}
    assert rows["source.follow"] == "true"
    assert "source.kind" not in rows
    assert "source.scenario" not in rows
    assert rows["source.target"] == '"y"'


def test_values_of_set_are_toml_or_else_text(good: Path) -> None:
    sets = ["model.rates=[0.1, 0.2]", "pace=max", "model.replay=false", "sinks.0.kind=jsonl"]
    config = load_config(good, sets=sets, environment={"FOLDER": "x"}).config
    assert config.model.rates == (0.1, 0.2)
    assert (config.pace, config.model.replay) == ("max", False)


def test_an_unknown_field_is_named_with_its_line_and_the_nearest_one(tmp_path: Path) -> None:
    text = '[source]\nscenario = "x"\n\n[model]\niner_lr = 0.1\n'
    assert fault(tmp_path / "c.toml", text) == (
        "c.toml:5: model.iner_lr: there is no such field; did you mean 'inner_lr'?"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[source]\nscenario = "x"\n[model]\nseed = -1\n', "c.toml:4: model.seed: "),
        ('[source]\nscenario = "x"\npath = "y"\n', "c.toml:1: source: expected one of"),
        ('[source]\npath = "y.csv"\n', "'path' needs 'target'"),
        ('[source]\npath = "y.csv"\ntarget = "y"\nseed = 1\n', "'seed' is for scenarios"),
        ("[model]\nseed = 1\n", "c.toml:1: source: is missing"),
        ("[source\n", "c.toml: not TOML: "),
        ('[source]\nscenario = "${NOWHERE}"\n', "variable NOWHERE is not set"),
        ('[source]\nscenario = "x"\n[metrics]\nport = 70000\n', "c.toml:4: metrics.port: "),
    ],
)
def test_what_is_wrong_is_said_where_it_is(tmp_path: Path, text: str, told: str) -> None:
    assert told in fault(tmp_path / "c.toml", text)


def test_a_fault_outside_the_file_names_where_it_came_from(good: Path) -> None:
    environment = {"FOLDER": "x", "STREAMMETA_MODEL__CHUNK": "none"}
    told = fault(good, GOOD, sets=["modl.seed=1"], environment=environment)
    assert "environment STREAMMETA_MODEL__CHUNK: model.chunk: " in told
    assert "--set modl.seed: modl: there is no such field; did you mean 'model'?" in told
    assert "expected section.field=value" in fault(good, GOOD, sets=["seed"], environment={
        "FOLDER": "x"
    })  # fmt: skip


def test_names_that_nothing_answers_to_are_faults_of_the_config(good: Path) -> None:
    sets = ["model.learner=mamml", "model.detectors=['adwn']", "pace=fast"]
    sets += ["sinks.0.kind=jsnl", "sinks.0.outputs=['predictd']"]
    told = fault(good, GOOD, sets=sets, environment={"FOLDER": "x"})
    assert "no learner is called 'mamml'; did you mean maml, fomaml?" in told
    assert "sinks.0.kind: no sink is called 'jsnl'; did you mean jsonl?" in told
    assert "sinks.0.outputs: no output is called 'predictd'; known: predicted, " in told
    assert "pace is 'fast', expected max, realtime, 10x or 500/s" in told


def test_a_kind_under_another_name_is_known_by_it(tmp_path: Path) -> None:
    text = '[source]\nkind = "csv"\npath = "a.csv"\ntarget = "y"\n[[sinks]]\nkind = "file"\n'
    told = fault(tmp_path / "c.toml", text)
    assert "source.kind: no source is called 'csv'; did you mean file?" in told
    assert "sinks.0.kind: no sink is called 'file'; did you mean jsonl?" in told


def test_json_is_read_like_toml_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"source": {"scenario": "x"}, "model": {"seed": 2}}, indent=1))
    assert load_config(path, environment={}).config.model.seed == 2
    assert "run.json:1: not JSON" in fault(path, "{")
    assert "expected .toml, .yaml or .json" in fault(tmp_path / "run.ini", "")
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml", environment={})


def test_yaml_is_read_like_toml(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="the extra yaml is not installed")
    path = tmp_path / "run.yaml"
    path.write_text("source:\n  scenario: x\nmodel:\n  seed: 2\n")
    assert load_config(path, environment={}).config.model.seed == 2
    assert "run.yaml:4: model.sed" in fault(path, "source:\n  scenario: x\nmodel:\n  sed: 2\n")


def test_the_second_of_two_tables_of_one_name_is_found() -> None:
    text = '[[sinks]]\nkind = "a"\n[[sinks]]\nkind = "b"\n'
    assert line_of(text, ("sinks", 0, "kind")) == 2
    assert line_of(text, ("sinks", 1, "kind")) == 4
    assert line_of('{"model": {\n "seed": 1}}', ("model", "seed")) == 2


@pytest.mark.parametrize("name", ["quickstart", "elec2"])
def test_the_examples_are_valid(name: str) -> None:
    path = Path(__file__).parent.parent / "examples" / f"{name}.toml"
    assert load_config(path, environment={}).config.source.scenario


def test_the_example_of_a_live_stream_is_valid() -> None:
    path = Path(__file__).parent.parent / "examples" / "redis.toml"
    config = load_config(path, environment={}).config
    component, options = options_of(config.source)
    assert component.name == "redis"
    assert options == {
        "url": "redis://127.0.0.1:6379/0",
        "stream": "orders",
        "on_gap": "fail",
    }
    names = [sink.name for sink in build_sinks(path, config.sinks)]
    assert names == ["orders:predicted", "outputs.db"]


def test_a_command_without_a_config_sets_fields_of_inner_sections_too() -> None:
    config = model_config(["model.outer.gated=true", "model.hidden=[8]"], {"learner": "maml"})
    assert config.outer.gated
    assert (config.hidden, config.learner) == ((8,), "maml")


def test_detectors_can_be_combined_in_a_config(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    text = "[source]\npath = 'a.csv'\ntarget = 'y'\n[model]\ndetectors = ['vote(cusum, {})']\n"
    path.write_text(text.format("adwin"))
    assert load_config(path).config.model.detectors == ("vote(cusum, adwin)",)
    path.write_text(text.format("adwn"))
    with pytest.raises(ConfigError, match=r"no detector is called 'adwn'; did you mean 'adwin'"):
        load_config(path)


def test_a_source_and_a_sink_of_ones_own_take_their_arguments_from_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = """
from streammeta.sinks import ListSink
from streammeta.sources import IterableSource

class Counting(IterableSource):
    def __init__(self, upto: int, *, step: float = 1.0, clock: object = None):
        super().__init__(lambda: (({"a": i * step}, i) for i in range(upto)), "counting")

class Keeping(ListSink):
    def __init__(self, kinds: tuple[str, ...] = (), colour: str = "red"):
        super().__init__(kinds, colour)
"""
    (tmp_path / "own_parts.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        '[source]\nkind = "own_parts:Counting"\nupto = 3\nstep = 0.5\n'
        '[model]\ntask = "regression"\n'
        '[[sinks]]\nkind = "own_parts:Keeping"\noutputs = ["scored"]\ncolour = "blue"\n'
    )
    path = tmp_path / "run.toml"
    path.write_text(text)
    parts = assemble(path, load_config(path, environment={}).config)
    events, position = parts.source.read(parts.source.start(), 9)
    assert [event.x for event in events] == [{"a": 0.0}, {"a": 0.5}, {"a": 1.0}]
    assert parts.source.finished(position)
    assert parts.sinks[0].name == "blue"
    for old, new, told in [
        ("upto = 3", "upto = 'many'", "run.toml:3: source.upto: input should be a valid integer"),
        ("upto = 3", "upto = 3\nclock = 1", "source.clock: there is no such field; known: upto"),
        ("upto = 3\n", "", "source.upto: is missing, source 'own_parts:Counting' needs it"),
        ("Counting", "Countless", "source.kind: module 'own_parts' has no attribute 'Countless'"),
        ("own_parts:Counting", "iterable", "can only be made in Python: its 'make' is nothing"),
        ("colour", "color", "sinks.0.color: there is no such field; did you mean 'colour'?"),
        ("step = 0.5", "path = 'x'", "source.path: source 'own_parts:Counting' takes no 'path'"),
    ]:
        assert told in fault(path, text.replace(old, new, 1))


def test_a_source_without_a_kind_knows_its_own_fields_only(tmp_path: Path) -> None:
    told = fault(tmp_path / "c.toml", '[source]\nscenario = "x"\nsede = 1\n')
    assert told == "c.toml:3: source.sede: there is no such field; did you mean 'seed'?"
    told = fault(tmp_path / "c.toml", '[source]\nscenario = "x"\nkind = "redis"\n')
    assert "source: expected one of 'scenario', 'path' and 'kind'" in told
