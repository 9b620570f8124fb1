"""Compiled code that counts no references: arrays are lent to it, and none is left behind."""

from __future__ import annotations

import ast
import gc
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numba.core.errors import NumbaError
from numba.core.runtime import _nrt_python, rtsys

from drift.compiled import kernel, njit
from streammeta.boxed import Box
from streammeta.compiling import TASKS, rows_with_a_change
from streammeta.config import ModelConfig
from streammeta.engine import Engine

ROOT = Path(__file__).parent.parent
#: What makes no array, of Python and of numpy.
PLAIN = {"abs", "bool", "enumerate", "float", "int", "len", "max", "min", "range", "zip"}
NUMBERS = {"None", "bool", "float", "int", "np.float32"}
#: Functions with boxes that return arrays, none of which has been lent.
FRESH = {
    "streammeta.experts.bank._standard",
    "streammeta.together.answer",
    "streammeta.together.ask",
    "streammeta.together.judge",
}
OF_NUMBERS = {"cos", "exp", "float32", "float64", "int64", "isfinite", "isnan", "log", "sqrt"}


class Table(NamedTuple):
    rows: np.ndarray
    scale: float


@njit(nogil=True)
def boxed(table: Table) -> Box:
    return Box(table)


@kernel()
def total_of(row: np.ndarray) -> float:
    total = 0.0
    for value in row:
        total += value
    return total


@njit(nogil=True)
def scaled_total(box: Box) -> float:
    t, total = box.of, 0.0
    for r in range(len(t.rows)):
        total += total_of(t.rows[r]) * t.scale
        t.rows[r, 0] = 0.0
    return total


def arrays_alive() -> int:
    """Arrays of compiled code that nobody has given back."""
    counted = rtsys.get_allocation_stats()
    return counted.mi_alloc - counted.mi_free


def is_kernel(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(way).startswith("kernel(") for way in node.decorator_list
    )


def parsed() -> dict[str, ast.Module]:
    """Every module by name."""
    files = sorted((*ROOT.glob("streammeta/**/*.py"), *ROOT.glob("drift/*.py")))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return {n: ast.parse(f.read_text("utf-8")) for n, f in zip(names, files, strict=True)}


def known_to(name: str, modules: dict[str, ast.Module]) -> set[str]:
    """What the kernels of a module may call by its name: its own, and those that it imports."""
    known = {node.name for node in modules[name].body if is_kernel(node)}  # type: ignore[attr-defined]
    for node in modules[name].body:
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            there = {n.name for n in modules[node.module].body if is_kernel(n)}  # type: ignore[attr-defined]
            known |= {alias.name for alias in node.names} & there
    return known


def returned(node: ast.stmt) -> set[str]:
    """The types that a function returns, one or some together."""
    assert isinstance(node, ast.FunctionDef)
    assert node.returns is not None
    return {*ast.unparse(node.returns).removeprefix("tuple[").removesuffix("]").split(", ")}


def test_a_box_shares_its_arrays_keeps_them_and_lets_them_go() -> None:
    rows = np.ones((3, 4))
    there = weakref.ref(rows)
    box = boxed(Table(rows, 0.5))
    assert scaled_total(box) == 6.0
    assert rows[:, 0].sum() == 0.0  # what either side writes the other one sees
    assert "NRT_incref" not in str(scaled_total.inspect_llvm()), "what is lent is not counted"
    del rows
    gc.collect()
    assert there() is not None
    assert scaled_total(box) == 4.5  # the box is enough
    del box
    gc.collect()
    assert there() is None


def test_a_kernel_that_makes_an_array_is_refused() -> None:
    @kernel()
    def doubled(row: np.ndarray) -> float:
        return (row + row)[0]

    with pytest.raises(NumbaError, match="NRT required but not enabled"):
        doubled(np.ones(3))


def test_kernels_call_kernels_only() -> None:
    """What they call is compiled as they are, if nobody has compiled it before: so what makes
    arrays must not be called by one."""
    modules, wrong, found = parsed(), [], 0
    for name, module in modules.items():
        known = known_to(name, modules) | PLAIN
        for node in module.body:
            if not is_kernel(node):
                continue
            found += 1
            inside = [n for step in node.body for n in ast.walk(step)]  # type: ignore[attr-defined]
            for call in (n for n in inside if isinstance(n, ast.Call)):
                called = ast.unparse(call.func)
                of_numpy = called.partition("np.")[2] in OF_NUMBERS
                if not (called in known or of_numpy or called.endswith(".reshape")):
                    wrong.append(f"{name}: {node.name} calls {called}")  # type: ignore[attr-defined]
    assert found > 50
    assert wrong == []


def test_kernels_return_numbers() -> None:
    """Numba compiles one that returns an array in a tuple, which is freed once too often."""
    for name, module in parsed().items():
        for node in module.body:
            if is_kernel(node):
                assert returned(node) <= NUMBERS, f"{name}: {node.name}"  # type: ignore[attr-defined]


def test_what_a_box_lends_does_not_leave() -> None:
    """Who is given a box and returns arrays has made them: few do, each of them looked at."""
    found = set()
    for name, module in parsed().items():
        for node in module.body:
            if not (isinstance(node, ast.FunctionDef) and node.returns and node.decorator_list):
                continue
            given = {ast.unparse(a.annotation) for a in node.args.args if a.annotation}
            if "Box" in given and not returned(node) <= NUMBERS:
                found.add(f"{name}.{node.name}")
    assert found == FRESH


@pytest.mark.parametrize("task", TASKS)
def test_no_array_is_left_behind_whatever_a_model_does(task: str) -> None:
    _nrt_python.memsys_enable_stats()
    engine = Engine(ModelConfig.model_validate({"task": task}))
    alive, made = [], []
    for row, event in enumerate(rows_with_a_change(task)):
        engine.observe([event])
        engine.replay()
        if row >= 100 and row % 50 == 0:
            gc.collect()
            alive.append(arrays_alive())
            made.append(rtsys.get_allocation_stats().mi_alloc)
    assert made[-1] - made[0] > 1000  # it is counted
    assert max(alive) - min(alive) <= 8, alive
