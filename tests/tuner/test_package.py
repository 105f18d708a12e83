import importlib
import inspect
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import tuner

SCRIPT = Path(__file__).parents[2] / "scripts" / "phase3_hyperparameter_tuning.py"
IMPORT_SCRIPT = (
    f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
    "from phase3_hyperparameter_tuning import HyperparameterTuner\n"
)
# The names and parameters of the API reference; additional parameters are keyword-only and have defaults.
DOCUMENTED = {
    "create_training_config": ["experiment_config"],
    "setup_training_environment": ["config"],
    "create_data_loaders": ["config"],
    "create_model_from_config": ["config"],
    "create_optimizer": ["model", "config"],
    "create_scheduler": ["optimizer", "config"],
    "create_loss_function": ["config"],
    "HyperparameterTuner": ["config_file"],
    "HyperparameterTuner.load_config": ["self", "config_file"],
    "HyperparameterTuner.validate_config": ["self", "config"],
    "HyperparameterTuner.run_experiments": ["self", "experiment_names"],
    "HyperparameterTuner.run_single_experiment": ["self", "experiment_name", "experiment_config"],
    "HyperparameterTuner.save_results": ["self"],
}
ERRORS = ["ConfigurationError", "DataLoaderError", "ExperimentFailedError", "ModelCreationError"]


def test_api_has_the_documented_names():
    classes = {"HyperparameterTuner", "TrainingConfig", *ERRORS}
    functions = {name for name in DOCUMENTED if name.startswith(("create_", "setup_"))}
    additional = {"ProgressDisplay", "RunOptions", "SearchRequest", "load_reader"}
    assert set(tuner.__all__) == classes | functions | additional
    assert tuner.__all__ == sorted(tuner.__all__)
    assert is_dataclass(tuner.TrainingConfig)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_signatures_start_with_the_documented_parameters(name):
    value = tuner
    for part in name.split("."):
        value = getattr(value, part)
    parameters = list(inspect.signature(value).parameters.values())
    documented, additional = parameters[: len(DOCUMENTED[name])], parameters[len(DOCUMENTED[name]) :]
    assert [parameter.name for parameter in documented] == DOCUMENTED[name]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in additional)
    assert all(parameter.default is not parameter.empty for parameter in additional)


@pytest.mark.parametrize("name", tuner.__all__)
def test_each_name_can_be_imported_and_is_listed(name):
    assert getattr(tuner, name).__name__ == name
    assert name in dir(tuner)


def test_documented_script_exports_the_same_names(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = importlib.import_module(SCRIPT.stem)
    assert [getattr(script, name) for name in tuner.__all__] == [getattr(tuner, name) for name in tuner.__all__]
    with pytest.raises(ImportError):
        from phase3_hyperparameter_tuning import Tuner  # noqa: F401


@pytest.mark.parametrize("program", [[str(SCRIPT), "--dry-run"], ["-c", IMPORT_SCRIPT]])
def test_script_without_the_package_names_the_installation_command(program):
    done = subprocess.run([sys.executable, "-I", "-S", *program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: No module named 'tuner'; install the package first: bash scripts/setup.sh, then use .venv/bin/python\n"
    )


def test_command_exits_without_a_last_garbage_collection():
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count())); import tuner.__main__ as program"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; program.main()", "--help"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.splitlines()[-1]) > 0


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tuner' has no attribute 'Tuner'"):
        _ = tuner.Tuner


def test_configuration_error_is_a_value_error():
    assert issubclass(tuner.ConfigurationError, ValueError)
    assert all(issubclass(getattr(tuner, name), Exception) for name in ERRORS)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import tuner", ["torch", "optuna", "sqlalchemy", "numpy"]),
        (
            "from tuner import TrainingConfig, create_training_config, DataLoaderError",
            ["torch", "optuna", "sqlalchemy"],
        ),
        ("from tuner import RunOptions, SearchRequest", ["torch"]),
        ("import search_spaces", ["torch", "optuna", "sqlalchemy", "numpy", "studies", "tuner"]),
        ("import studies", ["torch", "tuner"]),
    ],
)
def test_imports_load_no_unnecessary_libraries(code, absent):
    check = f"{code}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
