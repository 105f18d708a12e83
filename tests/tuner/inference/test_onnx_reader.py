import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from search_spaces import ConfigurationError
from tuner import load_reader
from tuner.inference import onnx_reader
from tuner.inference.onnx_reader import OnnxReader, reader_of_onnx, with_digest
from tuner.inference.reader import evaluate_split

SCRIPTS = Path(__file__).parents[3] / "scripts"


def test_exported_model_reads_files_like_its_checkpoint(readers, exported, val):
    reader = load_reader(exported("ctc"))
    assert isinstance(reader, OnnxReader)
    paths = [*val.image_paths * 5, "missing.png"]
    for found, expected in zip(reader.read(paths), readers["ctc"].read(paths), strict=True):
        assert (found.path, found.text, found.problem) == (expected.path, expected.text, expected.problem)
        assert found.confidence == pytest.approx(expected.confidence, abs=1e-5)
        assert len(found.flags) == len(expected.flags)
    original, copied = readers["ctc"].ood_detector, reader.ood_detector
    assert {name: np.asarray(value).tolist() for name, value in vars(copied).items() if name != "vocabulary"} == {
        name: np.asarray(value).tolist() for name, value in vars(original).items() if name != "vocabulary"
    }
    assert copied.vocabulary == original.vocabulary


def test_exported_model_has_the_accuracies_of_its_checkpoint(readers, exported, tiny_dataset):
    expected = evaluate_split(readers["ctc"], tiny_dataset, "test")
    found = evaluate_split(reader_of_onnx(exported("ctc")), tiny_dataset, "test")
    assert found.loss is None
    assert (found.char_accuracy, found.seq_accuracy) == (expected.char_accuracy, expected.seq_accuracy)
    assert (found.by_length, found.by_font) == (expected.by_length, expected.by_font)
    assert (found.confusion == expected.confusion).all()


def foreign(content):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "foreign", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, ir_version=10).SerializeToString()
    return model


def with_metadata(**changes):
    """Return a function that replaces metadata of a model and signs it again."""

    def change(content):
        model = onnx.load_model_from_string(content)
        del model.metadata_props[-1]
        for item in model.metadata_props:
            item.value = changes.get(item.key, item.value)
        model.model_version = int(changes.get("version", "1"))
        return with_digest(model.SerializeToString())

    return change


def with_external_data(content):
    """Move the first weights to another file, as a crafted model could refer to any file of the machine."""
    model = onnx.load_model_from_string(content)
    del model.metadata_props[-1]
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    Path("weights.bin").write_bytes(weights.raw_data)
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    weights.ClearField("raw_data")
    return with_digest(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: b"", "SHA-256 is missing or wrong"),
        (lambda content: b"not a model", "SHA-256 is missing or wrong"),
        (lambda content: content[:1000], "SHA-256 is missing or wrong"),
        (lambda content: content[:-1], "SHA-256 is missing or wrong"),
        (lambda content: content + b"\0", "SHA-256 is missing or wrong"),
        (foreign, "SHA-256 is missing or wrong"),
        (lambda content: with_digest(foreign(content)), r"its format is not version 1"),
        (lambda content: with_digest(b"not a model"), "cannot be used"),
        (with_external_data, "cannot be used"),
        (with_metadata(version="2"), "its format is not version 1"),
        (with_metadata(characters="[]"), "cannot be used"),
        (with_metadata(characters='["a", "b"]'), "describe another vocabulary"),
        (with_metadata(max_length="4"), "describe another vocabulary"),
        (with_metadata(distortions="[]"), "cannot be used"),
        (with_metadata(out_of_distribution="{}"), "cannot be used"),
    ],
)
def test_damaged_or_foreign_file_is_refused_in_one_line(change, problem, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(change(exported("ctc").read_bytes()))
    with pytest.raises(ConfigurationError, match=f"model model.onnx: .*{problem}.*export-model") as caught:
        load_reader("model.onnx")
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_found(exported):
    content = exported("ctc").read_bytes()
    for position in np.random.default_rng(0).integers(0, len(content), 100):
        flipped = bytearray(content)
        flipped[position] ^= 1
        with pytest.raises(ValueError, match="SHA-256"):
            OnnxReader(bytes(flipped))


def test_missing_folder_or_large_file_is_refused(exported, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"model nothing.onnx: there is no such file; use a file"):
        load_reader("nothing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigurationError, match="it is a folder"):
        load_reader(tmp_path / "folder.onnx")
    monkeypatch.setattr(onnx_reader, "MAX_MODEL_BYTES", 1000)
    with pytest.raises(ConfigurationError, match="expected at most 1,000"):
        load_reader(exported("ctc"))


def test_other_device_and_missing_package_are_refused(exported, monkeypatch):
    with pytest.raises(ConfigurationError, match="exported models are read on the CPU"):
        load_reader(exported("ctc"), device="cuda")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match="'onnxruntime' is missing; install it: pip install onnxruntime"):
        load_reader(exported("ctc"))


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_commands_read_an_exported_model_without_pytorch(command, exported, tiny_dataset, val):
    argv = {"predict": [val.image_paths[0]], "evaluate": ["--metadata", str(tiny_dataset)]}[command]
    code = "import sys; from tuner.__main__ import main; code = main(sys.argv[1:]); print('torch' in sys.modules, code)"
    command_line = [sys.executable, "-c", code, command, "--checkpoint", str(exported("ctc")), *argv]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
    assert done.stderr in ("", f"model: {exported('ctc')}\n")
