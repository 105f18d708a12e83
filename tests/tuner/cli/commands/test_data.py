"""`khmer-tuner data`: what its options put into the dataset, and what it prints."""

import json
from pathlib import Path

import matplotlib
import pytest
import yaml

from tuner.data.generation.dataset import generate_dataset
from tuner.data.vocabulary import SPECIAL_SYMBOLS

FEW = ["--samples", "20", "--test-samples", "10"]
DEJAVU = Path(matplotlib.get_data_path(), "fonts/ttf")


def test_characters_and_lengths_are_those_of_the_options(cli, working_dir):
    (working_dir / "letters").write_text("\ufeffក ខ គ\n", encoding="utf-8")
    for characters, expected in (("letters", "កខគ"), ("XYZ", "XYZ")):
        outcome = cli("data", *FEW, "--characters", characters, "--max-length", "3", "--out", expected)
        assert (outcome.code, outcome.out) == (0, f"{expected}/metadata.yaml\n"), outcome.err
        content = yaml.safe_load(Path(expected, "metadata.yaml").read_text(encoding="utf-8"))
        assert content["dataset_info"]["character_set"] == [*expected, *SPECIAL_SYMBOLS]
        assert {len(sample["label"]) for sample in content["train"]["samples"]} == {1, 2, 3}


def test_default_options_are_those_of_the_default_dataset(cli, tmp_path):
    generate_dataset(tmp_path / "generated_data", samples=20, test_samples=10)
    cli.ok("data", *FEW)
    for name in ("metadata.yaml", "recipe.json"):
        assert Path("generated_data", name).read_bytes() == Path(tmp_path, "generated_data", name).read_bytes()


def test_held_out_designs_are_printed_also_for_an_existing_dataset(cli):
    command = ["data", *FEW, "--characters", "AB", "--fonts-dir", DEJAVU, "--hold-out-fonts", "2", "--seed", "3"]
    outcome = cli(*command)
    info = yaml.safe_load(Path("generated_data", "metadata.yaml").read_text(encoding="utf-8"))["dataset_info"]
    (line,) = (line for line in outcome.err.splitlines() if "split unseen" in line)
    fonts = json.loads(Path("generated_data", "recipe.json").read_text(encoding="utf-8"))["fonts"]
    design_of = {name: design[0] if design else "Noto Sans Khmer" for name, _, *design in fonts}
    held_out = sorted({design_of[font] for font in info["held_out_fonts"]})
    assert len(held_out) == 2
    assert line == f"font designs only in the split unseen: {', '.join(held_out)}"
    assert line in cli(*command).err.splitlines()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "letters: found 0 characters; expected 1 to 500"),
        (b"\xff\xfea\0", "letters: found other bytes; expected UTF-8; save the file as UTF-8"),
        (b"a,b,c", "letters: found ',' 2 times; expected each character once; remove all but one"),
    ],
)
def test_file_that_is_not_a_list_of_characters_is_invalid_input(content, problem, cli, working_dir):
    (working_dir / "letters").write_bytes(content)
    assert f"error: {problem}" in cli.error("data", *FEW, "--characters", "letters")
    assert [path.name for path in working_dir.iterdir()] == ["letters"]
