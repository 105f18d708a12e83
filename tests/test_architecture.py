"""What the house looks like: who imports whom, what lies where."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from search_spaces import load_experiments, load_model_definitions, load_search_space

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "studies", "tuner")
TOP_LEVEL = {"tuner", "search_spaces", "studies", "scripts", "tests", "pyproject.toml", "README.md"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports(module: str, *, at_import_only: bool = False) -> set[str]:
    """Modules that a module imports: all, or those that are imported as soon as it is."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return set(_imported(tree.body if at_import_only else ast.walk(tree), at_import_only))


def _imported(nodes: Iterable[ast.AST], at_import_only: bool) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif at_import_only and isinstance(node, ast.If | ast.Try | ast.With):
            if ast.unparse(getattr(node, "test", node)) != "TYPE_CHECKING":
                yield from _imported(ast.iter_child_nodes(node), at_import_only)


def within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def third_party(module: str) -> set[str]:
    """Top-level names of what a module imports beyond Python's own library and this project."""
    tops = {imported.split(".")[0] for imported in imports(module)}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in PACKAGES}


ENGINE = ("tuner.data", "tuner.models", "tuner.training", "tuner.training.plots", "tuner.training.confusion_counts")
TRAINING_HALF = (*ENGINE, "tuner.seeds")


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, ["search_spaces"])])
def test_search_spaces_needs_yaml_and_pydantic_alone(module: str) -> None:
    assert third_party(module) <= {"yaml", "pydantic", "pydantic_core"}
    assert not [name for name in imports(module) if within(name, ["studies", "tuner"])]


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, ["studies"])])
def test_studies_know_nothing_of_training(module: str) -> None:
    assert not [name for name in imports(module) if within(name, ["torch", "tuner"])]


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, ENGINE)])
def test_the_training_engine_knows_nothing_of_studies(module: str) -> None:
    imported = imports(module)
    assert not [name for name in imported if within(name, ["studies", "optuna", "sqlalchemy"])]
    assert not [name for name in imported if within(name, ["tuner"]) and not within(name, TRAINING_HALF)]


def test_no_module_needs_itself() -> None:
    graph = {name: imports(name, at_import_only=True) & MODULES.keys() for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(reversed(error.args[1]))}")


def test_every_imported_library_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w-]", line)[0].casefold() for line in project["dependencies"]}
    homes = importlib.metadata.packages_distributions()
    # A part of pydantic that it gives out under this name only.
    needed = {top for module in MODULES for top in third_party(module)} - {"pydantic_core"}
    missing = {top for top in needed if not {home.casefold() for home in homes.get(top, [top])} & declared}
    assert not missing


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|postgresql|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in lists for line in block.splitlines() if line.strip()]
    assert len(lists) == 3
    assert [line for line in lines if not re.search(r'",\s+# \w+', line)] == []


@pytest.mark.skipif(not ((ROOT / ".git").exists() and shutil.which("git")), reason="not a git checkout")
def test_the_top_level_holds_what_the_design_card_lists() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {top for top in tops if not top.startswith(".")} <= TOP_LEVEL


LOADERS = {
    "phase3_simple_configs.yaml": load_experiments,
    "model_config.yaml": load_model_definitions,
    "search_space.yaml": load_search_space,
}


@pytest.mark.parametrize(
    "path", [path for name in PACKAGES for path in (ROOT / name).rglob("*.yaml")], ids=lambda p: p.name
)
def test_every_shipped_yaml_loads(path: Path) -> None:
    assert LOADERS[path.name](path)


@pytest.mark.parametrize("path", [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")], ids=module_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
