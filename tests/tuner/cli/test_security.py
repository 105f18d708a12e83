"""Passwords that nobody may see, and links that lead out of the output folder, met by whole commands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CANARY = "c4n4ry"
URLS = {
    "a driver that may be missing": f"postgresql+psycopg://user:{CANARY}@127.0.0.1:1/db?connect_timeout=2",
    "among the options": f"postgresql+psycopg://127.0.0.1:1/db?user=u&password={CANARY}&connect_timeout=2",
    "an @ in it": f"postgresql+psycopg://user:a@{CANARY}@127.0.0.1:1/db",
    "blanks in it": f"postgresql+psycopg://user:my {CANARY} word@127.0.0.1:one/db",
    "no host": f"postgresql+psycopg://user:{CANARY}",
    "no scheme": f"user:{CANARY}@127.0.0.1/db",
    "one slash": f"postgresql:/user:{CANARY}@127.0.0.1/db",
    "another database": f"mysql://user:{CANARY}@127.0.0.1/db",
    "SQLite has none": f"sqlite://user:{CANARY}@/study.db",
}
COMMANDS: dict[str, list[str]] = {
    "run": ["run", "--config", "{config}"],
    "search": ["search", "--trials", "1"],
    "enqueue": ["enqueue", "--trials", "1"],
    "best": ["best", "--out", "best.yaml"],
    "predict": ["predict", "{config}"],
    **{
        name: [name]
        for name in ("resume", "worker", "stop", "status", "export", "report", "dashboard", "confirm", "clean")
    },
    "show": ["show", "0"],
}


@pytest.mark.parametrize("given", ["option", "variable"])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_shows_the_password_of_a_storage_that_cannot_be_used(
    words: list[str],
    given: str,
    cli: Any,
    run_study: Any,
    monkeypatch: pytest.MonkeyPatch,
    here: Path,
    tree: Callable[[Path], dict[str, float]],
) -> None:
    before = tree(run_study.folder)
    for case, url in URLS.items():
        if given == "variable":
            monkeypatch.setenv("KHMER_TUNER_STORAGE", url)
        option = ["--storage", url] if given == "option" else []
        words = [word.format(config=run_study.config) for word in words]
        done = cli(*words, "--output-dir", run_study.folder, "--debug", *option)
        assert done.code == 2, (case, done)
        assert CANARY not in done.out + done.err, case
        assert done.err
    assert tree(run_study.folder) == before
    assert list(here.iterdir()) == []


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder elsewhere with files that look like ours."""
    path = tmp_path / "outside"
    (path / "checkpoints").mkdir(parents=True)
    for name in ("precious", "metrics.jsonl", "study.db", "checkpoints/last.pt", "checkpoints/best.pt"):
        (path / name).write_text("precious")
    return path


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("ខ្មែរ", ""),
        ("ខ្មែរ/checkpoints", "checkpoints"),
        ("ខ្មែរ/metrics.jsonl", "metrics.jsonl"),
        ("ខ្មែរ/logs", "logs"),
        ("artifacts", ""),
        ("study.db", "study.db"),
        ("study.db", "new.db"),
        (".study", ""),
    ],
)
def test_a_run_through_a_link_that_leads_out_is_refused_and_works_once_it_is_gone(
    link: str,
    target: str,
    cli: Any,
    run_study: Any,
    outside: Path,
    here: Path,
    tree: Callable[[Path], dict[str, float]],
) -> None:
    planted = here / "out" / link
    planted.parent.mkdir(parents=True)
    planted.symlink_to(outside / target)
    before = tree(outside)
    run = ("run", "--config", run_study.config, "--output-dir", "out", "--experiments", "ខ្មែរ")
    refused = cli(*run)
    assert refused.code == 2
    assert f"{planted} is a link that leads out of it, to {outside / target}".rstrip("/") in refused.err
    assert "remove the link" in refused.err
    assert "Traceback" not in refused.err
    assert tree(outside) == before
    planted.unlink()
    assert cli(*run).code == 0
    assert tree(outside) == before


def test_no_checkpoint_is_removed_through_a_link(
    cli: Any, copy_of_the_study: Path, outside: Path, run_study: Any
) -> None:
    checkpoints = copy_of_the_study / "ខ្មែរ" / "checkpoints"
    shutil.rmtree(checkpoints)
    checkpoints.symlink_to(outside / "checkpoints")
    done = cli("resume", "--output-dir", copy_of_the_study)
    assert done.code in (0, 1)
    assert sorted(os.listdir(outside / "checkpoints")) == ["best.pt", "last.pt"]
