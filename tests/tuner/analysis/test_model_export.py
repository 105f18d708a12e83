"""What the metadata of exported models say, and that a model that reads differently is not exported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from search_spaces import ConfigurationError, TrainingConfig, config_digest
from search_spaces.training_config import config_from_settings
from tuner.analysis import model_export
from tuner.analysis.model_export import export_model
from tuner.data.generation.dataset import generate_dataset
from tuner.data.pixel_cache import open_pixel_cache
from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.inference.onnx_graph import export_graph


@pytest.fixture(scope="module")
def checkpoint(tiny_dataset, tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    experiment = {
        "model": {"name": "tiny", "config_path": str(tiny_models)},
        "data": {"metadata_path": str(tiny_dataset)},
        "training": {"device": "cpu", "num_epochs": 2, "batch_size": 8, "use_tensorboard": False},
    }
    (folder / "one.yaml").write_text(json.dumps({"experiments": {"one": experiment}}))
    options = RunOptions(output_dir=folder / "out", results_file=str(folder / "results.json"))
    HyperparameterTuner(str(folder / "one.yaml"), options=options).run_experiments()
    return folder / "out" / "one" / "checkpoints" / "best.pt"


@pytest.fixture
def reader(checkpoint):
    return reader_of_checkpoint(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def graph(checkpoint):
    return export_graph(reader_of_checkpoint(checkpoint, device="cpu").model)


@pytest.fixture(autouse=True)
def _exported_once(graph, monkeypatch):
    def copy(network):
        model = onnx.ModelProto()
        model.CopyFrom(graph)
        return model

    monkeypatch.setattr(model_export, "export_graph", copy)


def test_metadata_describe_model_training_and_comparison(reader, tiny_dataset):
    origin = {"study": "ខ្មែរ <script>", "trial": "one", "license": "CC-BY-4.0"}
    content, comparison = export_model(reader, str(tiny_dataset), origin)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    metadata = {item.key: item.value for item in model.metadata_props}
    assert (metadata["study"], metadata["trial"], metadata["license"]) == ("ខ្មែរ <script>", "one", "CC-BY-4.0")
    assert json.loads(metadata["characters"]) == list(reader.vocabulary.characters)
    assert json.loads(metadata["special_classes"]) == {"eos": 10, "pad": 11, "blank": 12}
    assert json.loads(metadata["image_size"]) == {"height": 64, "width": 128}
    settings = json.loads(metadata["settings"])
    assert config_digest(config_from_settings(settings)) == metadata["settings_digest"] == config_digest(reader.config)
    assert not {"metadata_path", "output_dir", "model_config_path"} & {*settings}
    assert {"batch_size", "learning_rate", "num_epochs", "seed"} <= {*settings} <= {*vars(TrainingConfig())}
    assert json.loads(metadata["metrics"])["val_char_accuracy"] == reader.metrics["val_char_accuracy"]
    assert {"python", "torch", "onnx", "onnxruntime"} <= {*json.loads(metadata["versions"])}
    assert json.loads(metadata["comparison"]) == comparison
    assert (comparison["images"], comparison["largest_confidence_difference"] < 2e-5) == (8, True)
    assert "PyTorch and ONNX Runtime read all 8 validation images identically" in comparison["text"]
    assert str(tiny_dataset.parent).encode() not in content


def test_example_in_the_description_reads_an_image(reader, tiny_dataset, tmp_path, monkeypatch):
    image = open_pixel_cache(tiny_dataset, ["val"])["val"].image_paths[0]
    monkeypatch.chdir(tmp_path)
    Path("reader.onnx").write_bytes(export_model(reader, str(tiny_dataset), {})[0])
    Path("image.png").write_bytes(Path(image).read_bytes())
    text = "from onnxruntime import InferenceSession as S; print(S('reader.onnx').get_modelmeta().description)"
    description = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    example = "\n".join(line[2:] for line in description.splitlines() if line.startswith("  "))
    printed = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True).stdout
    (expected,) = reader.read(image)
    assert printed.split()[:-1] == expected.text.split()
    assert float(printed.split()[-1]) == pytest.approx(expected.confidence, abs=1e-5)


def test_same_export_gives_the_same_bytes(reader, tiny_dataset):
    first, _ = export_model(reader, str(tiny_dataset), {})
    assert export_model(reader, str(tiny_dataset), {})[0] == first


def test_model_with_another_reading_is_not_exported(reader, graph, tiny_dataset, monkeypatch):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    (bias,) = (tensor for tensor in wrong.graph.initializer if tensor.name.endswith("character.bias"))
    values = onnx.numpy_helper.to_array(bias) + np.eye(1, 10, 5, dtype=np.float32)[0] * 100
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    monkeypatch.setattr(model_export, "export_graph", lambda network: wrong)
    image = open_pixel_cache(tiny_dataset, ["val"])["val"].image_paths[0]
    with pytest.raises(ConfigurationError, match="reads 8 of 8 validation images differently than PyTorch") as caught:
        export_model(reader, str(tiny_dataset), {})
    assert image in str(caught.value)
    assert "nothing was written" in str(caught.value)


def test_dataset_with_other_images_is_refused(reader, tmp_path):
    other = generate_dataset(tmp_path / "other", seed=1, samples=40, test_samples=10)
    with pytest.raises(ConfigurationError, match="split 'val' has other images than the validation split"):
        export_model(reader, str(other), {})
