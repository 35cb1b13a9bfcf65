"""Layers go down only, heavy libraries load late, and every public name is listed."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import earthmap

PACKAGE = Path(earthmap.__file__).parent

LAYERS = {
    "errors": 0, "content": 0, "connection": 0, "storage": 0,
    "grid": 1, "sensors": 1, "tasks": 1,
    "catalog": 2, "synthetic": 2,
    "cube": 3, "model": 3, "predict": 3,
    "merge": 4, "metrics": 4, "outputs": 4,
    "pipeline": 5, "training": 5,
    "evaluation": 6, "operate": 6, "service": 6,
    "cli": 7, "client": 7,
}  # fmt: skip

RAY_MODULES = {
    "earthmap.pipeline.batches", "earthmap.pipeline.cluster", "earthmap.pipeline.sharing",
    "earthmap.service.ask_workers", "earthmap.service.replicas", "earthmap.training.data",
    "earthmap.training.distributed",
}  # fmt: skip


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("earthmap", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = dict(_modules())


def _part(module: str) -> str:
    return module.split(".")[1]


def test_every_part_has_a_layer() -> None:
    parts = {_part(name) for name in MODULES if name != "earthmap"}
    assert parts == set(LAYERS)


def test_no_import_goes_up() -> None:
    upward = [
        f"{name} imports {target}"
        for name, tree in MODULES.items()
        if name != "earthmap"
        for target in set(_imports(tree))
        if target.startswith("earthmap.") and LAYERS[_part(target)] > LAYERS[_part(name)]
    ]
    assert upward == []


def test_no_cycle() -> None:
    graph = {
        name: {target for target in _imports(tree) if target in MODULES and target != name and target != "earthmap"}
        for name, tree in MODULES.items()
        if name != "earthmap"
    }
    # A package's own front lists its modules; what must not happen is that modules need each other.
    leaves = {
        name: {t for t in targets if not name.startswith(f"{t}.") and name != t} for name, targets in graph.items()
    }
    assert list(TopologicalSorter(leaves).static_order())


def test_ray_is_imported_where_the_design_says() -> None:
    users = {name for name, tree in MODULES.items() if any(t == "ray" or t.startswith("ray.") for t in _imports(tree))}
    assert users == RAY_MODULES


@pytest.mark.parametrize("part", ["grid", "sensors", "tasks", "synthetic.truth", "merge.aggregate", "model"])
def test_pure_parts_import_without_rasterio_ray_and_torch(part: str) -> None:
    code = f"import sys, earthmap.{part}; print([m for m in ('torch', 'ray', 'rasterio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_earthmap_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import earthmap; took = time.perf_counter() - start\n"
        "heavy = {'torch', 'ray', 'rasterio', 'numpy', 'geopandas', 'xarray'} & set(sys.modules)\n"
        "print(took < 0.5, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def _packages() -> list[str]:
    return ["earthmap", *(f"earthmap.{m.name}" for m in pkgutil.iter_modules([str(PACKAGE)]) if m.ispkg)]


@pytest.mark.parametrize("package", _packages())
def test_public_names_are_listed_and_there(package: str) -> None:
    module = importlib.import_module(package)  # that the list is sorted is ruff's RUF022
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(f"{package}.")
    }
    assert public <= set(module.__all__)
