import io

from PIL import Image

from tuner.training import plots
from tuner.training.checkpoints import load_checkpoint, save_checkpoint

ALL = {"learning_curves.png", "confusion_matrix.png", "worst_readings.png"}


def test_plots_are_drawn_when_the_training_ends(tiny_config, run, tmp_path):
    shown = []
    run(tiny_config(num_epochs=2), tmp_path, on_plots=shown.append)
    (plots,) = shown
    assert plots.keys() == ALL
    for content in plots.values():
        assert Image.open(io.BytesIO(content)).format == "PNG"


def test_plots_are_updated_after_each_epoch_if_the_time_limit_allows(tiny_config, run, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "_FRACTION", 1e9)
    shown = []
    run(tiny_config(num_epochs=3), tmp_path, on_plots=shown.append)
    assert len(shown) == 4
    assert len({plots["learning_curves.png"] for plots in shown}) == 3  # the last two plot the same epochs


def test_interrupted_training_gives_the_same_plots(tiny_config, run, interrupt, tmp_path):
    shown = []
    config = tiny_config(num_epochs=2)
    run(config, tmp_path / "one", on_plots=shown.append)
    interrupt(config, tmp_path / "two", after_epoch=1, on_plots=shown.append)
    run(config, tmp_path / "two", on_plots=shown.append)
    assert len(shown) == 2
    assert shown[0] == shown[1]


def test_training_run_that_diverges_in_its_first_epoch_has_no_plots(tiny_config, run, tmp_path):
    shown = []
    result = run(
        tiny_config(learning_rate=1e30, warmup_epochs=0, gradient_clip_norm=0.0), tmp_path, on_plots=shown.append
    )
    assert result.why_ended == "nonfinite_loss"
    assert shown == [{}]


def test_best_checkpoint_without_readings_does_not_stop_the_training(tiny_config, run, tmp_path):
    config = tiny_config(num_epochs=2)
    run(config, tmp_path)
    best = tmp_path / "checkpoints" / "best.pt"
    state = load_checkpoint(best)
    del state["validation"]
    save_checkpoint(best, state)
    shown = []
    assert run(config, tmp_path, on_plots=shown.append).why_ended == "max_epochs"
    assert shown == [{}]


def test_damaged_best_checkpoint_leaves_only_the_learning_curves(tiny_config, run, tmp_path):
    config = tiny_config(num_epochs=2)
    run(config, tmp_path)
    best = tmp_path / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:-100])
    shown = []
    run(config, tmp_path, on_plots=shown.append)
    assert [plots.keys() for plots in shown] == [{"learning_curves.png"}]
