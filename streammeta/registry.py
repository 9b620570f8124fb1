"""One registry by name for everything that plugs in.

A row is ``name -> "module:attribute"``; nothing is imported until it is asked for. Other
distributions add rows through entry points in the group ``streammeta.<kind>``, for example

    [project.entry-points."streammeta.learners"]
    my_learner = "my_package.learner:make"

A user's own object can also be named in full as ``module:attribute``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from streammeta.errors import UsageError


@dataclass(frozen=True, slots=True)
class Component:
    """One row of the registry: ``target`` is ``module:attribute``, ``summary`` one line."""

    kind: str
    name: str
    target: str
    summary: str

    def load(self) -> Any:
        """Import the module and return the attribute."""
        module, _, attribute = self.target.partition(":")
        if ":" in self.name:
            look_here()
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found

    def settings(self) -> dict[str, tuple[Any, Any]]:
        """The parameters that a config can give: name -> (type, default or ``...`` for none).

        These are the ones annotated as plain values; clocks, streams and the like are left to
        Python.

        Raises:
            UsageError: it has a parameter that no config can give.
        """
        made = self.load()
        call = getattr(made, "__init__") if isinstance(made, type) else made  # noqa: B009
        hints = get_type_hints(call, include_extras=True)
        found: dict[str, tuple[Any, Any]] = {}
        for name, parameter in signature(made).parameters.items():
            if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
                continue
            needed = parameter.default is Parameter.empty
            if _is_plain(hints.get(name, str)):
                found[name] = (hints.get(name, Any), ... if needed else parameter.default)
            elif needed:
                raise UsageError(
                    f"{self.kind[:-1]} {self.name!r} can only be made in Python: its {name!r} is "
                    f"nothing that a config can say"
                )
        return found


def _is_plain(hint: Any) -> bool:
    """Whether a type is one of texts, numbers, booleans, paths, and sequences of them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return True
    if origin is Annotated:
        return _is_plain(inner[0])
    if origin in (Union, UnionType, tuple, list, Sequence):
        return all(_is_plain(part) for part in inner if part is not Ellipsis)
    return hint in (str, int, float, bool, Path, NoneType)


#: What people look for under another name.
_OTHER_NAMES: dict[str, dict[str, str]] = {
    "sources": {
        "csv": "file", "json": "file", "jsonl": "file", "parquet": "file", "tail": "follow",
        "jetstream": "nats", "ws": "websocket",
    },
    "sinks": {"file": "jsonl", "json": "jsonl", "jetstream": "nats", "http": "webhook"},
}  # fmt: skip

_TABLE: dict[str, dict[str, tuple[str, str]]] = {
    "learners": {
        "maml": ("streammeta.meta.gradient_based:maml", "second order, one fixed inner rate"),
        "fomaml": ("streammeta.meta.gradient_based:fomaml", "MAML without second derivatives"),
        "anil": ("streammeta.meta.gradient_based:anil", "only the last layer adapts"),
        "meta_sgd": ("streammeta.meta.gradient_based:meta_sgd", "a learned rate per parameter"),
        "reptile": ("streammeta.meta.reptile:Reptile", "towards where training on a task leads"),
        "fine_tuning": (
            "streammeta.meta.fine_tuning:FineTuning",
            "trained on all tasks alike, no meta-learning: to compare with",
        ),
        "cavia": ("streammeta.meta.cavia:Cavia", "only a few context inputs adapt"),
        "cavia_film": ("streammeta.meta.film:Film", "only scales of the first layer's units adapt"),
        "r2d2": ("streammeta.meta.r2d2:R2D2", "the last layer is solved for in closed form"),
        "alpaca": (
            "streammeta.meta.alpaca:Alpaca",
            "values: Bayesian linear regression on learned features, with variances",
        ),
        "pcoc": (
            "streammeta.meta.pcoc:Pcoc",
            "classes: Gaussian clouds in a learned space of features",
        ),
        "prototypical": (
            "streammeta.meta.prototypical:Prototypical",
            "the nearest mean of a class; classes",
        ),
        "matching": ("streammeta.meta.matching:Matching", "attention over the rows of the support"),
        "matching_context": (
            "streammeta.meta.matching:matching_context",
            "the same with full context embeddings",
        ),
        "in_context": (
            "streammeta.meta.in_context:InContext",
            "a recurrent net reads rows and labels; no step is taken",
        ),
        "meta_lstm": (
            "streammeta.meta.meta_lstm:MetaLstm",
            "weights are the cells of an LSTM that reads gradients",
        ),
        "learned_optimiser": (
            "streammeta.meta.learned_optimiser:LearnedOptimiser",
            "each weight's step comes from an LSTM, the same for all",
        ),
    },
    "experts": {
        "bank": ("streammeta.experts.bank:Bank", "online networks, replay, challengers"),
        "no_change": ("streammeta.experts.baselines:NoChange", "repeats the last label"),
        "last_value": ("streammeta.experts.baselines:LastValue", "repeats the last value"),
        "majority": ("streammeta.experts.baselines:Majority", "most frequent label, or mean"),
        "online_sgd": ("streammeta.experts.online_sgd:OnlineSGD", "one network, one fixed rate"),
    },
    "families": {
        "hats": ("streammeta.experts.hats:Hats", "networks on piecewise-linear inputs"),
        "heads": (
            "streammeta.experts.heads:Heads",
            "Bayesian linear heads, two that forget and two of each segment",
        ),
        "memory": ("streammeta.experts.memory:Memory", "the nearest of past rows"),
        "trees": ("streammeta.experts.trees:Trees", "a bag of trees that grow and fold up"),
        "archive": ("streammeta.experts.archive:Archive", "networks of past segments, frozen"),
        "moca": (
            "streammeta.experts.moca_expert:MocaExpert",
            "Bayesian last layers and a belief over when the stream changed; not in the default",
        ),
    },
    "detectors": {
        "bank": ("drift.watch:Watch", "signals that vote with evidence; the default"),
        "adwin": ("drift.river_detectors:Adwin", "adaptive window, mean of errors or losses"),
        "page_hinkley": ("drift.river_detectors:PageHinkley", "cumulated excess over the mean"),
        "kswin": ("drift.river_detectors:Kswin", "Kolmogorov-Smirnov on a window (slow)"),
        "ddm": ("drift.river_detectors:Ddm", "error rate against its lowest"),
        "eddm": ("drift.river_detectors:Eddm", "distance between errors against its largest"),
        "fhddm": ("drift.river_detectors:Fhddm", "accuracy of a window against its best"),
        "hddm_a": ("drift.river_detectors:HddmA", "Hoeffding's bound on means"),
        "hddm_w": ("drift.river_detectors:HddmW", "McDiarmid's bound on weighted means"),
        "cusum": ("drift.charts:Cusum", "sum of what exceeds the mean by half a deviation"),
        "ewma": ("drift.charts:Ewma", "weighted mean in its deviations above the mean"),
        "shewhart": ("drift.charts:Shewhart", "means of groups of rows"),
        "sprt": ("drift.charts:Sprt", "likelihood ratio of a higher mean, over and over"),
        "evidence": ("drift.bank:Evidence", "what betting on a higher mean would have won"),
        "bocpd": ("drift.run_lengths:Bocpd", "posterior of the run length (slow)"),
    },
    "sources": {
        "file": ("streammeta.sources.files:FileSource", "CSV, JSONL (also .gz) or Parquet"),
        "iterable": ("streammeta.sources.iterable:IterableSource", "any Python iterable of rows"),
        "frame": ("streammeta.sources.frame:FrameSource", "a pandas or Arrow table in memory"),
        "follow": (
            "streammeta.sources.follow:FollowedFile",
            "CSV or JSONL that grows, through rotation and truncation",
        ),
        "mqtt": ("streammeta.sources.mqtt:MqttSource", "messages of an MQTT broker, journaled"),
        "http": ("streammeta.sources.http_push:HttpSource", "events posted to us, journaled"),
        "sse": (
            "streammeta.sources.sse:SseSource",
            "server-sent events of an HTTP server, resumed by id, journaled",
        ),
        "websocket": (
            "streammeta.sources.websocket:WebSocketSource",
            "messages of a WebSocket server, journaled",
        ),
        "stdin": ("streammeta.sources.stdin:StdinSource", "JSON lines from a pipe, journaled"),
        "redis": (
            "streammeta.sources.redis_stream:RedisStreamSource",
            "entries of a Redis stream, by id",
        ),
        "nats": (
            "streammeta.sources.jetstream:JetStreamSource",
            "messages of a NATS JetStream stream, by sequence",
        ),
        "kafka": ("streammeta.sources.kafka:KafkaSource", "messages of a Kafka topic, by offset"),
    },
    "sinks": {
        "jsonl": ("streammeta.sinks.jsonl:JsonlSink", "JSON lines in a file, each exactly once"),
        "dead_letter": ("streammeta.sinks.jsonl:DeadLetterSink", "rejected events, with reasons"),
        "stdout": ("streammeta.sinks.jsonl:StdoutSink", "JSON lines on stdout, at once"),
        "list": ("streammeta.sinks.memory:ListSink", "outputs in memory"),
        "sqlite": ("streammeta.sinks.sqlite:SqliteSink", "tables of an SQLite file, by id"),
        "parquet": ("streammeta.sinks.parquet:ParquetSink", "a folder of Parquet files"),
        "redis": (
            "streammeta.sinks.redis_stream:RedisStreamSink",
            "entries of a Redis stream, each exactly once",
        ),
        "nats": (
            "streammeta.sinks.jetstream:JetStreamSink",
            "messages on a NATS JetStream subject, each exactly once",
        ),
        "kafka": (
            "streammeta.sinks.kafka:KafkaSink",
            "messages of a Kafka topic, at once; after a crash some again",
        ),
        "webhook": (
            "streammeta.sinks.webhook:WebhookSink",
            "batches posted over HTTP, numbered, with keys to know them again by",
        ),
    },
    "scenarios": {
        "sine_switch": (
            "scenarios.sine_switch:SineSwitch",
            "regression: a sine of new amplitude and phase every 200 rows",
        ),
        "concept_mix": (
            "scenarios.concept_mix:ConceptMix",
            "classification: two abrupt and two gradual drifts, 10 % label noise",
        ),
        "sensor_fault": (
            "scenarios.sensor_fault:SensorFault",
            "classification: real camera data, two mis-wirings induced",
        ),
        "elec2": (
            "scenarios.open_stream:elec2",
            "classification: electricity prices, from STREAMMETA_DATA or River's data folder",
        ),
        "open": (
            "scenarios.open_stream:open_stream",
            "open:NAME, a file NAME.csv.gz in STREAMMETA_DATA, such as open:elec2",
        ),
        "river": (
            "scenarios.river_stream:river_stream",
            "river:NAME, a data set of River, such as river:Phishing or river:Insects@VARIANT",
        ),
        "file": (
            "scenarios.file_stream:file_stream",
            "file:PATH@TARGET, any CSV, JSON lines or Parquet; ?time=COL&key=COL&horizon=H",
        ),
        "sensors": (
            "scenarios.keyed.sensors:sensors",
            "regression: a keyed fleet of sensors, sensors:200 for 200; each drifts on its own",
        ),
        "shops": (
            "scenarios.keyed.shops:shops",
            "regression: daily demand per shop, shops:200; competitors and promotion policies",
        ),
        "users": (
            "scenarios.keyed.users:users",
            "classification: users who like or pass items, users:200; tastes change one by one",
        ),
        "forecast": (
            "scenarios.forecast:forecast_stream",
            "forecast:NAME@H, H rows ahead without a leak: etth1, WaterFlow or regimes",
        ),
        "sea": (
            "scenarios.families.classic:sea",
            "classification: is a sum above 8, 9, 7 or 9.5 (Street & Kim 2001)",
        ),
        "stagger": (
            "scenarios.families.classic:stagger",
            "classification: size, colour and shape by three rules",
        ),
        "sine": (
            "scenarios.families.classic:sine",
            "classification: below or above one of two sines",
        ),
        "mixed": (
            "scenarios.families.classic:mixed",
            "classification: booleans and numbers, the rule and its reverse",
        ),
        "agrawal": (
            "scenarios.families.classic:agrawal",
            "classification: is a loan granted, by one of ten rules",
        ),
        "led": (
            "scenarios.families.endless:led",
            "classification: a digit on seven unreliable segments, columns permuted",
        ),
        "hyperplane": (
            "scenarios.families.endless:hyperplane",
            "classification: on which side of a random plane, ten features",
        ),
        "random_rbf": (
            "scenarios.families.endless:random_rbf",
            "classification: fifty clouds of four classes",
        ),
        "random_tree": (
            "scenarios.families.endless:random_tree",
            "classification: a random tree on numbers and categories",
        ),
        "friedman": (
            "scenarios.families.endless:friedman",
            "regression: Friedman's function, columns permuted",
        ),
        "linear_switch": (
            "scenarios.families.parametric:linear_switch",
            "regression: a new linear function every 200 rows",
        ),
        "polynomial_switch": (
            "scenarios.families.parametric:polynomial_switch",
            "regression: a new cubic every 200 rows",
        ),
        "rotating_plane": (
            "scenarios.families.parametric:rotating_plane",
            "classification: a line that turns by 60 degrees; may drift incrementally",
        ),
    },
    "transforms": {
        "drift": (
            "scenarios.transforms.concepts:with_drift",
            "when and how a generated stream changes: drift('gradual', width=500)",
        ),
        "prior_drift": (
            "scenarios.transforms.concepts:with_prior_drift",
            "from a row on one class gets most of the true labels of a generated stream",
        ),
        "new_classes": (
            "scenarios.transforms.concepts:with_new_classes",
            "a class of a generated stream is held back until a row",
        ),
        "feature_drift": (
            "scenarios.transforms.features:with_feature_drift",
            "numeric features move, labels do not",
        ),
        "permutation": (
            "scenarios.transforms.features:with_permutation",
            "numeric features change places",
        ),
        "missing": (
            "scenarios.transforms.features:with_missing",
            "cells become empty, missing(0.1, burst=20) in outages",
        ),
        "new_features": (
            "scenarios.transforms.features:with_new_features",
            "features that tell nothing come in",
        ),
        "vanishing_features": (
            "scenarios.transforms.features:with_vanishing_features",
            "features are gone from a row on",
        ),
        "label_swap": (
            "scenarios.transforms.labels:with_label_swap",
            "classes swap their names; in regression the sign",
        ),
        "label_noise": (
            "scenarios.transforms.labels:with_label_noise",
            "a share of labels is wrong; in regression Gaussian noise",
        ),
        "delay": (
            "scenarios.transforms.labels:with_delay",
            "labels come n questions later, with jitter out of order",
        ),
        "bursts": (
            "scenarios.transforms.time:with_bursts",
            "event time: questions in bursts, then a gap",
        ),
        "seasonality": (
            "scenarios.transforms.time:with_seasonality",
            "a sine on the label, or on numeric features",
        ),
    },
    "protocols": {
        "sine": ("scenarios.fewshot.sine:SINE", "few-shot sine regression: meta-train, then test"),
        "switching": (
            "scenarios.fewshot.switching:SWITCHING",
            "sines that switch without a sign: meta-train on unsegmented series, then test",
        ),
        "known_switches": (
            "scenarios.fewshot.known_switches:KNOWN_SWITCHES",
            "sine_switch for learners that are told the switches: meta-train on others, then test",
        ),
        "few_shot": (
            "scenarios.fewshot.few_shot:FEW_SHOT",
            "few-shot classification: meta-train on some classes, then test on others",
        ),
        "choosing": (
            "scenarios.choosing.trial:CHOOSING_TRIAL",
            "a policy that chooses learners, trained on some generators, tested on others",
        ),
        "optimising": (
            "scenarios.fewshot.optimising:OPTIMISING",
            "an optimiser learned or tuned on tasks, then tested on others",
        ),
        "pretrained": (
            "scenarios.pretrained:PRETRAINED",
            "a stream, for models that were meta-trained before it too",
        ),
        "detecting": (
            "scenarios.detecting:DETECTING",
            "losses shown to a drift detector, or a stream to a model",
        ),
    },
    "suites": {
        "quickstart": (
            "scenarios.suites.quickstart:SUITE",
            "a camera gets mis-wired twice: the default model against simpler ones",
        ),
        "ablation": (
            "scenarios.suites.ablation:SUITE",
            "the default minus itself with one part taken away, exchanged or added",
        ),
        "sine-switch": (
            "scenarios.suites.sine_switch:SUITE",
            "what online meta-learned parameters are worth after a switch",
        ),
        "sine": (
            "scenarios.suites.sine:SUITE",
            "few-shot sine regression: every meta-learner beside the papers' figures",
        ),
        "in-context": (
            "scenarios.suites.in_context:SUITE",
            "reading in place of descending: the in-context learner beside MAML after a switch",
        ),
        "moca-sine": (
            "scenarios.suites.moca_sine:SUITE",
            "a belief over when a sine switched: MOCA beside an oracle, windows and MAML",
        ),
        "few-shot": (
            "scenarios.suites.few_shot:SUITE",
            "N-way K-shot classification of held-out classes: every learner and five baselines",
        ),
        "learned-optimisers": (
            "scenarios.suites.learned_optimisers:SUITE",
            "learned update rules beside tuned SGD and Adam: the loss after 20 steps",
        ),
        "choosing": (
            "scenarios.suites.choosing:SUITE",
            "who chooses learners best on generators that nobody was trained on: regret",
        ),
        "forecast": (
            "scenarios.suites.forecast:SUITE",
            "forecasts 1, 24 and 48 rows ahead without a leak, split 20:5:75",
        ),
        "classification": (
            "scenarios.suites.classification:SUITE",
            "abrupt and gradual drifts: accuracy, drifts found and missed",
        ),
        "open-streams": (
            "scenarios.suites.open_streams:SUITE",
            "open streams of the field: accuracy of every model, ranks, wins",
        ),
        "synthetic": (
            "scenarios.suites.synthetic:SUITE",
            "every kind of drift on generated streams with known drift points",
        ),
        "recovery": (
            "scenarios.suites.recovery:SUITE",
            "what meta-learning buys after a drift, online and offline",
        ),
        "detectors": (
            "scenarios.suites.detectors:SUITE",
            "drift detectors: found, false, delays, cost, and what the reaction is worth",
        ),
        "river": (
            "scenarios.suites.river:SUITE",
            "River's own classification data sets",
        ),
        "regression": (
            "scenarios.suites.regression:SUITE",
            "regression: task switches, fleets of keys, recorded series",
        ),
        "speed": (
            "scenarios.suites.speed:SUITE",
            "events per second, latency and peak memory at several chunks",
        ),
    },
    "models": {
        "streammeta": (
            "scenarios.models:streammeta",
            "the default model",
        ),
        "no_drift": (
            "scenarios.models:no_drift",
            "the default that ignores drift alarms",
        ),
        "no_challengers": (
            "scenarios.models:no_challengers",
            "the default without challengers",
        ),
        "random_challengers": (
            "scenarios.models:random_challengers",
            "challengers start from random, not from meta-parameters",
        ),
        "learner": (
            "scenarios.models:learner",
            "learner@maml: the default with this meta-learner alone, no partner",
        ),
        "no_replay": (
            "scenarios.models:no_replay",
            "the default without replay: no outer steps, no rehearsal",
        ),
        "lags_always": (
            "scenarios.models:lags_always",
            "the default that reads labels before whether they tell anything or not",
        ),
        "no_doubt": (
            "scenarios.models:no_doubt",
            "the default without allowance for classes that were given wrongly",
        ),
        "reset": (
            "scenarios.models:reset",
            "no_challengers, restarted at each alarm; reset@drift at the true drifts instead",
        ),
        "expert": (
            "scenarios.models:expert",
            "expert.NAME: one kind of the default model's experts alone, such as expert.memory",
        ),
        "without": (
            "scenarios.models:without",
            "without@NAME: the default without one kind of experts, or without a correction",
        ),
        "with": (
            "scenarios.models:with_one",
            "with@NAME: the default with one more family of experts, such as with@moca",
        ),
        "oracle": (
            "scenarios.models:oracle",
            "oracle@drift, or @ROW+ROW: the default told when the stream changes, no detectors",
        ),
        "frozen": (
            "scenarios.models:frozen",
            "frozen@ROW stops learning at that row; frozen@drift at a scenario's first drift",
        ),
        "no_change": (
            "scenarios.models:no_change",
            "repeats the last label or value that has arrived",
        ),
        "last_value": (
            "scenarios.models:no_change",
            "another name of no_change",
        ),
        "seasonal": (
            "scenarios.models:seasonal",
            "seasonal@PERIOD: repeats the label of PERIOD rows before, within the key",
        ),
        "majority": (
            "scenarios.models:majority",
            "the most frequent label so far, or the mean",
        ),
        "sgd": (
            "scenarios.models:sgd",
            "sgd@RATE: one online network at a fixed rate; sgd@best: the best one in hindsight",
        ),
        "ridge": (
            "scenarios.forecasters.ridge:ridge",
            "ridge@split: ridge regression, fitted to the first 20 % and frozen (forecasts)",
        ),
        "dlinear": (
            "scenarios.forecasters.dlinear:dlinear",
            "dlinear@split: trend and remainder, one linear layer each, frozen (forecasts)",
        ),
        "ogd": (
            "scenarios.forecasters.ogd:ogd",
            "ogd@split: the ridge, its weights learning on by one gradient step per label",
        ),
        "river": (
            "scenarios.models:river",
            "any River estimator by its class, such as river.tree:HoeffdingTreeClassifier",
        ),
        "river.hat": (
            "scenarios.models:river",
            "Hoeffding adaptive tree (Bifet & Gavalda 2009)",
        ),
        "river.hoeffding": (
            "scenarios.models:river",
            "Hoeffding tree, no answer to drift (Domingos & Hulten 2000)",
        ),
        "river.efdt": (
            "scenarios.models:river",
            "extremely fast decision tree; classes (Manapragada et al. 2018)",
        ),
        "river.logistic": (
            "scenarios.models:river",
            "logistic regression, multinomial from three classes on; classes",
        ),
        "river.one_vs_rest": (
            "scenarios.models:river",
            "logistic regressions, one per class; classes",
        ),
        "river.softmax": (
            "scenarios.models:river",
            "multinomial logistic regression; classes",
        ),
        "river.perceptron": (
            "scenarios.models:river",
            "perceptron, one per class; classes",
        ),
        "river.linear": (
            "scenarios.models:river",
            "linear regression by gradient steps; values",
        ),
        "river.pa": (
            "scenarios.models:river",
            "passive-aggressive linear regression; values (Crammer et al. 2006)",
        ),
        "river.bayes": (
            "scenarios.models:river",
            "Bayesian linear regression; values",
        ),
        "river.nb": (
            "scenarios.models:river",
            "Gaussian naive Bayes on the numeric features; classes",
        ),
        "river.knn": (
            "scenarios.models:river",
            "5 nearest neighbours among the last 1,000 rows",
        ),
        "river.arf": (
            "scenarios.models:river",
            "adaptive random forest, 10 trees; slow (Gomes et al. 2017)",
        ),
        "river.amf": (
            "scenarios.models:river",
            "aggregated Mondrian forest, 10 trees, numeric features (Mourtada et al. 2021)",
        ),
        "river.srp": (
            "scenarios.models:river",
            "streaming random patches, 10 trees; slow (Gomes et al. 2019)",
        ),
        "river.levbag": (
            "scenarios.models:river",
            "leveraging bagging, 10 Hoeffding trees, ADWIN; classes (Bifet et al. 2010)",
        ),
        "river.adwin_bagging": (
            "scenarios.models:river",
            "online bagging, 10 Hoeffding trees, ADWIN; classes (Bifet et al. 2009)",
        ),
        "capymoa.arf": (
            "scenarios.models:capymoa",
            "adaptive random forest of 10 trees, in MOA; needs `make peers`",
        ),
        "capymoa.arf30": (
            "scenarios.models:capymoa",
            "the same of 30 trees; classes or values",
        ),
        "capymoa.srp": (
            "scenarios.models:capymoa",
            "streaming random patches of 10 trees, in MOA; classes",
        ),
        "capymoa.levbag": (
            "scenarios.models:capymoa",
            "leveraging bagging of 10 Hoeffding trees, in MOA; classes",
        ),
        "capymoa.samknn": (
            "scenarios.models:capymoa",
            "self-adjusting memory kNN, in MOA (Losing et al. 2016); classes",
        ),
        "capymoa.knn": (
            "scenarios.models:capymoa",
            "3 nearest neighbours among the last 1,000 rows, in MOA",
        ),
        "capymoa.hat": (
            "scenarios.models:capymoa",
            "Hoeffding adaptive tree, in MOA; classes",
        ),
        "capymoa.soknl": (
            "scenarios.models:capymoa",
            "self-optimising k nearest leaves, 10 trees, in MOA (Sun et al. 2022); values",
        ),
        "capymoa.fimtdd": (
            "scenarios.models:capymoa",
            "model tree FIMT-DD, in MOA (Ikonomovska et al. 2011); values",
        ),
    },
}

KINDS = tuple(_TABLE)


def components(kind: str) -> dict[str, Component]:
    """All rows of ``kind``: the built-in ones, then those of other distributions.

    Raises:
        UsageError: ``kind`` is not one of ``KINDS``.
    """
    if kind not in _TABLE:
        raise UsageError(f"no kind of component is called {kind!r}; kinds: {', '.join(KINDS)}")
    rows = {n: Component(kind, n, target, text) for n, (target, text) in _TABLE[kind].items()}
    for point in entry_points(group=f"streammeta.{kind}"):
        origin = point.dist.name if point.dist else "?"
        rows.setdefault(
            point.name, Component(kind, point.name, point.value, f"from distribution {origin}")
        )
    return rows


def find(kind: str, name: str) -> Component:
    """The row called ``name``; ``module:attribute`` names a user's own object.

    Raises:
        UsageError: no such row; the message names the nearest ones.
    """
    rows = components(kind)
    if name in rows:
        return rows[name]
    if ":" in name:
        return Component(kind, name, name, "the user's own")
    other = _OTHER_NAMES.get(kind, {}).get(name)
    near = [other] if other else get_close_matches(name, rows, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; known: {', '.join(rows)}"
    one = "family" if kind == "families" else kind[:-1]
    raise UsageError(f"no {one} is called {name!r}{hint}")


def look_here() -> None:
    """Let imports find modules of the current directory first.

    There Python looks by itself under ``python -m``, and not under a command's name.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def load(kind: str, name: str) -> Any:
    """``find`` it and import it."""
    return find(kind, name).load()
