"""A tiny dataset and tiny networks, with which a training run takes a second, and configurations that use both."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml

from search_spaces import TrainingConfig
from tuner.data.generation.dataset import generate_dataset
from tuner.display.events import Display

TINY = {
    "decoder": "attention",
    "stem_channels": [4, 8],
    "stage_channels": [8],
    "blocks_per_stage": 0,
    "width": 16,
    "context_layers": 0,
}
SPACE = {
    "model_name": ["tiny", "tiny_ctc"],
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "batch_size": {"low": 8, "high": 16, "step": 8},
    "loss_type": {"choices": ["crossentropy", "focal"], "when": {"model_name": "tiny"}},
    "scheduler_type": ["cosine", "steplr"],
    "warmup_epochs": {"low": 0, "high": 1, "when": {"scheduler_type": "cosine"}},
}


def interrupt():
    raise KeyboardInterrupt


class Watcher(Display):
    """A display that records the events of a run and performs an action once, after an epoch or in a batch.

    Attributes:
        planned_trials: Names of the trials that the run planned at its start.
        started: Name and number of each started trial, and whether the trial was resumed.
        configs: Configurations of the started trials, keyed by name.
        epochs: Trial number and epoch of each finished epoch.
        finished: Names of the finished trials.
        interrupted: Numbers of the interrupted trials.
        lost: Numbers of the trials whose worker was killed.
        notes: Texts of the notes.
        images: Progress of the dataset generator: generated images and their total, for each event.
    """

    def __init__(self, *, in_batch=0, after_epoch=0, of_trial=None, action=interrupt):
        """Set the action and its time.

        Args:
            in_batch: Act at this `batch` event, counted over all trials; an epoch of N batches has N + 1 events.
            after_epoch: Act after this epoch of a trial.
            of_trial: Number of the trial for `after_epoch`; None for the first trial that reaches the epoch.
            action: The action; a KeyboardInterrupt by default.
        """
        self.planned_trials = []
        self.started = []
        self.configs = {}
        self.epochs = []
        self.finished = []
        self.interrupted = []
        self.lost = []
        self.notes = []
        self.images = []
        self._batches_until_action = in_batch
        self._after_epoch = after_epoch
        self._of_trial = of_trial
        self._action = action

    def note(self, text):
        self.notes.append(text)

    def dataset_progress(self, done, total):
        self.images.append((done, total))

    def run_started(self, planned_trials, finished):
        self.planned_trials = list(planned_trials)

    def trial_started(self, number, name, config, *, resumed):
        self.started.append((name, number, resumed))
        self.configs[name] = config

    def batch(self, number, done, total):
        self._batches_until_action -= 1
        if self._batches_until_action == 0:
            self._action()

    def epoch_ended(self, number, metrics, signal):
        self.epochs.append((number, metrics.epoch))
        if metrics.epoch == self._after_epoch and self._of_trial in (None, number):
            self._after_epoch = 0
            self._action()

    def trial_ended(self, record):
        self.finished.append(record.experiment_name)

    def trial_interrupted(self, number):
        self.interrupted.append(number)

    def worker_lost(self, number):
        self.lost.append(number)


@pytest.fixture(scope="session")
def make_watcher():
    """Make a display that records the events of a run."""
    return Watcher


@pytest.fixture(scope="session")
def fail():
    """Return a function that raises an error of the trial itself, as `action` of `make_watcher`."""

    def raise_error():
        raise RuntimeError("simulated error")

    return raise_error


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Use one thread: more threads do not speed up tiny networks, and slow them down on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """Return the metadata file of 32 training, 8 validation and 10 test images; read-only."""
    folder = tmp_path_factory.mktemp("tiny_dataset") / "generated_data"
    return generate_dataset(folder, samples=40, test_samples=10)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Return a model definitions file with the networks `tiny` and `tiny_ctc`; read-only."""
    path = tmp_path_factory.mktemp("tiny_models") / "tiny_models.yaml"
    path.write_text(yaml.safe_dump({"models": {"tiny": TINY, "tiny_ctc": TINY | {"decoder": "ctc"}}}))
    return path


@pytest.fixture(scope="session")
def configs_in(tiny_dataset, tiny_models):
    """Make a `write_config` function for a folder."""
    base = {
        "model": {"name": "tiny", "config_path": str(tiny_models)},
        "data": {"metadata_path": str(tiny_dataset)},
        "training": {"device": "cpu", "batch_size": 8, "num_epochs": 2, "use_tensorboard": False},
    }

    def writer(folder):
        def write(experiments, *, file_name="experiments.yaml", **top):
            merged = {
                name: {**sections, **{key: values | dict(sections.get(key, {})) for key, values in base.items()}}
                for name, sections in experiments.items()
            }
            path = folder / file_name
            text = yaml.safe_dump({"experiments": merged, **top}, sort_keys=False, allow_unicode=True)
            path.write_text(text, encoding="utf-8")
            return path

        return write

    return writer


@pytest.fixture(scope="session")
def spaces_in():
    """Make a `write_space` function for a folder."""

    def writer(folder):
        def write(*, file_name="space.yaml", base=None, **parameters):
            space = {name: entry for name, entry in (SPACE | parameters).items() if entry is not None}
            content = {"base": {"num_epochs": 2} | dict(base or {}), "space": space}
            path = folder / file_name
            path.write_text(yaml.safe_dump(content, sort_keys=False))
            return path

        return write

    return writer


@pytest.fixture
def write_config(tmp_path, configs_in):
    """Write an experiments file and return its path.

    Each experiment, a mapping of sections, trains the network `tiny` on the tiny dataset for two epochs on the CPU by
    default; keyword arguments are further top-level keys, for example ``targets``.
    """
    return configs_in(tmp_path)


@pytest.fixture
def write_space(tmp_path, spaces_in):
    """Write a search space over the tiny networks and return its path; its trials train for two epochs.

    Keyword arguments other than `base` replace default parameters; None removes one.
    """
    return spaces_in(tmp_path)


@pytest.fixture(scope="session")
def tiny_config(tiny_dataset, tiny_models):
    """Make the configuration of a short training run of `tiny`; keyword arguments replace fields."""
    base = TrainingConfig(
        model_name="tiny",
        model_config_path=str(tiny_models),
        metadata_path=str(tiny_dataset),
        device="cpu",
        batch_size=8,
        num_epochs=2,
        learning_rate=0.003,
        use_tensorboard=False,
    )

    def make(**changes):
        return replace(base, **changes)

    return make


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Change to an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def read_results():
    """Read a results file as strict JSON and validate it against the schema of the API reference."""
    schema = json.loads((Path(__file__).parents[1] / "studies" / "export" / "results_schema.json").read_text())

    def read(path):
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
        jsonschema.validate(results, schema)
        return results

    return read


@pytest.fixture(autouse=True)
def _random_state_restored():
    """Restore PyTorch's global random state, which training runs seed, so that tests stay independent."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
