"""``streammeta init``: a commented config to begin with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import typer

from streammeta.cli.console import err
from streammeta.errors import ConfigError, SinkError, UsageError

EPILOG = """[bold]Examples[/]

streammeta init --template csv --set source.path=sales.csv --set source.target=sold

streammeta init redis.toml --template redis --set source.stream=orders
"""

FOLDER = Path(__file__).parent / "templates"
FIRST_PATH = Path("streammeta.toml")
TEMPLATES = tuple(sorted(p.stem for p in FOLDER.glob("[a-z]*.toml")))


def init(
    path: Path = typer.Argument(
        FIRST_PATH,
        metavar="PATH",
        help="The file to write; - for stdout. A run writes into runs/ and its name, for - and the "
        "default into runs/ and the template's.",
    ),
    template: str = typer.Option(
        "scenario", help=f"Where events come from: {', '.join(TEMPLATES)}."
    ),
    sets: list[str] = typer.Option(
        [], "--set", help="section.field=value, written into the file.", show_default=False
    ),
    force: bool = typer.Option(False, "--force", help="Replace a file that is there."),
) -> None:
    """Write a commented config for a kind of stream; it validates, and says what else there is."""
    text = template_text(template)
    if path != FIRST_PATH and re.fullmatch(r"\w[\w.-]*", path.stem):
        # a second config of the kind must not go on where the first one stopped
        text = text.replace(f'"runs/{template}/', f'"runs/{path.stem}/')
    for setting in sets:
        text = with_setting(text, setting)
    _check(text, path)
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    if path.suffix != ".toml":
        raise UsageError(f"{path}: suffix {path.suffix!r}, expected .toml")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as fault:
        raise UsageError(f"{path} is there already: --force replaces it") from fault
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror}") from fault
    console = err()
    console.print(f"{path}: written; next:", markup=False)
    for command in ("validate", "doctor", "run"):
        console.print(f"  streammeta {command} {path}", markup=False)


def template_text(name: str) -> str:
    """A template as it stands in the file that ``init`` writes.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in TEMPLATES:
        raise UsageError(f"no template is called {name!r}; templates: {', '.join(TEMPLATES)}")
    own, model, rest = (
        (FOLDER / f"{part}.toml").read_text(encoding="utf-8") for part in (name, "_model", "_rest")
    )
    head, task, tail = re.split(r"^(task = .*\n)", own, maxsplit=1, flags=re.MULTILINE)
    return f"{head}{task}{model}{tail}\n{rest}".replace("NAME", name)


def with_setting(text: str, setting: str) -> str:
    """The text of a config with ``section.field=value`` on the line where it belongs.

    Takes the place of what is set there, of a comment that shows the field, or else of nothing,
    right below the section's header.

    Raises:
        ConfigError: it is no setting, or there is no such section.

    >>> with_setting('[source]\\npath = "a"   # a file\\n# key = "store"\\n', "source.key=shop")
    '[source]\\npath = "a"   # a file\\nkey = "shop"\\n'
    """
    name, equals, value = setting.partition("=")
    *section, field = name.strip().split(".")
    if not equals or not field:
        raise ConfigError(f"--set {setting}: expected section.field=value")
    lines = text.splitlines(keepends=True)
    begin, end = _section(lines, section, setting)
    pattern = re.compile(rf"(# )?{re.escape(field)} = .*?(  +#.*)?\n")
    new = f"{field} = {_toml(value)}"
    for at in range(begin, end):
        found = pattern.fullmatch(lines[at])
        if found:
            comment = (found[2] or "").strip()
            column = max(len(new) + 1, lines[at].find(comment)) if comment else 0
            lines[at] = f"{new.ljust(column)}{comment}\n"
            return "".join(lines)
    lines.insert(begin, f"{new}\n")
    return "".join(lines)


def _section(lines: Sequence[str], section: Sequence[str], setting: str) -> tuple[int, int]:
    """The first line of a section, and the line after its last; ``sinks.0`` is the first sink."""
    headers = [i for i, line in enumerate(lines) if line.startswith("[")]
    if not section:
        return 0, headers[0]
    name, index = section[0], int(section[1]) if section[1:] and section[1].isdecimal() else 0
    found = [i for i in headers if re.match(rf"\[+{re.escape(name)}\]", lines[i])]
    if index >= len(found) or len(section) > 2 or (section[1:] and not section[1].isdecimal()):
        raise ConfigError(f"--set {setting}: the template has no section {'.'.join(section)!r}")
    begin = found[index] + 1
    return begin, next((i for i in headers if i >= begin), len(lines))


def _toml(value: str) -> str:
    import json
    import tomllib

    try:
        tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return json.dumps(value, ensure_ascii=False)
    return value


def _check(text: str, path: Path) -> None:
    """What is written has to be right; a variable that a secret is in need not be set yet."""
    import tempfile

    from streammeta.config_file import load_config

    class Anything(dict[str, str]):
        def __contains__(self, name: object) -> bool:
            return True

        def __missing__(self, name: str) -> str:
            return "-"

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "config.toml"
        draft.write_text(text, encoding="utf-8")
        try:
            load_config(draft, environment=Anything())
        except ConfigError as fault:
            told = str(fault).replace(str(draft), str(path))
            raise ConfigError(told) from None
