from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from search_spaces.errors import ConfigurationError, DataLoaderError
from tuner.data.generation import generate_dataset
from tuner.data.rendering.fonts import pinned_font_file
from tuner.data.vocabulary import CHARACTER_SET

ROOT = Path(__file__).parents[4]


def digest(folder: Path) -> str:
    """Return the digest of the names and contents of all files in `folder` and its subfolders."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return total.hexdigest()


def test_metadata_have_the_documented_keys(generated_once: Path) -> None:
    content = yaml.safe_load((generated_once / "metadata.yaml").read_text(encoding="utf-8"))
    assert list(content) == ["dataset_info", "train", "val", "test"]
    info = content["dataset_info"]
    assert list(info) == [
        *("character_set", "fonts_used", "generated_by", "image_size", "max_sequence_length"),
        *("total_samples", "train_samples", "val_samples", "test_samples"),
    ]
    assert info["character_set"] == list(CHARACTER_SET)
    assert info["generated_by"] == "text"
    assert info["image_size"] == [128, 64]
    assert info["max_sequence_length"] == 8
    counts = [info[f"{split}_samples"] for split in ("total", "train", "val", "test")]
    assert counts == [40, 24, 6, 10]
    samples = [sample for split in ("train", "val", "test") for sample in content[split]["samples"]]
    assert info["fonts_used"] == sorted({sample["font"] for sample in samples})
    for sample in samples:
        assert list(sample) == [
            *("image_path", "image_filename", "label", "font", "font_size", "sequence_length"),
            *("augmented", "text_color", "text_position"),
        ]
        assert len(sample["label"]) == sample["sequence_length"]
        assert isinstance(sample["augmented"], bool)
        with Image.open(generated_once.parent / sample["image_path"]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 64))


def test_all_images_of_all_splits_differ(generated_once: Path) -> None:
    images = [path.read_bytes() for path in generated_once.rglob("*.png")]
    assert len(set(images)) == len(images) == 40


def test_same_arguments_give_the_same_bytes(
    generated_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate_dataset("generated_data", samples=30, test_samples=10)
    assert digest(tmp_path / "generated_data") == digest(generated_once)


def test_each_sample_is_a_line_of_json(generated_once: Path) -> None:
    lines = (generated_once / "metadata.yaml").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line.removeprefix("  - ")) for line in lines if line.startswith("  - ")]
    assert len(samples) == 40
    assert [line for line in lines if not line.startswith(" ")] == ["dataset_info:", "train:", "val:", "test:"]


def test_another_seed_changes_every_image(generated_once: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path / "generated_data", samples=30, test_samples=10, seed=1)
    for path in generated_once.rglob("*.png"):
        other = tmp_path / "generated_data" / path.relative_to(generated_once)
        assert other.read_bytes() != path.read_bytes()


def test_larger_dataset_starts_with_the_same_samples(generated_once: Path, tmp_path: Path) -> None:
    generate_dataset(tmp_path / "more", samples=40, test_samples=12)
    for path in generated_once.rglob("*.png"):
        assert (tmp_path / "more" / path.relative_to(generated_once)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("out", "prefix"),
    [("data", "data"), ("deep/er/data", "deep/er/data"), ("{tmp}/outside", "outside"), ("ទិន្នន័យ: 1 #", None)],
)
def test_image_paths_are_relative_to_the_working_directory_of_the_generator(
    out: str, prefix: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    out = out.format(tmp=tmp_path)
    path = generate_dataset(out, samples=10, test_samples=1)
    assert path == Path(out) / "metadata.yaml"
    sample = yaml.safe_load(path.read_text(encoding="utf-8"))["train"]["samples"][0]
    assert sample["image_path"] == f"{prefix or out}/train/train_000000.png"
    assert Path(out, "train", "train_000000.png").is_file()


def test_existing_dataset_is_not_generated_again(generated: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in generated.parent.rglob("*")}
    calls: list[Any] = []
    path = generate_dataset(generated.parent, samples=30, test_samples=10, on_progress=lambda *done: calls.append(done))
    assert path == generated
    assert {path: path.stat().st_mtime_ns for path in generated.parent.rglob("*")} == before
    assert not calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 50}, "samples 30 instead of 50"),
        ({"seed": 9, "test_samples": 11}, "test_samples 10 instead of 11; seed 0 instead of 9"),
        ({"fonts_dir": pinned_font_file().parent}, "other fonts: found 22, requested 23"),
    ],
)
def test_dataset_with_other_settings_is_not_overwritten(options: dict[str, Any], message: str, generated: Path) -> None:
    before = digest(generated.parent)
    with pytest.raises(ConfigurationError, match=message) as caught:
        generate_dataset(generated.parent, **{"samples": 30, "test_samples": 10, **options})
    assert "choose another folder" in str(caught.value)
    assert digest(generated.parent) == before


def test_incomplete_dataset_is_refused(generated: Path) -> None:
    (generated.parent / "val" / "val_000000.png").unlink()
    with pytest.raises(ConfigurationError, match="the same dataset, but with missing or additional files"):
        generate_dataset(generated.parent, samples=30, test_samples=10)


def test_folder_with_other_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miaow")
    with pytest.raises(ConfigurationError, match=r"found other files \(cat\.jpg\)"):
        generate_dataset(tmp_path / "photos", samples=10)
    with pytest.raises(ConfigurationError, match="found a file"):
        generate_dataset(tmp_path / "photos" / "cat.jpg", samples=10)
    assert os.listdir(tmp_path / "photos") == ["cat.jpg"]


@pytest.mark.parametrize("out", [".", "..", "", "/"])
def test_working_directory_and_parents_are_refused(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="expected a new or empty folder"):
        generate_dataset(out, samples=10)
    assert os.listdir(tmp_path) == []


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert generate_dataset(tmp_path / "data", samples=10, test_samples=1).is_file()


def test_all_numbers_out_of_range_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        generate_dataset(tmp_path / "data", samples=9, test_samples=0, seed=-1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["samples", "test_samples", "seed"]
    assert "found 9; expected a whole number from 10" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [True, 1e3, "100", None])
def test_number_of_samples_of_another_type_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="samples: found"):
        generate_dataset(tmp_path / "data", samples=value)


def test_progress_is_reported_every_128_samples_and_at_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    generate_dataset(
        tmp_path / "data", samples=290, test_samples=10, on_progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(128, 300), (256, 300), (300, 300)]


def test_error_of_a_folder_that_is_not_writable_gives_the_required_disk_space(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataLoaderError, match=r"cannot write the dataset.*151 MB"):
        generate_dataset(tmp_path / "file" / "data")


def test_error_during_generation_leaves_no_files(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        generate_dataset(tmp_path / "data", samples=300, on_progress=fail)
    assert os.listdir(tmp_path) == []


PROGRAM = """
import sys
from tuner.data.generation import generate_dataset
print("started", flush=True)
generate_dataset("data", samples=int(sys.argv[1]), on_progress=lambda *done: print(*done, flush=True))
"""


def start_generating(folder: Path, samples: int = 20_000) -> subprocess.Popen[str]:
    """Start a script that generates a large dataset, and wait for its first images."""
    (folder / "script.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "script.py", str(samples)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert process.stdout.readline().endswith(f"{samples + 1000}\n")
    return process


def test_ctrl_c_leaves_no_files(tmp_path: Path) -> None:
    process = start_generating(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0, errors
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == ["script.py"]


def test_files_of_a_killed_process_are_removed_by_the_next_call(tmp_path: Path) -> None:
    process = start_generating(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    (partial,) = (path for path in tmp_path.iterdir() if path.name != "script.py")
    assert partial.name.startswith(".data.partial-")
    generate_dataset(tmp_path / "data", samples=10, test_samples=1)
    assert sorted(os.listdir(tmp_path)) == ["data", "script.py"]


def test_files_of_a_running_process_are_not_removed(tmp_path: Path) -> None:
    process = start_generating(tmp_path, samples=2000)
    generate_dataset(tmp_path / "data", samples=10, test_samples=1)
    _, errors = process.communicate(timeout=60)
    assert "ConfigurationError" in errors  # it finishes second and finds another dataset in its target folder
    assert "samples 10 instead of 2000" in errors
    assert sorted(os.listdir(tmp_path)) == ["data", "script.py"]
