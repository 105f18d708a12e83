from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from search_spaces import TrainingConfig
from tuner.training import plot_updates
from tuner.training.checkpoints import load_checkpoint, save_checkpoint
from tuner.training.history import TrainingResult
from tuner.training.plots import Plots

MakeConfig = Callable[..., TrainingConfig]
Run = Callable[..., TrainingResult]

ALL = {"learning_curves.png", "confusion_matrix.png", "worst_readings.png"}


def test_plots_are_drawn_when_the_training_ends(tiny_config: MakeConfig, run: Run, tmp_path: Path) -> None:
    shown: list[Plots] = []
    run(tiny_config(num_epochs=2), tmp_path, on_plots=shown.append)
    (plots,) = shown
    assert plots.keys() == ALL
    for content in plots.values():
        assert Image.open(io.BytesIO(content)).format == "PNG"


def test_plots_are_updated_after_each_epoch_if_the_time_limit_allows(
    tiny_config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot_updates, "_FRACTION", 1e9)
    shown: list[Plots] = []
    run(tiny_config(num_epochs=3), tmp_path, on_plots=shown.append)
    assert len(shown) == 4
    assert len({plots["learning_curves.png"] for plots in shown}) == 3  # the last two plot the same epochs


def test_interrupted_training_gives_the_same_plots(tiny_config: MakeConfig, run: Run, tmp_path: Path) -> None:
    def interrupt(metrics: object, early_stopping: object) -> None:
        raise KeyboardInterrupt

    shown: list[Plots] = []
    config = tiny_config(num_epochs=2)
    run(config, tmp_path / "one", on_plots=shown.append)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "two", on_epoch_end=interrupt, on_plots=shown.append)
    run(config, tmp_path / "two", on_plots=shown.append)
    assert len(shown) == 2
    assert shown[0] == shown[1]


def test_training_run_that_diverges_in_its_first_epoch_has_no_plots(
    tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    shown: list[Plots] = []
    result = run(
        tiny_config(learning_rate=1e30, warmup_epochs=0, gradient_clip_norm=0.0), tmp_path, on_plots=shown.append
    )
    assert result.why_ended == "nonfinite_loss"
    assert shown == [{}]


def test_best_checkpoint_without_readings_does_not_stop_the_training(
    tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    config = tiny_config(num_epochs=2)
    run(config, tmp_path)
    best = tmp_path / "checkpoints" / "best.pt"
    state = load_checkpoint(best)
    del state["validation"]
    save_checkpoint(best, state)
    shown: list[Plots] = []
    assert run(config, tmp_path, on_plots=shown.append).why_ended == "max_epochs"
    assert shown == [{}]


def test_damaged_best_checkpoint_leaves_only_the_learning_curves(
    tiny_config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    config = tiny_config(num_epochs=2)
    run(config, tmp_path)
    best = tmp_path / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:-100])
    shown: list[Plots] = []
    run(config, tmp_path, on_plots=shown.append)
    assert [plots.keys() for plots in shown] == [{"learning_curves.png"}]
