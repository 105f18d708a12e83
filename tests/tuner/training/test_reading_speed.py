"""The speed at which a trained model reads images."""

import time
from dataclasses import replace

import pytest
import torch

from tuner.data.batches import validation_batches
from tuner.data.pixel_cache import open_pixel_cache
from tuner.training import loop
from tuner.training.training_state import TrainingState


@pytest.fixture
def val(tiny_dataset):
    """Fewer than 64 validation images."""
    return validation_batches(open_pixel_cache(tiny_dataset, ["val"])["val"], torch.device("cpu"))


@pytest.mark.parametrize("kind", ["tiny", "tiny_ctc"])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_batches_of_any_size_are_timed_until_the_limit(batch_size, kind, tiny_config, val):
    loss = "ctc" if kind == "tiny_ctc" else "crossentropy"
    training = TrainingState.create(tiny_config(model_name=kind, loss_type=loss), steps_per_epoch=4)
    sizes = []
    training.ema.module.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    state, started = torch.get_rng_state(), time.perf_counter()
    speed = training.reading_images_per_s(val, batch_size, 0.1)
    assert time.perf_counter() - started < 0.5
    assert set(sizes) == {batch_size}
    assert len(sizes) > 2
    assert speed is not None
    assert speed > len(sizes) * batch_size / 1.0
    assert torch.equal(torch.get_rng_state(), state)


def test_fastest_pass_after_the_warm_up_counts(tiny_config, val, monkeypatch):
    training = TrainingState.create(tiny_config(), steps_per_epoch=4)
    # The limit, the durations of the passes (1, 8, 4 and 5 s) and the checks of the limit.
    times = iter([0.0, 0.0, 1.0, 1.0, 9.0, 9.0, 9.0, 13.0, 13.0, 13.0, 18.0, 18.0])
    monkeypatch.setattr("tuner.training.training_state.time.perf_counter", lambda: next(times))
    assert training.reading_images_per_s(val, 64, 20.0) == 64 / 4


def test_speed_is_unknown_if_memory_does_not_suffice(tiny_config, val, monkeypatch):
    training = TrainingState.create(tiny_config(), steps_per_epoch=4)
    training.micro_batch_size = 32
    assert training.reading_images_per_s(val, 1, 0.0)
    assert training.reading_images_per_s(val, 64, 0.0) is None
    training.micro_batch_size = None

    def exhaust(module, inputs):
        raise MemoryError

    training.ema.module.register_forward_pre_hook(exhaust)
    assert training.reading_images_per_s(val, 1, 0.0) is None


def test_training_measures_its_best_epoch(tiny_config, run, tmp_path):
    best = run(tiny_config(num_epochs=2), tmp_path).best
    assert best.checkpoint_bytes == (tmp_path / "checkpoints" / "best.pt").stat().st_size
    assert best.images_per_s_batch_1 is not None
    assert best.images_per_s_batch_64 is not None
    assert 0 < best.images_per_s_batch_1 < best.images_per_s_batch_64


def test_equal_trainings_have_checkpoints_of_equal_size(tiny_config, run, tmp_path):
    sizes = {run(tiny_config(num_epochs=2), tmp_path / name).best.checkpoint_bytes for name in ("a", "b")}
    assert len(sizes) == 1


@pytest.mark.parametrize(("epoch_seconds", "seconds"), [(10.0, 0.1), (1000.0, 0.5)])
def test_measurement_takes_one_percent_of_the_training_time_and_at_most_one_second(
    epoch_seconds, seconds, tiny_config, run, tmp_path, monkeypatch
):
    def take_time(*arguments):
        metrics, score = run_epoch(*arguments)
        return replace(metrics, epoch_seconds=epoch_seconds), score

    run_epoch, limits = loop.run_epoch, list[tuple[int, float]]()
    monkeypatch.setattr(loop, "run_epoch", take_time)
    monkeypatch.setattr(TrainingState, "reading_images_per_s", lambda training, val, *limit: limits.append(limit))
    result = run(tiny_config(num_epochs=2), tmp_path)
    assert limits == [(1, pytest.approx(seconds)), (64, pytest.approx(seconds))]
    assert (result.best.images_per_s_batch_1, result.best.images_per_s_batch_64) == (None, None)
