"""The architecture: which folders import which, and where modules are."""

import ast
import importlib.metadata
import re
import sys
import tomllib
import types
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import optuna
import pytest

import studies
from search_spaces import load_experiments, load_model_definitions, load_search_space

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "studies", "tuner")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports(module):
    """Return the modules that a module imports, also inside functions."""
    return set(_imported(ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))))


def _imported(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def within(module, packages):
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def third_party(module):
    """Return the top-level names of the third-party libraries that a module imports."""
    tops = {imported.split(".")[0] for imported in imports(module)}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in PACKAGES}


# The import order: an entry may import the entries below it in its package, and itself. A folder includes everything
# in it without an entry of its own. Modules at the top of a package are entries, too.
ORDER = {
    "tuner": (
        "__main__",
        "cli/commands",
        "cli",
        "hyperparameter_tuner",
        "analysis",
        "workers",
        "session",
        "display",
        "inference",
        "training",
        "models",
        "data/generation",
        "data",
        "signals",
        "seeds",
        "cores",
    ),
    "studies": (
        "report",
        "dashboard",
        "export",
        "status",
        "study",
        "sampling",
        "trials",
        "storage",
        "locks",
    ),
    "search_spaces": (
        "space",
        "experiments",
        "model_definitions",
        "training_config",
        "diagnostics",
        "yaml_reader",
        "files",
        "errors",
    ),
}
# The other packages that a package may import.
PACKAGES_BELOW = {"tuner": ("studies", "search_spaces"), "studies": ("search_spaces",), "search_spaces": ()}
# Third-party libraries that a folder must not import, not even inside functions.
FORBIDDEN = {
    "search_spaces": {"torch", "optuna", "sqlalchemy"},
    "studies": {"torch"},
    "tuner/data": {"optuna", "sqlalchemy"},
    "tuner/models": {"optuna", "sqlalchemy"},
    "tuner/training": {"optuna", "sqlalchemy"},
}
# The training engine works without a study.
ENGINE = ("tuner.data", "tuner.models", "tuner.training")


def entry_of(module):
    """Return the entry of `ORDER` for a module; None for the `__init__` of a package."""
    package, _, rest = module.partition(".")
    path = rest.replace(".", "/")
    entries = [entry for entry in ORDER[package] if path == entry or path.startswith(f"{entry}/")]
    assert entries or not rest, f"{module} has no entry in ORDER; move it to a folder of {package}/"
    return max(entries, key=len, default=None)


@pytest.mark.parametrize("module", MODULES)
def test_folders_import_only_folders_below_them(module):
    package, entry = module.split(".")[0], entry_of(module)
    upward = []
    for imported in imports(module):
        target = imported.split(".")[0]
        if target in ORDER and target != package:
            assert target in PACKAGES_BELOW[package], f"{module} imports {imported} of a package above"
        elif target == package and entry is not None:
            # The `__init__` of a package is its interface for other packages, not for its own folders.
            other = entry_of(imported)
            order = ORDER[package]
            if other is None or order.index(other) < order.index(entry):
                upward.append(imported)
    assert upward == []


@pytest.mark.parametrize("module", MODULES)
def test_folders_import_no_forbidden_libraries(module):
    path = module.replace(".", "/")
    forbidden = {name for folder, names in FORBIDDEN.items() if f"{path}/".startswith(f"{folder}/") for name in names}
    assert not third_party(module) & forbidden
    if within(module, ["search_spaces"]):
        assert third_party(module) <= {"yaml", "pydantic", "pydantic_core"}
    if within(module, ENGINE):
        assert not [name for name in imports(module) if within(name, ["studies"])]


def test_studies_exports_exactly_the_names_that_tuner_uses():
    exported = set(vars(studies)) - set(vars(types.ModuleType("empty")))
    exported -= {name for name, value in vars(studies).items() if isinstance(value, types.ModuleType) or "__" in name}
    used = set()
    for module in (name for name in MODULES if within(name, ["tuner"])):
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "studies":
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and within(str(node.module), ["studies"]):
                both = {alias.name for alias in node.names} & exported
                assert not both, f"{module} imports {both} from {node.module}; `studies` exports it"
    assert exported == used


def test_every_entry_of_the_order_exists():
    known = {entry_of(module) for module in MODULES}
    assert {entry for order in ORDER.values() for entry in order} <= known


def private_optuna_names(source):
    """Return the private names of Optuna in a source: imports, and attributes of Optuna's objects."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "optuna":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            found |= {name for name in names if name.startswith("_")}
        elif isinstance(node, ast.Attribute) and node.attr in OPTUNA_PRIVATE:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(node.attr)
    return found


def _private_attributes():
    study = optuna.create_study()
    trial = study.ask()
    storage = optuna.storages.RDBStorage("sqlite://")
    objects = (study, trial, study.get_trials()[0], storage, optuna.storages._CachedStorage(storage))
    names = {name for thing in objects for name in (*dir(thing), *vars(thing))}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


OPTUNA_PRIVATE = _private_attributes()


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, ["studies.storage"])])
def test_only_the_storage_folder_uses_private_names_of_optuna(module):
    assert private_optuna_names(MODULES[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from optuna.storages._rdb import models", {"_rdb"}),
        ("from optuna.storages import _CachedStorage", {"_CachedStorage"}),
        ("study._storage.get_trial(trial._trial_id)", {"_storage", "_trial_id"}),
        ("self._storage.get_trial(self.trial_id)", set()),
        ("from optuna.storages import RDBStorage", set()),
    ],
)
def test_private_names_are_recognized(source, names):
    assert private_optuna_names(source) == names


def test_imports_have_no_cycles():
    graph = {name: imports(name) & MODULES.keys() for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(reversed(error.args[1]))}")


def test_every_imported_library_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *project["optional-dependencies"]["onnx"],
        *project["optional-dependencies"]["ray"],
    ]
    declared = {re.split(r"[^\w-]", line)[0].casefold() for line in lines}
    distributions = importlib.metadata.packages_distributions()
    # `pydantic_core` is installed with pydantic.
    needed = {top for module in MODULES for top in third_party(module)} - {"pydantic_core"}
    missing = {top for top in needed if not {name.casefold() for name in distributions.get(top, [top])} & declared}
    assert not missing


LOADERS = {
    "phase3_simple_configs.yaml": load_experiments,
    "model_config.yaml": load_model_definitions,
    "search_space.yaml": load_search_space,
}


@pytest.mark.parametrize(
    "path", [path for name in PACKAGES for path in (ROOT / name).rglob("*.yaml")], ids=lambda p: p.name
)
def test_every_built_in_yaml_file_is_valid(path):
    assert LOADERS[path.name](path)
