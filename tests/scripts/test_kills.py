"""A study whose processes are killed ends as if nothing had happened: `scripts/kill_harness.py`, with few kills."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuner.training.checkpoints import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "kill_harness.py"
# Memory, where there is such a folder: what is killed leaves the same on both, and a disk makes it wait.
MEMORY = Path("/dev/shm")
# Of the first trial; the name follows from its number and the picture's.
CURVES = "artifacts/49fd48b0-fd9e-553e-89ba-c8f1dbab21e8"
NOTHING_DIFFERS = (
    "trials lost: 0, doubled: 0; studies that differ: 0",
    "epochs trained again beyond the one in flight: 0",
)
MARK = "STARTED_BY_A_TEST"
NOT_TOLD = "password found: 0 times\n"

Harness = subprocess.CompletedProcess[str]


def kill(folder: Path, *options: str) -> Harness:
    """Kill as the options say, in a folder."""
    command = [sys.executable, str(HARNESS), "--folder", str(folder), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def check(done: Harness, kills: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (f"{kills} kills, ", *NOTHING_DIFFERS):
        assert line in done.stdout


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    return importlib.import_module(name)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    """The password of the server that a harness starts."""
    return str(module("harness.postgresql", monkeypatch).PASSWORD)


@pytest.fixture(scope="module")
def work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def killed(work_folder: Path) -> tuple[Path, Harness]:
    """The undisturbed study of a short harness run, and how the run went."""
    folder = work_folder / "short"
    return folder / "reference", kill(folder, "--kills", "12", "--seed", "1", "--trials", "3")


def test_killed_again_and_again_a_study_equals_the_undisturbed_one(killed: tuple[Path, Harness]) -> None:
    check(killed[1], 12)
    assert re.search(r"^most kills of the same epoch: [3-9]$", killed[1].stdout, re.MULTILINE), killed[1].stdout


def check_on_a_server(done: Harness, kills: int, password: str) -> None:
    check(done, kills)
    assert NOT_TOLD in done.stdout
    assert password not in done.stdout + done.stderr


@pytest.mark.slow
def test_killed_again_and_again_on_a_server_too(work_folder: Path, password: str) -> None:
    folder = work_folder / "server"
    points = ("before second half of a claim", "after epoch", "before take-over")
    done = kill(folder, "--postgresql", "--kills", "4", "--seed", "1", "--trials", "3", "--at", *points)
    check_on_a_server(done, 4, password)
    assert re.search(r"^take-over +[12] +0$", done.stdout, re.MULTILINE), done.stdout
    # All that the database held is kept beside the other files, and none of it is the password either.
    assert "CREATE TABLE public.trials" in (folder / "reference" / "study.sql").read_text()


def test_a_harness_that_is_stopped_leaves_no_server_and_no_files(tmp_path: Path) -> None:
    mark = str(tmp_path)
    command = [sys.executable, str(HARNESS), "--postgresql", "--trials", "3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), MARK: mark}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as harness:
        try:
            assert harness.stdout is not None
            folder = Path(next(harness.stdout).rpartition(", in ")[2].strip())
            assert folder.is_dir()
            next(line for line in harness.stdout if line.startswith("undisturbed: "))
            assert "postgres" in names_of_marked(mark)
            harness.send_signal(signal.SIGTERM)
            assert harness.wait(60) == 130
        finally:
            harness.kill()
    assert names_of_marked(mark) == set()
    assert not folder.exists()


def names_of_marked(mark: str) -> set[str]:
    """Return the names of the processes that have a mark in their environment, as their children have."""
    names = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                names.add(process.name())
    return names


@pytest.mark.slow
def test_killed_more_often_on_a_server(work_folder: Path, password: str) -> None:
    done = kill(work_folder / "server, longer", "--postgresql", "--kills", "16", "--seed", "2")
    check_on_a_server(done, 16, password)


def test_dying_at_the_take_over_again_and_again_leaves_no_mark(work_folder: Path) -> None:
    points = ("after outcome", "before take-over", "after take-over", "before second half of a claim")
    done = kill(work_folder / "take-over", "--kills", "6", "--seed", "1", "--trials", "3", "--at", *points)
    check(done, 6)
    assert re.search(r"^take-over +[1-9] +[1-9]$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "options"),
    [(80, ("--seed", "2")), (6, ("--seed", "3", "--trials", "3", "--fresh"))],
    ids=["forked", "fresh interpreters"],
)
def test_killed_more_often(work_folder: Path, kills: int, options: tuple[str, ...]) -> None:
    check(kill(work_folder / f"{kills} kills", "--kills", str(kills), *options), kills)


def change_metrics(study: Path) -> None:
    path = study / "out" / "plain" / "metrics.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    metrics = json.loads(first)
    metrics["train_loss"] += 1e-14
    path.write_text("".join([json.dumps(metrics) + "\n", *others]))


def change_weight(study: Path) -> None:
    path = study / "out" / "plain" / "checkpoints" / "best.pt"
    state = load_checkpoint(path)
    weights = next(iter(state["model"].values()))
    weights.view(-1)[0] += 1e-7 * weights.view(-1)[0]
    save_checkpoint(path, state)


def change_results(study: Path) -> None:
    path = study / "results.json"
    path.write_text(path.read_text().replace('"total_epochs": 5', '"total_epochs": 4', 1))


def change_picture(study: Path) -> None:
    path = study / "out" / CURVES
    path.write_bytes(path.read_bytes() + b"\0")


def in_database(statement: str) -> Callable[[Path], None]:
    def change(study: Path) -> None:
        with closing(sqlite3.connect(study / "out" / "study.db")) as database, database:
            assert database.execute(statement).rowcount == 1

    return change


def draw_a_curve_twice(study: Path) -> None:
    (curve,) = (study / "out" / "with_curves" / "tensorboard").glob("events.*")
    content, records = curve.read_bytes(), []
    while content:
        # A record: the length of its data, a checksum, the data, a checksum.
        end = struct.unpack_from("<Q", content)[0] + 16
        records.append(content[:end])
        content = content[end:]
    last = [record for record in records if b"loss/val" in record][-1]
    # The first record, which has no value, keeps TensorBoard from replacing the point.
    curve.write_bytes(b"".join([*records, records[0], last]))


def leave_half_a_file(study: Path) -> None:
    (study / "out" / "plain" / "checkpoints" / ".best.pt.tmp").touch()


@pytest.mark.parametrize(
    ("change", "item"),
    [
        (change_metrics, "out/plain/metrics.jsonl"),
        (change_weight, "out/plain/checkpoints/best.pt"),
        (change_results, "results file"),
        (draw_a_curve_twice, "out/with_curves/tensorboard (TensorBoard)"),
        (leave_half_a_file, "files left over"),
        (
            in_database(
                "UPDATE trial_params SET param_value = param_value * 1.000000000000001 "
                "WHERE trial_id = 1 AND param_name = 'learning_rate'"
            ),
            "trial 0: parameters",
        ),
        (
            in_database("UPDATE trial_intermediate_values SET intermediate_value = 1 WHERE trial_id = 1 AND step = 2"),
            "trial 0: reports",
        ),
        (in_database("UPDATE trials SET state = 'RUNNING' WHERE number = 1"), "trial 1: state"),
        (change_picture, f"out/{CURVES}"),
        (
            in_database(
                "UPDATE study_system_attributes SET value_json = replace(value_json, 'best seq', 'worst seq') "
                "WHERE key = 'dashboard:1:note_str:0'"
            ),
            "trial 0: note",
        ),
    ],
    ids=["metrics", "weight", "results", "curve", "half a file", "parameter", "report", "state", "picture", "note"],
)
def test_the_harness_notices(
    change: Callable[[Path], None],
    item: str,
    killed: tuple[Path, Harness],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot = module("harness.snapshot", monkeypatch)
    study = tmp_path / "study"
    shutil.copytree(killed[0], study)
    before = snapshot.take_snapshot(study)
    change(study)
    assert [difference.item for difference in snapshot.differences(before, snapshot.take_snapshot(study))] == [item]


def test_the_harness_notices_a_password(password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    databases = module("harness.databases", monkeypatch)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights.pt").write_bytes(b"\0\xff" + 2 * f"u:{password}@".encode())
    assert databases.passwords_found(tmp_path, "nothing") == 2
    assert databases.passwords_found(tmp_path, f"u:{password}@") == 3
