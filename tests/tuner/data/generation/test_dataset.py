import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import yaml
from PIL import Image

from search_spaces.errors import ConfigurationError, DataLoaderError
from tuner.data.generation.dataset import generate_dataset
from tuner.data.generation.fonts import find_fonts, pinned_font_file, pinned_fonts
from tuner.data.generation.recipe import Recipe
from tuner.data.vocabulary import KHMER_DIGITS, SPECIAL_SYMBOLS, Vocabulary

DEJAVU = Path(matplotlib.get_data_path(), "fonts/ttf")

ROOT = Path(__file__).parents[4]
NUMBERS = {"samples": 60, "test_samples": 12, "seed": 0}
HELD_OUT = {
    "samples": 60,
    "test_samples": 40,
    "characters": "ABC",
    "fonts_dir": DEJAVU,
    "hold_out_fonts": 2,
}


def recipe_of(folder):
    recipe = Recipe.read(folder)
    assert recipe is not None
    return recipe


def digest(folder):
    """Return the digest of the names and contents of all files in `folder` and its subfolders."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return total.hexdigest()


def test_metadata_have_the_documented_keys(generated_once):
    content = yaml.safe_load((generated_once / "metadata.yaml").read_text(encoding="utf-8"))
    assert list(content) == ["dataset_info", "train", "val", "test"]
    info = content["dataset_info"]
    assert list(info) == [
        *("character_set", "fonts_used", "generated_by", "image_size", "max_sequence_length"),
        *("total_samples", "train_samples", "val_samples", "test_samples"),
    ]
    assert info["character_set"] == [*KHMER_DIGITS, *SPECIAL_SYMBOLS]
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


def test_all_images_of_all_splits_differ(generated_once):
    images = [path.read_bytes() for path in generated_once.rglob("*.png")]
    assert len(set(images)) == len(images) == 40


def test_default_dataset_is_pinned(generated_once):
    """If this fails, existing default datasets are refused, or are not the ones that are generated now."""
    assert digest(generated_once) == "566b3fb75386c6360ed01f888bc84600f3a2821f6ae17d4e7bebbeb9741bdfef"


@pytest.fixture(scope="session")
def khmer_syllables(tmp_path_factory):
    """The folder of a dataset whose characters are clusters of several code points; tests must not change it."""
    folder = tmp_path_factory.mktemp("syllables")
    (folder / "syllables.txt").write_text("ក្ក ខ្ម ស្ត្រី ក\n", encoding="utf-8-sig")
    generate_dataset(
        folder / "data", samples=40, test_samples=5, characters=str(folder / "syllables.txt"), max_length=3
    )
    return folder / "data"


def test_metadata_and_recipe_name_the_characters(khmer_syllables):
    content = yaml.safe_load((khmer_syllables / "metadata.yaml").read_text(encoding="utf-8"))
    assert content["dataset_info"]["character_set"] == ["ក្ក", "ខ្ម", "ស្ត្រី", "ក", *SPECIAL_SYMBOLS]
    assert content["dataset_info"]["max_sequence_length"] == 3
    vocabulary = Vocabulary(("ក្ក", "ខ្ម", "ស្ត្រី", "ក"), 3)
    samples = content["train"]["samples"] + content["val"]["samples"]
    assert {sample["sequence_length"] for sample in samples} == {1, 2, 3}
    for sample in samples:
        assert vocabulary.label_problem(sample["label"]) is None
        assert len(vocabulary.split(sample["label"])) == sample["sequence_length"]
    recipe = json.loads((khmer_syllables / "recipe.json").read_text(encoding="utf-8"))
    assert (recipe["characters"], recipe["max_length"]) == (["ក្ក", "ខ្ម", "ស្ត្រី", "ក"], 3)
    default = json.loads(Recipe.of(pinned_fonts(), Vocabulary(), **NUMBERS, max_length=8, hold_out_fonts=0).as_json())
    assert list(default) == ["generator_version", "samples", "test_samples", "seed", "fonts"]


def test_dataset_with_the_same_characters_is_not_generated_again(khmer_syllables):
    numbers = {"samples": 40, "test_samples": 5, "max_length": 3}
    calls = []
    generate_dataset(khmer_syllables, characters="ក្ក ខ្ម ស្ត្រី ក", **numbers, on_progress=lambda *done: calls.append(done))
    assert not calls
    with pytest.raises(ConfigurationError, match="other characters: ស្ត្រី, ក"):
        generate_dataset(khmer_syllables, characters="ក្ក ខ្ម", **numbers)


@pytest.mark.parametrize("characters", ["\"'\\#:-{}[]", "اب١٢", "éàß"])
def test_metadata_of_characters_that_yaml_or_json_escape_are_read_unchanged(characters, tmp_path):
    path = generate_dataset(tmp_path / "data", samples=30, test_samples=1, characters=characters, fonts_dir=DEJAVU)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["dataset_info"]["character_set"] == [*characters, *SPECIAL_SYMBOLS]
    labels = [sample["label"] for sample in content["train"]["samples"]]
    assert set("".join(labels)) == set(characters)


@pytest.fixture(scope="session")
def with_held_out(tmp_path_factory):
    """The folder of a dataset of Latin letters with two held-out designs; tests must not change it."""
    folder = tmp_path_factory.mktemp("held_out") / "data"
    generate_dataset(folder, **HELD_OUT)
    return folder


def test_held_out_designs_are_only_in_the_split_unseen(with_held_out):
    content = yaml.safe_load((with_held_out / "metadata.yaml").read_text(encoding="utf-8"))
    fonts = {
        split: {sample["font"] for sample in content[split]["samples"]} for split in recipe_of(with_held_out).splits
    }
    assert list(fonts) == ["train", "val", "test", "unseen"]
    assert content["dataset_info"]["unseen_samples"] == content["dataset_info"]["test_samples"] == 40
    assert content["dataset_info"]["total_samples"] == 140
    assert content["dataset_info"]["held_out_fonts"] == sorted(fonts["unseen"])
    design_of = {font.name: font.design for font in find_fonts("pinned", DEJAVU, tuple("ABC"))}
    designs = {split: {design_of[name] for name in names} for split, names in fonts.items()}
    assert sorted(designs["unseen"]) == recipe_of(with_held_out).held_out_designs
    assert len(designs["unseen"]) == 2
    assert not designs["unseen"] & (designs["train"] | designs["val"] | designs["test"])
    assert len(list((with_held_out / "unseen").glob("*.png"))) == 40


def test_seed_chooses_the_held_out_designs():
    fonts = find_fonts("pinned", DEJAVU, tuple("ABC"))

    def held_out(seed, max_length):
        numbers = NUMBERS | {"seed": seed, "max_length": max_length, "hold_out_fonts": 1}
        (design,) = Recipe.of(fonts, Vocabulary(("A", "B", "C")), **numbers).held_out_designs
        return design

    assert len({held_out(seed, 8) for seed in range(20)}) > 4
    assert all(held_out(seed, 8) == held_out(seed, 3) for seed in range(5))


def test_dataset_with_held_out_fonts_is_complete_only_with_all_their_images(with_held_out, tmp_path):
    folder = shutil.copytree(with_held_out, tmp_path / "data")
    before = digest(folder)
    generate_dataset(folder, **HELD_OUT)
    assert digest(folder) == before
    with pytest.raises(ConfigurationError, match="hold_out_fonts 2 instead of 1"):
        generate_dataset(folder, **{**HELD_OUT, "hold_out_fonts": 1})
    (folder / "unseen" / "unseen_000000.png").unlink()
    with pytest.raises(ConfigurationError, match="missing or additional files"):
        generate_dataset(folder, **HELD_OUT)


def test_holding_out_all_designs_is_refused(tmp_path):
    message = r"--hold-out-fonts: found 3; expected less than .*, 3 .DejaVu Sans, DejaVu Sans Mono, Noto Sans Khmer."
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf"):
        shutil.copy(DEJAVU / name, tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        generate_dataset(tmp_path / "data", characters="AB", fonts_dir=tmp_path, hold_out_fonts=3)
    with pytest.raises(ConfigurationError, match=r"expected less than .*, 1 .Noto Sans Khmer."):
        generate_dataset(tmp_path / "data", hold_out_fonts=1)
    assert not (tmp_path / "data").exists()


def test_another_seed_changes_every_image(generated_once, tmp_path):
    generate_dataset(tmp_path / "generated_data", samples=30, test_samples=10, seed=1)
    for path in generated_once.rglob("*.png"):
        other = tmp_path / "generated_data" / path.relative_to(generated_once)
        assert other.read_bytes() != path.read_bytes()


def test_larger_dataset_starts_with_the_same_samples(generated_once, tmp_path):
    generate_dataset(tmp_path / "more", samples=40, test_samples=12)
    for path in generated_once.rglob("*.png"):
        assert (tmp_path / "more" / path.relative_to(generated_once)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("out", "prefix"),
    [("data", "data"), ("deep/er/data", "deep/er/data"), ("{tmp}/outside", "outside"), ("ទិន្នន័យ: 1 #", None)],
)
def test_image_paths_are_relative_to_the_working_directory_of_the_generator(out, prefix, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    out = out.format(tmp=tmp_path)
    path = generate_dataset(out, samples=10, test_samples=1)
    assert path == Path(out) / "metadata.yaml"
    sample = yaml.safe_load(path.read_text(encoding="utf-8"))["train"]["samples"][0]
    assert sample["image_path"] == f"{prefix or out}/train/train_000000.png"
    assert Path(out, "train", "train_000000.png").is_file()


def test_existing_dataset_is_not_generated_again(generated):
    before = {path: path.stat().st_mtime_ns for path in generated.parent.rglob("*")}
    calls = []
    path = generate_dataset(generated.parent, samples=30, test_samples=10, on_progress=lambda *done: calls.append(done))
    assert path == generated
    assert {path: path.stat().st_mtime_ns for path in generated.parent.rglob("*")} == before
    assert not calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 50}, "samples 30 instead of 50"),
        ({"seed": 9, "test_samples": 11}, "test_samples 10 instead of 11; seed 0 instead of 9"),
        ({"fonts_dir": pinned_font_file().parent}, "other fonts: NotoSansKhmer"),
    ],
)
def test_dataset_with_other_settings_is_not_overwritten(options, message, generated):
    before = digest(generated.parent)
    with pytest.raises(ConfigurationError, match=message) as caught:
        generate_dataset(generated.parent, **{"samples": 30, "test_samples": 10, **options})
    assert "choose another folder" in str(caught.value)
    assert digest(generated.parent) == before


def test_incomplete_dataset_is_refused(generated):
    (generated.parent / "val" / "val_000000.png").unlink()
    with pytest.raises(ConfigurationError, match="the same dataset, but with missing or additional files"):
        generate_dataset(generated.parent, samples=30, test_samples=10)


def test_folder_with_other_files_is_refused_and_unchanged(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miaow")
    with pytest.raises(ConfigurationError, match=r"found other files \(cat\.jpg\)"):
        generate_dataset(tmp_path / "photos", samples=10)
    with pytest.raises(ConfigurationError, match="found a file"):
        generate_dataset(tmp_path / "photos" / "cat.jpg", samples=10)
    assert os.listdir(tmp_path / "photos") == ["cat.jpg"]


@pytest.mark.parametrize("out", [".", "..", "", "/"])
def test_working_directory_and_parents_are_refused(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="expected a new or empty folder"):
        generate_dataset(out, samples=10)
    assert os.listdir(tmp_path) == []


def test_all_numbers_out_of_range_are_reported_together(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        generate_dataset(tmp_path / "data", samples=9, test_samples=0, seed=-1, max_length=25, hold_out_fonts=-1)
    names = ["samples", "test_samples", "seed", "max_length", "hold_out_fonts"]
    assert [problem.split(":")[0] for problem in caught.value.problems] == names
    assert "found 9; expected a whole number from 10" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_progress_is_reported_every_128_samples_and_at_the_end(tmp_path):
    calls = []
    generate_dataset(
        tmp_path / "data", samples=290, test_samples=10, on_progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(128, 300), (256, 300), (300, 300)]


def test_error_of_a_folder_that_is_not_writable_gives_the_required_disk_space(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataLoaderError, match=r"cannot write the dataset.*151 MB"):
        generate_dataset(tmp_path / "file" / "data")


def test_error_during_generation_leaves_no_files(tmp_path):
    def fail(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        generate_dataset(tmp_path / "data", samples=300, on_progress=fail)
    assert os.listdir(tmp_path) == []


PROGRAM = """
import sys
from tuner.data.generation.dataset import generate_dataset
print("started", flush=True)
generate_dataset("data", samples=int(sys.argv[1]), on_progress=lambda *done: print(*done, flush=True))
"""


def start_generating(folder, samples=20_000):
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


def test_ctrl_c_leaves_no_files(tmp_path):
    process = start_generating(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0, errors
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == ["script.py"]


def test_files_of_a_killed_process_are_removed_by_the_next_call(tmp_path):
    process = start_generating(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    (partial,) = (path for path in tmp_path.iterdir() if path.name != "script.py")
    assert partial.name.startswith(".data.partial-")
    generate_dataset(tmp_path / "data", samples=10, test_samples=1)
    assert sorted(os.listdir(tmp_path)) == ["data", "script.py"]


def test_files_of_a_running_process_are_not_removed(tmp_path):
    process = start_generating(tmp_path, samples=2000)
    generate_dataset(tmp_path / "data", samples=10, test_samples=1)
    _, errors = process.communicate(timeout=60)
    assert "ConfigurationError" in errors  # it finishes second and finds another dataset in its target folder
    assert "samples 10 instead of 2000" in errors
    assert sorted(os.listdir(tmp_path)) == ["data", "script.py"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "data").mkdir()
    assert generate_dataset(tmp_path / "data", samples=10, test_samples=1).is_file()


@pytest.mark.parametrize("value", [True, 1e3, "100", None])
def test_number_of_samples_of_another_type_is_refused(value, tmp_path):
    with pytest.raises(ConfigurationError, match="samples: found"):
        generate_dataset(tmp_path / "data", samples=value)
