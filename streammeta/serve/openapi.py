"""The OpenAPI description of the HTTP API (OpenAPI 3.1, with JSON Schema 2020-12)."""

from __future__ import annotations

from typing import Any

from streammeta.events import KINDS

Schema = dict[str, Any]

LABEL: Schema = {"type": ["number", "string", "boolean"]}
VALUE: Schema = {"type": ["number", "string", "boolean", "null"]}
ID: Schema = {"type": ["string", "integer"]}
TIME: Schema = {
    "type": ["number", "string", "null"],
    "description": "event time: seconds since 1970, or ISO 8601",
}
FEATURES: Schema = {"type": "object", "additionalProperties": VALUE}

QUESTION: Schema = {
    "type": "object",
    "properties": {
        "x": FEATURES,
        "key": {**ID, "description": "the stream it belongs to, where there are many"},
        "id": {**ID, "description": "makes it a question of the stream, to which a label can come"},
        "ts": TIME,
    },
    "required": ["x"],
    "additionalProperties": False,
    "example": {"x": {"temp": 21.5, "day": "mon"}},
}
ANSWER: Schema = {
    "type": "object",
    "properties": {
        "prediction": {
            "type": ["number", "string", "boolean", "null"],
            "description": "null before the first label of its key",
        },
        "probabilities": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "of every class seen so far",
        },
        "rows": {"type": "integer", "description": "questions that the copy had seen"},
        "id": {"type": "string"},
        "record": {"type": "integer", "description": "where the question stands in the journal"},
    },
    "required": ["prediction", "rows"],
}
ONE_LABEL: Schema = {
    "type": "object",
    "properties": {"id": {**ID, "minLength": 1}, "y": LABEL, "ts": TIME},
    "required": ["id", "y"],
    "additionalProperties": False,
}
LABELS: Schema = {
    "anyOf": [ONE_LABEL, {"type": "array", "items": ONE_LABEL, "minItems": 1}],
    "example": {"id": "q-17", "y": 3.2},
}
ACCEPTED: Schema = {
    "type": "object",
    "properties": {
        "accepted": {"type": "integer"},
        "first": {"type": "integer", "description": "where the first stands in the journal"},
    },
    "required": ["accepted", "first"],
}
KEY: Schema = {
    "type": "object",
    "properties": {"key": ID},
    "additionalProperties": False,
}
EMPTY: Schema = {"type": "object", "additionalProperties": False}
ADAPTED: Schema = {
    "type": "object",
    "properties": {
        "adapted": {"type": "array", "items": {"type": "object"}},
        "epoch": {"type": "integer"},
    },
    "required": ["adapted", "epoch"],
}
COMMITTED: Schema = {
    "type": "object",
    "properties": {"epoch": {"type": "integer"}, "events": {"type": "integer"}},
    "required": ["epoch", "events"],
}
DRIFTS: Schema = {
    "type": "object",
    "properties": {
        "since": {"type": "number", "description": "when this process started to count"},
        "drifts": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["since", "drifts"],
}
ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
EVENT: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": ["string", "integer", "null"]},
        "key": {"type": ["string", "integer", "null"]},
        "ts": TIME,
        "x": FEATURES,
        "y": VALUE,
    },
}
EVENTS: Schema = {
    "type": "array",
    "items": EVENT,
    "minItems": 1,
    "description": "each on a line of its own: NDJSON, no JSON array",
    "example": [{"id": "q-17", "x": {"temp": 21.5}}, {"x": {"temp": 19.0}, "y": 2.9}],
}

#: What any request may get.
GUARDED = {
    401: "the token is missing, or another one",
    413: "the body is too long",
    421: "asked for by a name that is not this machine's",
    429: "too often, or too much waits: see Retry-After",
}
POSTED = {
    400: "not JSON",
    409: "not possible as things are",
    415: "the body does not say that it is JSON",
    422: "JSON, but not what is expected",
    503: "what came cannot be kept: nothing was taken",
}


def description(version: str) -> dict[str, Any]:
    """All routes, for clients and for tests that are made of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streammeta",
            "version": version,
            "description": "Predict, tell labels, and see how a model follows a stream.",
        },
        "paths": _model_paths() | _shown_paths(),
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{}, {"token": []}, {"password": []}],
    }


def _model_paths() -> dict[str, Any]:
    return {
        "/v1/predict": {
            "post": _post(
                "predict",
                "Predict; answered from a copy of the model, at once. With an id it is journaled, "
                "and the stream answers it as well, in its turn: a label with this id is learned.",
                QUESTION,
                ANSWER,
            )
        },
        "/v1/labels": {
            "post": _post(
                "labels",
                "Answers to questions, by id. All of them are safe once this is answered.",
                LABELS,
                ACCEPTED,
            )
        },
        "/v1/events": {
            "post": _post(
                "events",
                "Events, rows or labels, one per line, all of them or none. They are safe once "
                "this is answered; one that the model cannot use becomes a rejected output.",
                EVENTS,
                ACCEPTED,
                "application/x-ndjson",
            )
        },
        "/v1/adapt": {
            "post": _post(
                "adapt",
                "Adapt challengers from the meta-parameters now, on the newest rows of the "
                "segment, as at a drift; committed before it is answered.",
                KEY,
                ADAPTED,
                required=False,
            )
        },
        "/v1/snapshot": {
            "post": _post("snapshot", "Commit now.", EMPTY, COMMITTED, required=False)
        },
    }


def _shown_paths() -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 0, "maximum": 999_999_999, "default": 50}
    kinds = {"type": "string", "example": "drift_detected,adapted"}
    seconds = {"type": "number", "minimum": 0, "maximum": 86400}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/v1/status": {"get": _get("status", "How it goes.", {"type": "object"}, {})},
        "/v1/drifts": {
            "get": _get(
                "drifts",
                "The newest alarms with their explanations, the last one first.",
                DRIFTS,
                {"limit": (limit, "at most so many")},
            )
        },
        "/v1/stream": {
            "get": _get(
                "stream",
                "Outputs as server-sent events; a reader that is too slow is told how many it "
                "has lost.",
                {"text/event-stream": {"schema": {"type": "string"}}},
                {
                    "kinds": (kinds, f"only these, by commas: {', '.join(KINDS)}"),
                    "seconds": (seconds, "end after so many"),
                },
            )
        },
        "/metrics": {"get": _get("metrics", "For Prometheus.", text, missing=True)},
        "/livez": {"get": _get("live", "The process answers; needs no token.", text)},
        "/readyz": {
            "get": _get(
                "ready",
                "A model is open, and the run has not been told to end; needs no token.",
                text,
                draining=True,
            )
        },
    }


def _post(
    name: str,
    told: str,
    body: Schema,
    found: Schema,
    kind: str = "application/json",
    *,
    required: bool = True,
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": told,
        "requestBody": {"required": required, "content": {kind: {"schema": body}}},
        "responses": {"200": _json("done", found), **_faults(GUARDED | POSTED)},
    }


def _get(
    name: str,
    told: str,
    found: Schema,
    asked: dict[str, tuple[Schema, str]] | None = None,
    *,
    missing: bool = False,
    draining: bool = False,
) -> dict[str, Any]:
    parameters = [
        {"name": n, "in": "query", "required": False, "schema": schema, "description": what}
        for n, (schema, what) in (asked or {}).items()
    ]
    plain = any("/" in kind for kind in found)  # a table of media types, no schema
    done = {"description": "here it is", "content": found} if plain else _json("here it is", found)
    unknown = "a parameter is unknown or cannot be used"
    faults = GUARDED | ({} if asked is None else {422: unknown})
    faults |= {404: "metrics are switched off"} if missing else {}
    faults |= {503: "the run has been told to end"} if draining else {}
    return {
        "operationId": name,
        "summary": told,
        "parameters": parameters,
        "responses": {"200": done, **_faults(faults)},
    }


def _json(told: str, schema: Schema) -> dict[str, Any]:
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _faults(known: dict[int, str]) -> dict[str, Any]:
    error = {"$ref": "#/components/schemas/Error"}
    return {str(status): _json(told, error) for status, told in sorted(known.items())}
