import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search_spaces import ConfigurationError, DataLoaderError
from studies import load_study
from tuner.analysis.best_trial import best_checkpoint, find_winner
from tuner.data.vocabulary import Vocabulary
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.inference.reader import evaluate_split
from tuner.models.decoders import CTCDecoder, MonotonicAttention
from tuner.training.checkpoints import load_checkpoint, save_checkpoint

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special

SCRIPTS = Path(__file__).parents[3] / "scripts"
KINDS = ["attention", "ctc"]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_gives_the_metrics_of_the_best_epoch(kind, readers, output_dir, tiny_dataset, checkpoints):
    lines = (output_dir / kind / "metrics.jsonl").read_text().splitlines()
    best = max((json.loads(line) for line in lines), key=lambda epoch: epoch["val_char_accuracy"])
    assert load_checkpoint(checkpoints[kind])["metrics"]["epoch"] == best["epoch"]
    evaluation = evaluate_split(readers[kind], tiny_dataset, "val")
    assert evaluation.samples == 8
    assert evaluation.char_accuracy == best["val_char_accuracy"]
    assert evaluation.seq_accuracy == best["val_seq_accuracy"]
    assert evaluation.loss == best["val_loss"]


def test_best_checkpoint_of_a_study_can_be_loaded_and_reads(output_dir, val):
    study = load_study(output_dir)
    name = find_winner(*study).name
    results = json.loads((output_dir.parent / "results.json").read_text())
    assert name == results["best_result"]["experiment_name"]
    reader = reader_of_checkpoint(best_checkpoint(*study), device="cpu")
    assert reader.config.experiment_name == name
    assert reader.read(val.image_paths[:1])[0].problem == ""


def test_accuracies_by_length_and_font_add_up(readers, tiny_dataset, val):
    evaluation = evaluate_split(readers["attention"], tiny_dataset, "val")
    assert list(evaluation.by_length) == sorted(set(val.lengths))
    assert list(evaluation.by_font) == sorted(val.font_names)
    for groups in (evaluation.by_length, evaluation.by_font):
        assert sum(group.samples for group in groups.values()) == 8
        correct = sum(group.seq_accuracy * group.samples for group in groups.values())
        assert correct == pytest.approx(evaluation.seq_accuracy * 8)
    characters = {length: group.samples * (length + 1) for length, group in evaluation.by_length.items()}
    correct = sum(group.char_accuracy * characters[length] for length, group in evaluation.by_length.items())
    assert correct == pytest.approx(evaluation.char_accuracy * sum(characters.values()))


def test_accuracies_by_length_only_count_images_of_that_length(val, tiny_dataset):
    longest = int(val.lengths.max())
    wrong = np.where(val.lengths == longest, 1, 0)

    class ReaderStub:
        """A model that reads every label correctly, except the last character of the longest labels."""

        vocabulary = VOCABULARY

        def score(self, split):
            labels = split.labels.astype(np.int64)
            last = np.arange(labels.shape[1]) == split.lengths[:, None] - 1
            return np.where(last & (wrong[:, None] == 1), (labels + 1) % 10, labels), 0.5

    evaluation = evaluate_split(ReaderStub(), tiny_dataset, "val")
    missed = int(wrong.sum())
    group = evaluation.by_length.pop(longest)
    assert (group.samples, group.seq_accuracy) == (missed, 0.0)
    assert group.char_accuracy == pytest.approx(longest / (longest + 1))
    assert {(group.char_accuracy, group.seq_accuracy) for group in evaluation.by_length.values()} == {(1.0, 1.0)}
    assert evaluation.seq_accuracy == pytest.approx((8 - missed) / 8)
    assert evaluation.confusion.trace() == val.lengths.sum() - missed
    last_digits = val.labels[np.arange(8), val.lengths - 1][wrong == 1]
    assert [evaluation.confusion[digit, (digit + 1) % 10] > 0 for digit in last_digits] == [True] * missed


def test_missing_dataset_or_split_is_an_error(readers, tiny_dataset):
    with pytest.raises(DataLoaderError, match="did you mean 'test'"):
        evaluate_split(readers["ctc"], tiny_dataset, "tests")
    with pytest.raises(DataLoaderError, match="does not exist"):
        evaluate_split(readers["ctc"], tiny_dataset.with_name("nothing.yaml"), "test")


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_like_the_cached_pixels(kind, readers, val):
    readings = readers[kind].read(val.image_paths)
    assert [str(reading.path) for reading in readings] == list(val.image_paths)
    rows, confidences, _ = readers[kind].read_pixels(val.images[:])
    assert [reading.confidence for reading in readings] == confidences.tolist()
    assert [reading.text for reading in readings] == [VOCABULARY.decode(row) for row in rows.tolist()]
    assert all(0 < reading.confidence <= 1 and reading.problem == "" for reading in readings)


def test_attention_confidence_is_the_product_over_digits_and_end():
    scores = torch.randn((6, 9, 13), generator=torch.Generator().manual_seed(0)) * 3
    scores[:3, 4, EOS] = 20.0  # half of them have an end mark
    decoder = MonotonicAttention(1, 9, 13)
    rows = decoder.read(scores)
    expected = []
    for image, row in enumerate(rows.tolist()):
        read = row[: row.index(EOS) + 1] if EOS in row else row
        probabilities = scores[image].softmax(-1)
        expected.append(np.prod([float(probabilities[position, symbol]) for position, symbol in enumerate(read)]))
    assert decoder.confidence(scores, rows).tolist() == pytest.approx(expected, rel=1e-4)


def test_ctc_confidence_is_the_sum_over_all_alignments():
    scores = torch.randn((1, 4, 13), generator=torch.Generator().manual_seed(0))
    probabilities = scores[0].softmax(-1)

    def collapsed(path):
        return [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]

    for digits in ([3, 3], [7], []):
        row = [*digits, EOS, *[PAD] * (8 - len(digits))]
        expected = sum(
            float(torch.stack([probabilities[step, symbol] for step, symbol in enumerate(path)]).prod())
            for path in itertools.product({*digits, BLANK}, repeat=4)
            if collapsed(path) == digits
        )
        assert float(CTCDecoder(1, 9, 13).confidence(scores, torch.tensor([row]))) == pytest.approx(expected, rel=1e-4)


def test_unreadable_images_have_a_problem_and_the_others_are_read(readers, val, tmp_path):
    good = Path(val.image_paths[0])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:2000])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    (tmp_path / "no_images").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(300 * 10**6)  # sparse
    problems = {
        "text.png": "none of the formats PNG, JPEG",
        "empty.png": "the file is empty",
        "half.png": "cannot be read as an image: ",
        "bomb.png": "more than 50 million pixels",
        "large.png": "more than 50 million pixels",
        "no_images": "contains no images",
        "pipe.png": "not a regular file",
        "long.png": "the file has 300,000,000 bytes",
        "missing.png": "there is no such file",
        "text.png/inside.png": "Not a directory",
        "nul\0.png": "cannot be read as an image: ",
    }
    paths = [path for name in problems for path in (tmp_path / name, good)]
    readings = readers["attention"].read(paths)
    assert [reading.path for reading in readings] == paths
    for reading, expected in zip(readings[::2], problems.values(), strict=True):
        assert expected in reading.problem
        assert (reading.text, reading.confidence) == ("", 0.0)
    assert {reading.problem for reading in readings[1::2]} == {""}
    assert len({(reading.text, round(reading.confidence, 5)) for reading in readings[1::2]}) == 1


def test_images_of_a_folder_are_read_sorted_by_name_and_other_files_are_skipped(readers, val, tmp_path):
    for name, path in zip(("b.PNG", "a.png", ".hidden.png"), val.image_paths, strict=False):
        shutil.copy(path, tmp_path / name)
    (tmp_path / "notes.txt").write_text("skipped")
    readings = readers["ctc"].read([str(tmp_path)])
    assert [reading.path.name for reading in readings] == ["a.png", "b.PNG"]
    assert not any(reading.problem for reading in readings)
    assert readers["ctc"].read([]) == []


def test_files_of_several_batches_keep_order(readers, val, tmp_path):
    names = [*val.image_paths, str(tmp_path / "missing.png")]
    readings = readers["attention"].read(names * 30)
    assert [str(reading.path) for reading in readings] == names * 30
    texts = [reading.text for reading in readings]
    assert texts == texts[: len(names)] * 30


@pytest.mark.parametrize("kind", KINDS)
def test_reading_with_a_tta_confidence_below_the_limit_is_flagged(kind, readers, checkpoints, val, tmp_path):
    _, confidence, tta_confidence = readers[kind].read_pixels(val.images[:])
    assert not np.allclose(confidence, tta_confidence, rtol=1e-3, atol=0)
    median = float(
        np.quantile(tta_confidence, 0.5, method="lower")
    )  # becomes the limit, since all validation readings get this confidence
    state = load_checkpoint(checkpoints[kind])
    validation = {name: values.repeat(50, *[1] * (values.dim() - 1)) for name, values in state["validation"].items()}
    validation["labels"] = validation["rows"].clone()
    validation["tta_confidence"] = torch.full((400,), median)
    save_checkpoint(tmp_path / "limit.pt", state | {"validation": validation})
    readings = reader_of_checkpoint(tmp_path / "limit.pt", device="cpu").read(val.image_paths)
    flagged = [any(flag.startswith("the reading is not stable") for flag in reading.flags) for reading in readings]
    assert flagged == (tta_confidence < median).tolist()
    assert 0 < sum(flagged) < len(flagged)


def test_aspect_ratio_flags_use_the_size_of_the_original_image(readers, val, tmp_path):
    for name, size in (("normal.png", (256, 128)), ("square.png", (128, 128)), ("wide.png", (400, 100))):
        Image.open(val.image_paths[0]).resize(size).save(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    Image.open(val.image_paths[0]).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.png", exif=exif)
    readings = readers["attention"].read([tmp_path])
    flags = {
        reading.path.stem: [flag for flag in reading.flags if flag.startswith("aspect ratio")] for reading in readings
    }
    assert flags == {
        "normal": [],
        "rotated": [],
        "square": ["aspect ratio 1.00 is outside 1.60 to 2.50"],
        "wide": ["aspect ratio 4.00 is outside 1.60 to 2.50"],
    }


def damaged(state, change):
    match change:
        case "no definition":
            del state["definition"]
        case "other sizes":
            state["definition"]["width"] = 24
        case "newer definition":
            state["definition"]["unknown_key"] = 1
        case "other weights":
            state["model"] = {"encoder.unknown": torch.zeros(2)}
        case "no model at all":
            return [1, 2, 3]
        case "config is a list":
            state["config"] = [1]
        case "unknown loss":
            state["config"]["loss_type"] = ["none"]
        case "weights of text":
            state["model"] = dict.fromkeys(state["model"], "text")
        case "statistics of another shape":
            state["validation"]["image_statistics"] = torch.zeros(3)
        case "not finite":
            next(iter(state["model"].values())).view(-1)[0] = float("nan")
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no definition", "it has no 'definition'"),
        ("other sizes", "size mismatch"),
        ("newer definition", "unknown_key"),
        ("other weights", "Missing key"),
        ("no model at all", "cannot be used"),
        ("config is a list", "cannot be used"),
        ("unknown loss", "cannot be used"),
        ("weights of text", "cannot be used"),
        ("statistics of another shape", "cannot be used"),
        ("not finite", "weights are not finite"),
    ],
)
def test_checkpoint_with_other_content_is_refused_in_one_line(change, message, checkpoints, tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, damaged(load_checkpoint(checkpoints["attention"]), change))
    with pytest.raises(ConfigurationError, match=message) as caught:
        reader_of_checkpoint(path, device="cpu")
    assert len(caught.value.problems) == 1
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_checkpoints_are_refused_in_one_line(checkpoints, tmp_path):
    content = checkpoints["attention"].read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(flipped)
    (tmp_path / "short.pt").write_bytes(content[:-100])
    (tmp_path / "tiny.pt").write_bytes(b"x")
    torch.save({"model": {}}, tmp_path / "other.pt")
    expected = {
        "flipped.pt": "SHA-256",
        "short.pt": "SHA-256",
        "tiny.pt": "SHA-256",
        "other.pt": "not written by khmer-tuner",
        "missing.pt": "there is no such file",
        ".": r"it cannot be used \(it is a folder\)",
    }
    for name, message in expected.items():
        with pytest.raises(ConfigurationError, match=message) as caught:
            reader_of_checkpoint(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_unavailable_cuda_device_is_refused(checkpoints):
    with pytest.raises(ConfigurationError, match="finds no CUDA device"):
        reader_of_checkpoint(checkpoints["ctc"], device="cuda")


def test_reader_only_needs_its_checkpoint(checkpoints, val, tmp_path, monkeypatch):
    state = load_checkpoint(checkpoints["attention"])
    state["config"] |= {"model_config_path": "missing.yaml", "metadata_path": "missing.yaml", "unknown_key": 1}
    save_checkpoint(tmp_path / "single.pt", state)
    monkeypatch.chdir(tmp_path)
    reader = reader_of_checkpoint(Path("single.pt"), device="cpu")
    assert reader.model.definition.decoder == "attention"
    assert reader.read([val.image_paths[0]])[0].problem == ""
