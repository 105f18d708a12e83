"""Every function and module that a script names in a string exists."""

import ast
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SHARED = "harness"
OWN = ("kills", "faults", "observers", "benchmark")
# Dotted names in strings start with one of these.
ROOTS = (
    "tuner",
    "studies",
    "search_spaces",
    "optuna",
    "optuna_dashboard",
    "sqlalchemy",
    "torch",
    "alembic",
    "matplotlib",
    "os",
    SHARED,
    *OWN,
)
DOTTED = re.compile(rf"(?:{'|'.join(ROOTS)})(?:\.(?!(?:json|c|so)$)\w+)+")  # except file names


def trees():
    for path in sorted(SCRIPTS.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def dotted_names(tree):
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in strings if isinstance(text, str) and DOTTED.fullmatch(text)}


NAMES = sorted({name for _, tree in trees() for name in dotted_names(tree)})


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def resolve(name):
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"a script names {name!r}, which does not exist: {error}; update the name")


@pytest.mark.parametrize("name", NAMES)
def test_name_in_a_script_exists(name):
    resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "tuner.training.loop.no_such_function",
        "tuner.training.no_such_module.train",
        "optuna.study.Study.no_such_method",
        "no_such_package.function",
    ],
)
def test_missing_name_fails(name):
    with pytest.raises(pytest.fail.Exception, match=re.escape(name)):
        resolve(name)


def kill_points():
    return [point.target for point in importlib.import_module("harness.kill_points").KILL_POINTS]


def test_all_lists_of_names_are_found():
    parts = ("bookkeeping.PER_EPOCH", "bookkeeping.PER_TRIAL", "bookkeeping.SET_UP", "epochs.TIMED_PARTS")
    watched = [item for part in parts for item in pkgutil.resolve_name(f"benchmark.{part}")]
    named = {target for item in watched for target in item.targets}
    named |= set(importlib.import_module("faults.child")._OPERATIONS)
    named |= set(importlib.import_module("harness.forks")._IMPORTED)
    named |= set(kill_points())
    assert named <= set(NAMES)


def test_every_kill_point_is_a_function():
    assert all(callable(resolve(target)) for target in kill_points())


def test_no_name_is_an_f_string():
    # The name would not be found in the source.
    strings = [node for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = [string.values[0].value for string in strings if isinstance(string.values[0], ast.Constant)]
    assert [part for part in parts if re.match(rf"(?:{'|'.join(ROOTS)})\.\w", str(part))] == []


def imported(tree):
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("folder", [SHARED, *OWN])
def test_folder_imports_only_itself_and_the_shared_folder(folder):
    for path, tree in trees():
        if path.relative_to(SCRIPTS).parts[0] == folder:
            assert imported(tree) & {SHARED, *OWN} <= {SHARED, folder}, path


def test_watching_a_missing_function_is_an_error(monkeypatch):
    replacement = importlib.import_module("harness.replacement")
    error = importlib.import_module("harness.run").HarnessError
    with pytest.raises(error, match=r"the program has no function tuner\.workers\.loop\.gone to replace"):
        replacement.watch("tuner.workers.loop.gone")
    calls = []
    module = type(sys)("watched_program")
    module.double = lambda number: 2 * number
    monkeypatch.setitem(sys.modules, "watched_program", module)
    replacement.watch("watched_program.double", before=calls.append, after=calls.append)
    assert module.double(3) == 6
    assert calls == [3, 3]
