"""The number of threads that training uses and reports; the number affects the last decimals of the weights."""

import subprocess
import sys

import pytest
import torch

from tuner.training.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_training_uses_the_configured_threads_or_those_of_the_process(tiny_config, run, interrupt, tmp_path):
    seen = []

    def record(done, total):
        seen.append(torch.get_num_threads())

    given = run(tiny_config(num_epochs=1, threads=1), tmp_path / "given", on_batch=record)
    assert (set(seen), given.threads, torch.get_num_threads()) == ({1}, 1, 2)
    assert run(tiny_config(num_epochs=1), tmp_path / "process").threads == 2
    interrupt(tiny_config(num_epochs=1, threads=1), tmp_path / "interrupted", after_epoch=1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("after_epoch", "is_known"), [(1, True), (1, False), (2, False)])
def test_no_threads_are_reported_if_they_changed_or_are_unknown(
    after_epoch, is_known, tiny_config, run, interrupt, tmp_path
):
    interrupt(tiny_config(), tmp_path, after_epoch=after_epoch)
    if is_known:
        torch.set_num_threads(1)
    else:  # a checkpoint of an earlier version
        path = tmp_path / "checkpoints" / "last.pt"
        state = load_checkpoint(path)
        del state["threads"]
        save_checkpoint(path, state)
    result = run(tiny_config(), tmp_path)
    assert (len(result.history), result.threads) == (2, None)  # `run` would reject 0 in best.yaml


@pytest.mark.parametrize(
    ("variables", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_idle_threads_spin_briefly_unless_the_user_sets_openmp_variables(variables, spins, environment):
    settings = {name: value for name, value in environment.items() if not name.startswith(("OMP_", "GOMP_"))}
    program = "import os, sys, tuner; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", program], env=settings | variables, capture_output=True, text=True)
    assert done.stdout.strip() == str(spins), done.stderr
