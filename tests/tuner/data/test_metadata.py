import os
import shutil
from pathlib import Path

import pytest
import yaml

from search_spaces.errors import DataLoaderError
from tuner.data.metadata import read_metadata
from tuner.data.vocabulary import KHMER_DIGITS, Vocabulary


def problems_of(path, *splits):
    with pytest.raises(DataLoaderError) as caught:
        read_metadata(path, splits or ("train", "val"))
    return caught.value.problems


def test_dataset_of_another_tool_is_read(make_dataset):
    path = make_dataset()
    metadata = read_metadata(path, ["train", "val"])
    train = metadata.splits["train"]
    assert train.labels == ("០១២", "៩")
    assert train.fonts == ("KhmerOS", "KhmerOS")
    assert train.image_paths == tuple(str(path.parent / "train" / f"train_00000{n}.png") for n in (0, 1))
    assert metadata.splits["val"].labels == ("៨៨៨៨៨៨៨៨",)


def test_only_the_requested_splits_are_read(make_dataset):
    assert list(read_metadata(make_dataset(), ["val"]).splits) == ["val"]


def test_optional_keys_may_be_missing_and_unknown_keys_are_ignored(make_dataset):
    def change(content):
        sample = content["train"]["samples"][0]
        for key in ("font", "font_size", "sequence_length", "augmented", "text_color", "text_position"):
            del sample[key]
        sample["weather"] = {"rain": [1, 2]}
        content["licence"] = None

    assert read_metadata(make_dataset(change=change), ["train"]).splits["train"].fonts == ("", "KhmerOS")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["<EOS>", *reversed(KHMER_DIGITS), "<PAD>", "<BLANK>"], tuple(reversed(KHMER_DIGITS))),
        (list("៩៨៧៦៥៤៣២១០"), tuple("៩៨៧៦៥៤៣២១០")),
        (["<BLANK>", *KHMER_DIGITS[:5], "<PAD>", *KHMER_DIGITS[5:], "ក", "<EOS>"], (*KHMER_DIGITS, "ក")),
    ],
    ids=["reversed after the end mark", "without special symbols", "special symbols anywhere"],
)
def test_vocabulary_has_the_order_of_the_character_set(entries, expected, make_dataset):
    def change(content):
        content["dataset_info"] |= {"character_set": entries, "max_sequence_length": 20}
        content["train"]["samples"][0]["label"] = "១" * 20

    metadata = read_metadata(make_dataset(change=change), ["train"])
    assert metadata.vocabulary == Vocabulary(expected, 20)
    assert metadata.splits["train"].labels[0] == "១" * 20
    assert metadata.split_names == ("train", "val")


@pytest.mark.parametrize("missing", [["dataset_info"], ["character_set"], ["character_set", "max_sequence_length"]])
def test_metadata_without_a_vocabulary_has_khmer_digits(missing, make_dataset):
    def change(content):
        content["dataset_info"] |= {"character_set": list(KHMER_DIGITS), "max_sequence_length": 8}
        for key in missing:
            (content if key in content else content["dataset_info"]).pop(key)

    assert read_metadata(make_dataset(change=change), ["train"]).vocabulary == Vocabulary()


def test_tuples_aliases_merge_keys_and_a_bom_are_read(make_dataset):
    path = make_dataset()
    path.write_text(
        "\ufeffdefaults: &defaults {font: &font Siemreap, label: ៩}\n"
        "train:\n  samples:\n"
        "  - {<<: *defaults, label: ០១២, image_filename: train_000000.png}\n"
        "  - {<<: [*defaults], image_filename: train_000001.png, text_color: !!python/tuple [0, 0]}\n",
        encoding="utf-8",
    )
    train = read_metadata(path, ["train"]).splits["train"]
    assert train.labels == ("០១២", "៩")
    assert train.fonts == ("Siemreap", "Siemreap")


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("where", ["parent folder", "own folder", "split folder", "working directory"])
def test_images_are_searched_in_the_documented_order(where, linked, make_dataset, tmp_path, monkeypatch):
    path = make_dataset({"train": ["១"]})
    here = tmp_path / "here"
    expected = path.parent / "train" / "train_000000.png"
    shutil.copytree(path.parent, here / "dataset")  # a dataset with the same name: searched last
    shutil.copytree(path.parent, here / "linked" / "dataset")
    if where in ("own folder", "split folder"):
        path = path.parent.rename(tmp_path / "renamed") / "metadata.yaml"
        expected = path.parent / "train" / "train_000000.png"
    if where == "own folder":
        expected = Path(shutil.copytree(path.parent / "train", path.parent / "dataset" / "train")) / expected.name
    elif where == "working directory":
        expected.unlink()
        shutil.rmtree(here / "linked" / "dataset")
        expected = here / "dataset" / "train" / "train_000000.png"
    monkeypatch.chdir(here)
    if linked:  # once the metadata file, once its folder
        (here / "linked" / "labels.yaml").symlink_to(path)
        (here / "data").symlink_to(path.parent)
    for name in ("linked/labels.yaml", "data/metadata.yaml") if linked else (path,):
        assert read_metadata(name, ["train"]).splits["train"].image_paths == (str(expected),)


def test_images_in_the_folder_of_a_metadata_link_are_found(make_dataset, tmp_path):
    path = make_dataset({"train": ["១"]})
    shutil.move(path, tmp_path / "4f1a")  # like a content-addressed store
    path.symlink_to(tmp_path / "4f1a")
    [found] = read_metadata(path, ["train"]).splits["train"].image_paths
    assert found == str(path.parent / "train" / "train_000000.png")


def test_images_of_one_folder_may_be_named_by_different_keys(make_dataset):
    def change(content):
        samples = content["train"]["samples"]
        samples[1]["image_path"] = "missing/other.png"
        samples[2]["image_path"] = "train/train_000002.png"
        del samples[3]["image_path"]

    paths = read_metadata(make_dataset({"train": ["១"] * 5}, change=change), ["train"]).splits["train"].image_paths
    assert [os.path.basename(path) for path in paths] == [f"train_00000{number}.png" for number in range(5)]


@pytest.mark.parametrize("other", ["own folder", "working directory"])
def test_images_in_two_folders_are_refused_and_both_folders_are_named(other, make_dataset, tmp_path, monkeypatch):
    path = make_dataset({"train": ["១"] * 30, "val": ["២"]})
    base = path.parent if other == "own folder" else tmp_path / "here"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for number in (24, 27):
        image = path.parent / "train" / f"train_{number:06d}.png"
        (base / "dataset" / "train").mkdir(parents=True, exist_ok=True)
        image.rename(base / "dataset" / "train" / image.name)
    (problem,) = problems_of(path)
    assert "train.samples[24]: its image was found in " in problem
    assert f"{base} ({base}/dataset/train/train_000024.png), but " in problem
    assert f"train.samples[0]: its image was found in {path.parent}/train (" in problem
    assert "expected all images of a split in one folder; move them" in problem


def test_absolute_image_paths_are_read(make_dataset, tmp_path):
    def change(content):
        sample = content["train"]["samples"][0]
        sample["image_path"] = str(tmp_path / "dataset" / "val" / "val_000000.png")
        del sample["image_filename"]

    path = make_dataset(change=change)
    assert read_metadata(path, ["train"]).splits["train"].image_paths[0].endswith("val/val_000000.png")


def test_nested_aliases_are_not_expanded_in_memory(tmp_path):
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))
    merges = "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], k{n}: v}}\n" for n in range(1, 30))
    path = tmp_path / "metadata.yaml"
    path.write_text(f"l0: &l0 [x]\n{levels}m0: &m0 {{k: v}}\n{merges}train: {{samples: *l29}}\n")
    problems = problems_of(path, "train")
    assert len(problems) == 9
    assert "train.samples[0]: found a list of 9; expected a mapping" in problems[0]


def test_labels_with_unknown_characters_and_long_labels_are_one_problem_each(make_dataset):
    labels = ["១", "x១", *["yx", "១" * 9] * 10, "១" * 11, ""]
    empty, unknown, long = problems_of(make_dataset({"train": labels}), "train")
    assert "samples[23].label: found an empty label" in empty
    assert "samples[1].label: found 'x១' with 'x' (U+0078); expected only the characters ០១២៣៤៥៦៧៨៩; " in unknown
    assert "(11 labels of this split have unknown characters: 'x' (U+0078), 'y' (U+0079))" in unknown
    assert f"samples[22].label: found {'១' * 11!r} with 11 characters; expected at most 8; set " in long
    assert "dataset_info.max_sequence_length to 11, or remove the sample (11 labels of this split are too" in long


def test_only_the_first_twenty_of_many_problems_are_listed(make_dataset):
    problems = problems_of(make_dataset({"train": [""] * 50}), "train")
    assert len(problems) == 21
    assert "30 more" in problems[-1]


def test_generated_metadata_are_read_as_by_pyyaml(generated):
    read = read_metadata(generated, ["train", "test"]).splits
    plain = yaml.safe_load(generated.read_text(encoding="utf-8"))
    for split in ("train", "test"):
        samples = plain[split]["samples"]
        assert list(read[split].labels) == [sample["label"] for sample in samples]
        assert list(map(len, read[split].labels)) == [sample["sequence_length"] for sample in samples]
        assert list(read[split].fonts) == [sample["font"] for sample in samples]


def test_error_of_a_missing_file_names_the_command_that_generates_a_dataset(tmp_path):
    (problem,) = problems_of(tmp_path / "none.yaml")
    assert str(tmp_path / "none.yaml") in problem
    assert "khmer-tuner data" in problem


def test_folder_instead_of_a_file_is_refused(tmp_path):
    (problem,) = problems_of(tmp_path)
    assert "is a folder; use the path of the dataset's metadata.yaml" in problem


def test_error_of_an_unknown_split_suggests_the_most_similar_one(make_dataset):
    (problem,) = problems_of(make_dataset(), "trian")
    assert "did you mean 'train'?" in problem
    assert "'val'" in problem


def test_error_of_a_missing_image_names_the_searched_paths(make_dataset, tmp_path):
    path = make_dataset()
    (path.parent / "train" / "train_000001.png").unlink()
    (problem,) = problems_of(path)
    assert "train.samples[1]" in problem
    assert str(tmp_path / "dataset" / "train" / "train_000001.png") in problem


def test_dataset_without_images_gives_one_problem_per_split(make_dataset):
    path = make_dataset({"train": ["១"] * 30, "val": ["២"]})
    for image in path.parent.glob("*/*.png"):
        image.unlink()
    problems = problems_of(path)
    assert len(problems) == 2
    assert "all 30 images of this split are missing" in problems[0]
