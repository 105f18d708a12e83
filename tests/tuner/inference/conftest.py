"""Fixtures with trained models: their checkpoints, and the same models exported as ONNX files."""

from functools import cache

import pytest
import yaml

from tuner.analysis.model_export import export_model
from tuner.data.pixel_cache import open_pixel_cache
from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions
from tuner.inference.checkpoint_reader import reader_of_checkpoint

KINDS = ["attention", "ctc"]


@pytest.fixture(scope="session")
def output_dir(tiny_dataset, tiny_models, tmp_path_factory):
    """The output folder of a finished study with an attention and a CTC model; tests must not change it."""
    folder = tmp_path_factory.mktemp("study")
    training = {"device": "cpu", "num_epochs": 3, "batch_size": 16, "learning_rate": 0.02, "use_tensorboard": False}
    experiments = {
        kind: {
            "model": {"name": model, "config_path": str(tiny_models)},
            "data": {"metadata_path": str(tiny_dataset), "augmentation": False},
            "training": training | {"loss_type": loss},
        }
        for kind, model, loss in (("attention", "tiny", "crossentropy"), ("ctc", "tiny_ctc", "ctc"))
    }
    config = folder / "experiments.yaml"
    config.write_text(yaml.safe_dump({"experiments": experiments}))
    output_dir, results = folder / "training_output", folder / "results.json"
    HyperparameterTuner(
        str(config), options=RunOptions(output_dir=str(output_dir), results_file=str(results))
    ).run_experiments()
    return output_dir


@pytest.fixture(scope="session")
def checkpoints(output_dir):
    return {kind: output_dir / kind / "checkpoints" / "best.pt" for kind in KINDS}


@pytest.fixture(scope="session")
def readers(checkpoints):
    return {kind: reader_of_checkpoint(path, device="cpu") for kind, path in checkpoints.items()}


@pytest.fixture(scope="session")
def val(tiny_dataset):
    return open_pixel_cache(tiny_dataset, ["val"])["val"]


@pytest.fixture(scope="session")
def exported(readers, tiny_dataset, tmp_path_factory):
    """Return a function that returns the ONNX file of a model; tests must not change the file."""
    folder = tmp_path_factory.mktemp("exported")

    @cache  # an export takes seconds
    def export(kind):
        path = folder / f"{kind}.onnx"
        path.write_bytes(export_model(readers[kind], str(tiny_dataset), {"trial": kind})[0])
        return path

    return export
