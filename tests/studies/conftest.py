"""Fixtures: a small study created by the package, on SQLite or PostgreSQL, with its presets and search space."""

import functools
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import alembic.util
import pytest
import sqlalchemy

import studies
from search_spaces import Choices, FloatRange, IntRange, Parameter, SearchSpace, TrainingConfig

HERE = Path(__file__).parent

# Modules whose tests run on SQLite and on PostgreSQL.
RUN_ON_BOTH_DATABASES = {
    f"test_{name}"
    for name in (
        "claims",
        "lifecycle",
        "optuna_private",
        "presets",
        "records",
        "results_json",
        "claiming",
        "search_budget",
        "status",
        "stop_requests",
        "results",
    )
}
assert {path.stem for path in HERE.rglob("test_*.py")} >= RUN_ON_BOTH_DATABASES, "each is the name of a module"
MODELS = {
    "small": {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [8], "width": 16},
    "medium": {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [16], "width": 32},
}


@pytest.fixture
def invariants():
    return studies.StudyInvariants(
        monitor="val_char_accuracy",
        mode="max",
        seed=0,
        dataset={
            "fingerprint": "f00d",
            "train_split": "train",
            "val_split": "val",
            "metadata_path": "/data/metadata.yaml",
            "image_folder": "/data/train",
        },
        models=MODELS,
        versions={"optuna": "5.0.0", "torch": "2.13.0"},
    )


@pytest.fixture
def space():
    return SearchSpace(
        (
            Parameter("model_name", Choices(("small", "medium"))),
            Parameter("learning_rate", FloatRange(1e-4, 1e-2, log=True)),
            Parameter("batch_size", IntRange(16, 128, step=16)),
            Parameter("scheduler_type", Choices(("cosine", "steplr"))),
            Parameter("warmup_epochs", IntRange(0, 5), when={"scheduler_type": ("cosine",)}),
        )
    )


@pytest.fixture
def outcome():
    return studies.TrialOutcome(
        why_ended=studies.WhyEnded.MAX_EPOCHS,
        training_time_s=12.5,
        best_val_char_accuracy=0.9,
        best_val_seq_accuracy=0.8,
        final_train_loss=0.25,
        total_epochs=3,
        best_epoch=2,
    )


@pytest.fixture
def presets():
    names = ("conservative_small", "baseline", "high_rate")
    return {
        name: TrainingConfig(experiment_name=name, learning_rate=0.001 * number)
        for number, name in enumerate(names, start=1)
    }


@pytest.fixture
def without_disk_flushes():
    """Disable SQLite's flushes to the disk, since these tests kill processes, not machines."""

    def disable_flushes(connection, record):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", disable_flushes)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", disable_flushes)


@pytest.fixture(scope="session", autouse=True)
def cached_schema_revisions():
    """Cache Optuna's schema revisions: Alembic would load them at each opening, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alembic.util, "load_python_file", functools.cache(alembic.util.load_python_file))
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database without a study, to be copied, since creating one takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty")
    studies.open_storage(studies.default_storage_url(path)).engine.dispose()
    return path / "study.db"


def pytest_generate_tests(metafunc):
    """Run the tests of `RUN_ON_BOTH_DATABASES` on both databases, except those marked ``sqlite``."""
    on_both = metafunc.module.__name__.rpartition(".")[2] in RUN_ON_BOTH_DATABASES
    if on_both and "new_storage" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("sqlite"):
        metafunc.parametrize("new_storage", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def new_storage(request):
    """A function that creates a database without a study for an output folder, and returns its URL."""
    if getattr(request, "param", "sqlite") == "postgresql":
        new_database = request.getfixturevalue("new_database")
        return lambda path: new_database()
    empty_database = request.getfixturevalue("empty_database")

    def copy(path):
        if not path.exists():
            path.mkdir(parents=True)
            shutil.copy(empty_database, path)
        return studies.default_storage_url(path)

    return copy


@pytest.fixture
def start(tmp_path, invariants, space, without_disk_flushes, new_storage):
    """A function that creates or joins a study with the given presets, as a run of the program does."""
    default_space = space
    urls = {}

    def start_study(
        experiments=None, *, path=tmp_path / "out", space=default_space, name="khmer-ocr", url=None, **changes
    ):
        folder = studies.OutputFolder(path)
        if url is None:
            url = urls[path] = urls.get(path) or new_storage(path)
        study = studies.create_or_join_study(studies.open_storage(url), name, folder, replace(invariants, **changes))
        studies.enqueue_presets(study, folder, experiments or {}, space)
        return study, folder

    return start_study


@pytest.fixture
def url(new_database):
    """The URL of a PostgreSQL database without a study."""
    return new_database()


@pytest.fixture
def server_study(start, presets, url):
    """A study in PostgreSQL, with the presets."""
    return start(presets, url=url)
