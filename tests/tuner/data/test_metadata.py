from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces.errors import DataLoaderError
from tuner.data.metadata import read_metadata


def problems_of(path: Path, *splits: str) -> tuple[str, ...]:
    with pytest.raises(DataLoaderError) as caught:
        read_metadata(path, splits or ("train", "val"))
    return caught.value.problems


def test_reads_a_dataset_of_another_tool(foreign: Any) -> None:
    path = foreign()
    metadata = read_metadata(path, ["train", "val"])
    train = metadata.splits["train"]
    assert train.labels == ("០១២", "៩")
    assert train.fonts == ("KhmerOS", "KhmerOS")
    assert train.image_paths == tuple(str(path.parent / "train" / f"train_00000{n}.png") for n in (0, 1))
    assert metadata.splits["val"].labels == ("៨៨៨៨៨៨៨៨",)


def test_reads_only_the_splits_asked_for(foreign: Any) -> None:
    assert list(read_metadata(foreign(), ["val"]).splits) == ["val"]


def test_keys_that_nobody_needs_may_be_missing_or_more(foreign: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        sample = content["train"]["samples"][0]
        for key in ("font", "font_size", "sequence_length", "augmented", "text_color", "text_position"):
            del sample[key]
        sample["weather"] = {"rain": [1, 2]}
        content["licence"] = None

    assert read_metadata(foreign(change=change), ["train"]).splits["train"].fonts == ("", "KhmerOS")


def test_labels_are_text_whatever_vocabulary_the_metadata_declare(foreign: Any) -> None:
    """Another order of the digits changes no label; what the labels themselves must not have is refused."""

    def declare(content: dict[str, Any]) -> None:
        content["dataset_info"] |= {"character_set": ["៩", "០", "ក"], "max_sequence_length": 20}

    def use(content: dict[str, Any]) -> None:
        declare(content)
        content["train"]["samples"][0]["label"], content["train"]["samples"][1]["label"] = "ក", "១" * 20

    plain = read_metadata(foreign(), ["train"]).splits
    assert read_metadata(foreign(change=declare), ["train"]).splits == plain
    told = problems_of(foreign(change=use), "train")
    assert len(told) == 2
    assert "expected Khmer digits only" in told[0]
    assert "with 20 digits; expected at most 8" in told[1]


def test_tuples_aliases_merge_keys_and_a_bom_are_understood(foreign: Any) -> None:
    path = foreign()
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
@pytest.mark.parametrize("where", ["above", "own folder", "beside", "working directory"])
def test_image_paths_are_looked_up_in_the_documented_order(
    where: str, linked: bool, foreign: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = foreign({"train": ["១"]})
    here = tmp_path / "here"
    expected = path.parent / "train" / "train_000000.png"
    shutil.copytree(path.parent, here / "foreign")  # a dataset of the same name: never its images if there are others
    shutil.copytree(path.parent, here / "linked" / "foreign")
    if where in ("own folder", "beside"):
        path = path.parent.rename(tmp_path / "renamed") / "metadata.yaml"
        expected = path.parent / "train" / "train_000000.png"
    if where == "own folder":
        expected = Path(shutil.copytree(path.parent / "train", path.parent / "foreign" / "train")) / expected.name
    elif where == "working directory":
        expected.unlink()
        shutil.rmtree(here / "linked" / "foreign")
        expected = here / "foreign" / "train" / "train_000000.png"
    monkeypatch.chdir(here)
    if linked:  # the metadata file as such, and its folder
        (here / "linked" / "labels.yaml").symlink_to(path)
        (here / "data").symlink_to(path.parent)
    for name in ("linked/labels.yaml", "data/metadata.yaml") if linked else (path,):
        assert read_metadata(name, ["train"]).splits["train"].image_paths == (str(expected),)


def test_images_beside_a_linked_metadata_file_are_found(foreign: Any, tmp_path: Path) -> None:
    path: Path = foreign({"train": ["១"]})
    shutil.move(path, tmp_path / "4f1a")  # as a store of files by their content does it
    path.symlink_to(tmp_path / "4f1a")
    [found] = read_metadata(path, ["train"]).splits["train"].image_paths
    assert found == str(path.parent / "train" / "train_000000.png")


def test_images_named_by_other_keys_are_found_in_one_folder(foreign: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        samples = content["train"]["samples"]
        samples[1]["image_path"] = "gone/elsewhere.png"
        samples[2]["image_path"] = "train/train_000002.png"
        del samples[3]["image_path"]

    paths = read_metadata(foreign({"train": ["១"] * 5}, change=change), ["train"]).splits["train"].image_paths
    assert [os.path.basename(path) for path in paths] == [f"train_00000{number}.png" for number in range(5)]


@pytest.mark.parametrize("other", ["own folder", "working directory"])
def test_images_in_two_places_are_refused_with_both(
    other: str, foreign: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = foreign({"train": ["១"] * 30, "val": ["២"]})
    base = path.parent if other == "own folder" else tmp_path / "here"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for number in (24, 27):
        image = path.parent / "train" / f"train_{number:06d}.png"
        (base / "foreign" / "train").mkdir(parents=True, exist_ok=True)
        image.rename(base / "foreign" / "train" / image.name)
    (problem,) = problems_of(path)
    assert "train.samples[24]: its image was found in " in problem
    assert f"{base}: {base}/foreign/train/train_000024.png; but " in problem
    assert f"train.samples[0]: its image was found in {path.parent}/train: " in problem
    assert "all images of a split must be in one folder; move them together" in problem


def test_absolute_image_paths(foreign: Any, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        sample = content["train"]["samples"][0]
        sample["image_path"] = str(tmp_path / "foreign" / "val" / "val_000000.png")
        del sample["image_filename"]

    path = foreign(change=change)
    assert read_metadata(path, ["train"]).splits["train"].image_paths[0].endswith("val/val_000000.png")


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "none.yaml")
    assert str(tmp_path / "none.yaml") in problem
    assert "khmer-tuner data" in problem


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected a mapping"),
        (b"- 1\n- 2\n", "expected a mapping"),
        (b"train: [unclosed\n", ":2:1: is not valid YAML"),
        (b"train: {samples: [\xff\xfe]}\n", "not YAML in UTF-8"),
        (b"train: *nowhere\n", ":1:8: is not valid YAML: found undefined alias"),
        (b"train: " + b"[" * 200 + b"]" * 200, ":1:56: is not valid YAML: it is nested more than 50 levels deep"),
        (b"[" * 1_000_000, "nest"),
        (b"{a: " * 1_000_000, "nest"),
        (b"train: {samples: []}\nval: {}\n", ":1: train.samples: found a list of 0; expected a list of at least one"),
        (b"train: {samples: []}\nval: {}\n", ":2: val.samples: found nothing; expected a list of at least one"),
        (b"train: 5\nval: [1]\n", "train: found the text '5'; expected a mapping with samples; write, for example,"),
        (b"train: 5\nval: [1]\n", "val: found a list of 1; expected a mapping with samples"),
        (b"train: {samples: [1]}\nval: {samples: [[]]}\n", "train.samples[0]: found the text '1'; expected a mapping"),
        (b"train: {samples: [{lable: a}]}\nval: {samples: [1]}\n", "did you write 'lable' instead?"),
        (b"experiments: {a: {}}\n", "this looks like an experiments file, which goes to --config"),
        (b"models: {a: {}}\n", "this looks like a model definitions file"),
    ],
)
def test_broken_file_is_told_with_its_place(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.yaml"
    path.write_bytes(content)
    problems = problems_of(path)
    assert any(told in problem for problem in problems)
    assert all(problem.startswith(str(path)) for problem in problems)


def test_aliases_within_aliases_take_no_memory(tmp_path: Path) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))
    merges = "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], k{n}: v}}\n" for n in range(1, 30))
    path = tmp_path / "metadata.yaml"
    path.write_text(f"l0: &l0 [x]\n{levels}m0: &m0 {{k: v}}\n{merges}train: {{samples: *l29}}\n")
    problems = problems_of(path, "train")
    assert len(problems) == 9
    assert "train.samples[0]: found a list of 9; expected a mapping" in problems[0]


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path)
    assert "is a folder; name the metadata.yaml" in problem


def test_unknown_split_is_told_with_the_nearest_one(foreign: Any) -> None:
    (problem,) = problems_of(foreign(), "trian")
    assert "did you mean 'train'?" in problem
    assert "'val'" in problem


def test_all_bad_samples_are_told_at_once_with_line_split_and_number(foreign: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        train, val = content["train"]["samples"], content["val"]["samples"]
        train[0]["label"] = "12"
        del train[1]["label"]
        val[0]["label"] = "១" * 9
        del val[0]["image_path"], val[0]["image_filename"]

    path = foreign(change=change)
    told = "\n".join(problems_of(path))
    line = path.read_text(encoding="utf-8").splitlines().index("  - augmented: true") + 1
    assert f"{path}:{line}: train.samples[0].label: found '12'" in told
    assert "train.samples[1].label: is missing" in told
    assert "val.samples[0].label: found '១១១១១១១១១' with 9 digits" in told
    assert "val.samples[0].image_path: is missing" in told


def test_missing_image_is_told_with_the_places_looked_at(foreign: Any, tmp_path: Path) -> None:
    path = foreign()
    (path.parent / "train" / "train_000001.png").unlink()
    (problem,) = problems_of(path)
    assert "train.samples[1]" in problem
    assert str(tmp_path / "foreign" / "train" / "train_000001.png") in problem


def test_dataset_without_its_images_is_one_problem_per_split(foreign: Any) -> None:
    path = foreign({"train": ["១"] * 30, "val": ["២"]})
    for image in path.parent.glob("*/*.png"):
        image.unlink()
    problems = problems_of(path)
    assert len(problems) == 2
    assert "all 30 images of this split are missing" in problems[0]


def test_of_many_problems_the_first_twenty_are_told(foreign: Any) -> None:
    problems = problems_of(foreign({"train": ["x"] * 50}), "train")
    assert len(problems) == 21
    assert "30 more" in problems[-1]


def test_our_own_metadata_read_equal_by_pyyaml(generated: Path) -> None:
    read = read_metadata(generated, ["train", "test"]).splits
    plain = yaml.safe_load(generated.read_text(encoding="utf-8"))
    for split in ("train", "test"):
        samples = plain[split]["samples"]
        assert list(read[split].labels) == [sample["label"] for sample in samples]
        assert list(map(len, read[split].labels)) == [sample["sequence_length"] for sample in samples]
        assert list(read[split].fonts) == [sample["font"] for sample in samples]
