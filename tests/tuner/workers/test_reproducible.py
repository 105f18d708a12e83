"""A study of several worker processes equals the study of one worker, bit for bit, on SQLite and on PostgreSQL."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SEARCH_TRIALS = 12
STORAGE = "KHMER_TUNER_STORAGE"
# One thread each, so that no study has more threads than this machine has cores.
OPTIONS = ("--parallelism", "4", "--threads", "1")


@pytest.fixture(scope="module")
def small_study(tmp_path_factory):
    """Return the definition of a small study with presets, a search and pruning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        folder = tmp_path_factory.mktemp("reproducible")
        small = importlib.import_module("harness.fixture_study").FixtureStudy(folder, SEARCH_TRIALS)
        small.write_inputs()
        yield small


def trained(small_study, name, workers, storage=None):
    """Train the study with this number of workers; return the contents of its items, keyed by name."""
    folder = small_study.folder / name
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != STORAGE}
    environment |= {"PYTHONPATH": str(ROOT), **({} if storage is None else {STORAGE: storage})}
    command = [sys.executable, "-P", "-m", "tuner", *small_study.run, *OPTIONS, "--workers", str(workers)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        if storage is not None:
            patch.setenv(STORAGE, storage)
        items = importlib.import_module("harness.snapshot").take_snapshot(folder)
    return items


@pytest.fixture(scope="module")
def reference(small_study):
    """Return the items of the study that one worker has trained."""
    items = trained(small_study, "one_worker", 1)
    ends = json.loads(items["study: why trials ended"])
    assert len(ends) == small_study.trials
    assert {"max_epochs", "early_stopped", "pruned"} <= set(ends)
    return items


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "database"), [(2, "sqlite"), (4, "sqlite"), (2, "postgresql")])
def test_any_number_of_workers_gives_the_same_study(workers, database, small_study, reference, request):
    storage = request.getfixturevalue("new_database")() if database == "postgresql" else None
    found = trained(small_study, f"{workers}_workers_{database}", workers, storage)
    different = [name for name in {**reference, **found} if reference.get(name) != found.get(name)]
    assert different == ([] if storage is None else ["files"])  # there is no study.db in the output folder
