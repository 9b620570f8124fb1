"""Bodies of requests and answers: JSON that is what it claims to be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.responses import Response

JSON = "application/json"
LINES = "application/x-ndjson"


class BadRequest(Exception):  # noqa: N818 - the status's own name
    """The body cannot be read: 400; or it is not what is expected: 422."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


def parsed(text: str, place: str = "the body") -> Any:
    """JSON as its standard has it: without NaN and Infinity.

    Raises:
        BadRequest: 400.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        told = f"{place} is not JSON: {error.msg} (character {error.pos + 1})"
        raise BadRequest(400, told) from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, f"{place} is not JSON: {error}") from None


def text_of(body: bytes) -> str:
    """UTF-8.

    Raises:
        BadRequest: 400.
    """
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(400, f"the body is not UTF-8: {error}") from None


def object_of(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BadRequest: 400 for what is no JSON, 422 for JSON of another kind.
    """
    found = parsed(text_of(body))
    if not isinstance(found, dict):
        raise BadRequest(422, f"the body is a {_kind(found)}, expected an object")
    return found


def lines_of(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Each line that is not blank, and the JSON object in it.

    Raises:
        BadRequest: 400 for a line that is no JSON, 422 for one that is no object.
    """
    found = []
    for number, line in enumerate(text_of(body).split("\n"), 1):
        if not line.strip():
            continue
        row = parsed(line, f"line {number}")
        if not isinstance(row, dict):
            raise BadRequest(422, f"line {number} is a {_kind(row)}, expected an object")
        found.append((line.strip(), row))
    return found


def only(found: Mapping[str, Any], known: frozenset[str], place: str = "the body") -> None:
    """Refuse fields that nobody knows.

    Raises:
        BadRequest: 422.
    """
    for name in found:
        if name not in known:
            told = f"{place}: there is no field {name[:40]!r}; known: {', '.join(sorted(known))}"
            raise BadRequest(422, told)


def text(found: Mapping[str, Any], name: str, place: str = "the body") -> str | None:
    """A field that is a text, or a whole number as a text; ``None`` where it is not there.

    Raises:
        BadRequest: 422.
    """
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRequest(422, f"{place}: {name!r} is a {_kind(value)}, expected a text")
    return str(value)


def dumped(value: Any) -> str:
    """JSON of any output: what is not finite becomes null, numpy's numbers plain ones."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"), default=_plain)


def answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(dumped(body), status, headers, media_type=JSON)


def refusal(status: int, told: str, *, again: int | None = None) -> Response:
    """``{"error": ...}``; ``again``: seconds after which it may be tried again."""
    return answer(
        status, {"error": told}, {"Retry-After": str(again)} if again is not None else None
    )


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "object", list: "list", str: "text", bool: "boolean"}
    return names.get(type(value), "number")


def _plain(value: Any) -> Any:
    return value.item()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
