"""The number of threads that training uses and reports; the number affects the last decimals of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces import TrainingConfig
from tuner.training.checkpoints import load_checkpoint, save_checkpoint
from tuner.training.history import TrainingResult

MakeConfig = Callable[..., TrainingConfig]
Run = Callable[..., TrainingResult]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def stop(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_training_uses_the_configured_threads_or_those_of_the_process(
    tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    seen = []

    def record(done: int, total: int) -> None:
        seen.append(torch.get_num_threads())

    given = run(tiny_config(num_epochs=1, threads=1), tmp_path / "given", on_batch=record)
    assert (set(seen), given.threads, torch.get_num_threads()) == ({1}, 1, 2)
    assert run(tiny_config(num_epochs=1), tmp_path / "process").threads == 2
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(num_epochs=1, threads=1), tmp_path / "interrupted", on_epoch_end=stop)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("is_known", [True, False], ids=["other number", "checkpoint of an earlier version"])
def test_no_threads_are_reported_if_they_changed_or_are_unknown(
    is_known: bool, tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(), tmp_path, on_epoch_end=stop)
    if is_known:
        torch.set_num_threads(1)
    else:
        path = tmp_path / "checkpoints" / "last.pt"
        state: dict[str, Any] = load_checkpoint(path)
        del state["threads"]
        save_checkpoint(path, state)
    result = run(tiny_config(), tmp_path)
    assert (len(result.history), result.threads) == (2, None)


def test_finished_training_of_an_earlier_version_reports_no_threads(
    tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    run(tiny_config(), tmp_path)
    path = tmp_path / "checkpoints" / "last.pt"
    state: dict[str, Any] = load_checkpoint(path)
    del state["threads"]
    save_checkpoint(path, state)
    assert run(tiny_config(), tmp_path).threads is None  # `run` would reject 0 in best.yaml
