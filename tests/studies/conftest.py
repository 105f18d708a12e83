"""A small study to work on, made by the package itself, and child processes for what only they show."""

from __future__ import annotations

import functools
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import alembic.util
import optuna
import pytest
import sqlalchemy

from search_spaces import Choices, FloatRange, IntRange, Parameter, SearchSpace, TrainingConfig
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialOutcome,
    WhyEnded,
    create_or_join_study,
    default_storage_url,
    enqueue_presets,
    open_storage,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# What these test does not depend on the database, so they do it on each.
ON_BOTH = {
    f"test_{name}"
    for name in (
        "claims",
        "lifecycle",
        "optuna_private",
        "presets",
        "records",
        "results_json",
        "search_budget",
        "status",
        "stop_requests",
        "targets",
    )
}
assert {path.stem for path in HERE.rglob("test_*.py")} >= ON_BOTH, "each is the name of a module"
MODELS = {
    "small": {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [8], "width": 16},
    "medium": {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [16], "width": 32},
}

NewStorage = Callable[[Path], str]
Start = Callable[..., tuple[optuna.Study, OutputFolder]]


@pytest.fixture
def invariants() -> StudyInvariants:
    return StudyInvariants(
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
def space() -> SearchSpace:
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
def outcome() -> TrialOutcome:
    return TrialOutcome(
        why_ended=WhyEnded.MAX_EPOCHS,
        training_time_s=12.5,
        best_val_char_accuracy=0.9,
        best_val_seq_accuracy=0.8,
        final_train_loss=0.25,
        total_epochs=3,
        best_epoch=2,
    )


@pytest.fixture
def presets() -> dict[str, TrainingConfig]:
    names = ("conservative_small", "baseline", "high_rate")
    return {
        name: TrainingConfig(experiment_name=name, learning_rate=0.001 * number)
        for number, name in enumerate(names, start=1)
    }


@pytest.fixture
def fast_disk() -> Iterator[None]:
    """Let SQLite leave flushing to the system: what dies in these tests are processes, not machines."""

    def relax(connection: Any, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)


@pytest.fixture(scope="session", autouse=True)
def revisions_read_once() -> Iterator[None]:
    """Alembic runs Optuna's schema revisions whenever a database is opened, for longer than most tests take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alembic.util, "load_python_file", functools.cache(alembic.util.load_python_file))
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a study, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty")
    open_storage(default_storage_url(path)).engine.dispose()
    return path / "study.db"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What studies can do, they can on each database, but for tests marked as being about SQLite's files."""
    is_one = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH
    if is_one and "new_storage" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("sqlite"):
        metafunc.parametrize("new_storage", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def new_storage(request: pytest.FixtureRequest) -> NewStorage:
    """Make a database without a study for an output folder; return its URL."""
    if getattr(request, "param", "sqlite") == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("new_database")
        # The output folder keeps it, and every process of a user's would be told it, or its password.
        return lambda path: new_database()
    empty_database: Path = request.getfixturevalue("empty_database")

    def copy(path: Path) -> str:
        if not path.exists():
            path.mkdir(parents=True)
            shutil.copy(empty_database, path)
        return default_storage_url(path)

    return copy


@pytest.fixture
def start(
    tmp_path: Path, invariants: StudyInvariants, space: SearchSpace, fast_disk: None, new_storage: NewStorage
) -> Start:
    """Begin or join a study as one run of the program does."""
    the_space = space
    urls: dict[Path, str] = {}

    def begin(
        experiments: Mapping[str, TrainingConfig] | None = None,
        *,
        path: Path = tmp_path / "out",
        space: SearchSpace | None = the_space,
        name: str = "khmer-ocr",
        url: str | None = None,
        **changes: Any,
    ) -> tuple[optuna.Study, OutputFolder]:
        folder = OutputFolder(path)
        if url is None:
            url = urls[path] = urls.get(path) or new_storage(path)
        study = create_or_join_study(open_storage(url), name, folder, replace(invariants, **changes))
        enqueue_presets(study, folder, experiments or {}, space)
        return study, folder

    return begin


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    """The URL of a database on a server, without a study."""
    return new_database()


@pytest.fixture
def begun(start: Start, presets: dict[str, TrainingConfig], url: str) -> tuple[optuna.Study, OutputFolder]:
    """A study on a server, with the presets."""
    return start(presets, url=url)
