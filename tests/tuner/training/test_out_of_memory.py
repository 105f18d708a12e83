import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import Vocabulary
from tuner.inference.out_of_distribution import OODDetector
from tuner.training import device as memory
from tuner.training.checkpoints import load_checkpoint
from tuner.training.device import MemoryExhaustedError, is_out_of_memory
from tuner.training.epoch import train_step
from tuner.training.training_state import TrainingState

# Trains two epochs in batches of 512 with the address space limited to its current use plus `spare` bytes.
LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from search_spaces import TrainingConfig
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.training.loop import train

torch.set_num_threads(1)
metadata, folder, spare = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
config = TrainingConfig(
    model_name="small", batch_size=512, num_epochs=2, device="cpu", use_tensorboard=False, metadata_path=metadata
)
cache = open_pixel_cache(metadata, ["train", "val"])
passes = []

def limit(done, total):
    if not passes:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
    passes.append((done, total))

result = train(config, TrainingData.of(config, cache, torch.device("cpu")), folder, on_batch=limit)
print(json.dumps([result.why_ended, len(result.history), result.micro_batch_size]))
"""

# Counts the page faults of ten tensors of 48 MB, 11,718 pages each, which the kernel clears each time by default.
FAULTS = """
import json, resource, torch
from tuner.training.device import keep_freed_memory

def faults():
    torch.ones(12_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
keep_freed_memory()
print(json.dumps([by_default, faults()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, as Linux does")
def test_epoch_that_runs_out_of_memory_is_repeated_with_smaller_micro_batches(tmp_path):
    generate = [sys.executable, "-m", "tuner", "data", "--samples", "1280", "--test-samples", "10"]
    subprocess.run([*generate, "--out", str(tmp_path / "data")], check=True, capture_output=True)
    # In this process, because building the cache fragments freed memory, and oneDNN does not recover from a failure.
    open_pixel_cache(tmp_path / "data" / "metadata.yaml", ["train", "val"])
    arguments = [str(tmp_path / "data" / "metadata.yaml"), str(tmp_path / "one"), str(500 << 20)]
    ended = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    why_ended, epochs, micro_batch_size = json.loads(ended.stdout)
    assert (why_ended, epochs) == ("max_epochs", 2)
    assert micro_batch_size in (32, 64, 128, 256)
    state = load_checkpoint(tmp_path / "one" / "checkpoints" / "last.pt")
    assert state["micro_batch_size"] == micro_batch_size
    # The same number of optimizer steps as without a limit, two per epoch: discarded attempts do not count.
    assert {int(of["step"]) for of in state["optimizer"]["state"].values()} == {4}


@pytest.mark.parametrize("kind", ["tiny", "tiny_ctc"])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_micro_batches_add_up_to_the_gradient_of_their_batch(kind, micro_batch_size, tiny_config, tiny_dataset):
    config = tiny_config(model_name=kind, loss_type="ctc" if kind == "tiny_ctc" else "crossentropy")
    data = TrainingData.of(config, open_pixel_cache(tiny_dataset, ["train", "val"]), torch.device("cpu"))
    batch = next(data.train.epoch(1))
    gradients, losses, scores = [], [], []
    for size in (None, micro_batch_size):
        training = TrainingState.create(config, steps_per_epoch=4)
        training.micro_batch_size = size
        training.model.eval()  # in training mode, batch normalisation sees one micro-batch at a time
        loss, score = train_step(training, batch)
        losses.append(loss)
        scores.append(score)
        assert all(flat.grad is not None for flat in training.weights.values)
        gradients.append(torch.cat([flat.grad for flat in training.weights.values if flat.grad is not None]))
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(*gradients, atol=1e-6)


def test_memory_reserve_is_released_when_memory_runs_out(tiny_config, run, tmp_path, caplog):
    reserved = []

    def fail_once(done, total):
        reserved.append(bool(memory._reserve))
        if len(reserved) == 2:
            raise MemoryError  # the error of Python and NumPy

    assert run(tiny_config(num_epochs=1, batch_size=8), tmp_path, on_batch=fail_once).micro_batch_size == 4
    assert reserved[:2] == [True, True]
    assert not any(reserved[2:])
    assert "not enough memory for a micro-batch of 8 images: MemoryError" in caplog.text


def test_resumed_training_keeps_the_smaller_micro_batches(tiny_config, run, tmp_path):
    def stop(metrics, early_stopping):
        raise KeyboardInterrupt

    def failing_once():
        failures = iter([MemoryError])

        def fail(done, total):
            if (error := next(failures, None)) is not None:
                raise error

        return fail

    config = tiny_config(num_epochs=3, batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, on_batch=failing_once(), on_epoch_end=stop)
    uninterrupted = run(config, tmp_path / "uninterrupted", on_batch=failing_once())
    resumed = run(config, tmp_path)
    assert resumed.micro_batch_size == 4
    assert [epoch.train_loss for epoch in resumed.history] == [epoch.train_loss for epoch in uninterrupted.history]


def test_training_fails_if_memory_does_not_suffice_for_one_image(tiny_config, run, tmp_path, monkeypatch):
    def allocate_too_much(*_):
        return torch.empty(1 << 50)

    monkeypatch.setattr("tuner.models.network.normalise", allocate_too_much)
    with pytest.raises(MemoryExhaustedError, match=r"not enough memory for a micro-batch of 1 image: .*allocate"):
        run(tiny_config(num_epochs=1, batch_size=8), tmp_path)


def test_out_of_memory_in_test_time_augmentation_keeps_the_trained_network(
    tiny_config, run, tmp_path, monkeypatch, caplog
):
    def allocate_too_much(*_):
        return torch.empty(1 << 50)

    monkeypatch.setattr("tuner.models.network.OCRNetwork.tta_confidence", allocate_too_much)
    result = run(tiny_config(num_epochs=1, batch_size=8), tmp_path)
    assert (result.why_ended, len(result.history)) == ("max_epochs", 1)
    assert "best.pt has no test-time augmentation confidence" in caplog.text
    validation = load_checkpoint(tmp_path / "checkpoints" / "best.pt")["validation"]
    assert "tta_confidence" not in validation
    assert not OODDetector.of(validation, Vocabulary()).is_complete


def error_of(allocate):
    try:
        allocate()
    except Exception as error:
        return error
    raise AssertionError("the allocation succeeded")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lambda: error_of(lambda: torch.empty(1 << 60)), True),
        (lambda: error_of(lambda: bytearray(1 << 60)), True),
        (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (lambda: RuntimeError("could not create a primitive"), True),
        (lambda: RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"), True),
        (lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (lambda: RuntimeError("CUDA error: device-side assert triggered"), False),
        (lambda: MemoryExhaustedError(1, "so\nmuch"), True),
        (lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (lambda: ValueError("DefaultCPUAllocator"), False),
        (lambda: OSError(28, os.strerror(28)), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error, expected):
    assert is_out_of_memory(error()) is expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_tensor_memory_is_reused():
    # In a separate process, because earlier allocations affect the count.
    counted = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    by_default, kept = json.loads(counted.stdout)
    assert kept < by_default / 10
