"""Commands that read a finished study, a dataset or a configuration."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["status", "--output-dir", "{}"], ["export", "--output-dir", "{}"]], ids=str
)
def test_torch_is_not_imported(argv, run_study):
    heavy = "{'torch', 'optuna', 'pydantic', 'rich', 'yaml'}" if "--help" in argv else "{'torch'}"
    code = f"import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit({heavy} & set(sys.modules))"
    arguments = [word.format(run_study.folder) for word in argv]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "set()\n"


def test_help_imports_no_heavy_package():
    code = """
import io, sys
from contextlib import redirect_stdout
from tuner.__main__ import main
from tuner.cli.commands import COMMANDS
for command in COMMANDS:
    with redirect_stdout(io.StringIO()) as printed:
        assert main([command.name, "--help"]) == 0
    assert f"khmer-tuner {command.name}" in printed.getvalue()
    print(command.name)
print({"torch", "optuna", "pydantic", "rich", "yaml", "numpy", "sqlalchemy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *names, heavy = done.stdout.splitlines()
    assert {"run", "search", "resume", "worker", "status", "export"} <= set(names)
    assert heavy == "set()"


def test_status_shows_every_trial(cli, run_study):
    table = cli.ok("status", "--output-dir", run_study.folder)
    assert [line.split()[1:3] for line in table.out.splitlines() if line.strip().startswith(("0", "1 ខ"))] == [
        ["broken", "failed"],
        ["ខ្មែរ", "completed"],
    ]
    status = json.loads(cli("status", "--output-dir", run_study.folder, "--json").out)
    assert status["counts"]["failed"] == 1
    assert status["best"]["name"] == "ខ្មែរ"


def test_evaluate_scores_a_split(cli, run_study, tiny_dataset):
    argv = ["evaluate", "--metadata", tiny_dataset, "--output-dir", run_study.folder]
    assert "all" in cli.ok(*argv).out
    whole = json.loads(cli(*argv, "--split", "val", "--json").out)
    ran = json.loads(run_study.results.read_text())["best_result"]
    assert whole["samples"] == 8
    assert whole["char_accuracy"] == pytest.approx(ran["best_val_char_accuracy"])
    assert "'tset'" in cli.error(*argv, "--split", "tset")


def test_predict_reads_images_and_names_those_it_cannot_read(cli, run_study, tiny_dataset):
    images = sorted((tiny_dataset.parent / "test").glob("*.png"))[:2]
    checkpoint = run_study.folder / "ខ្មែរ" / "checkpoints" / "best.pt"
    read = cli.ok("predict", *images, "--checkpoint", checkpoint)
    shown = [line for line in read.out.splitlines()[1:] if not line.lstrip().startswith("flagged: ")]
    assert [line.split()[-1] for line in shown] == [str(image) for image in images]
    Path("text.png").write_text("no picture")
    mixed = cli("predict", images[0], "text.png", "missing.png", "--output-dir", run_study.folder, "--json")
    assert mixed.code == 2
    assert [bool(reading.get("problem")) for reading in json.loads(mixed.out)] == [False, True, True]
    assert "error: text.png: " in mixed.err
    assert "error: missing.png: " in mixed.err


def test_predict_prints_its_model_and_that_subfolders_are_skipped(cli, run_study, tiny_dataset):
    checkpoint = run_study.folder / "ខ្មែរ" / "checkpoints" / "best.pt"
    Path("images/inner").mkdir(parents=True)
    Path("images/.hidden").mkdir()
    shutil.copy(next((tiny_dataset.parent / "test").glob("*.png")), "images/one.png")
    read = cli("predict", "images", "--json", "--output-dir", run_study.folder)
    assert [reading["path"] for reading in json.loads(read.out)] == ["images/one.png"]
    assert read.err.splitlines() == [
        f"model: {checkpoint}",
        "images: 1 subfolder skipped; add a subfolder as IMAGE to read its images",
    ]
    Path("images/inner").rmdir()
    assert cli("predict", "images", "images/one.png", "--output-dir", run_study.folder).err.splitlines() == [
        f"model: {checkpoint}"
    ]


def test_data_does_not_generate_an_existing_dataset_again(cli, tree):
    argv = ["data", "--samples", "20", "--test-samples", "2", "--out", "data"]
    first = cli(*argv)
    before = tree(Path())
    second = cli(*argv)
    assert first.out == second.out == "data/metadata.yaml\n"
    assert "22 of 22 images generated" in first.err
    assert "already exists" in second.err
    assert tree(Path()) == before
    cli.error(*argv, "--seed", "1")
    assert tree(Path()) == before


def test_validate_shows_the_plan_and_reads_every_image(cli, write_config):
    valid = cli.ok("validate", write_config({"one": {}, "two": {"optimizer": {"type": "adamw"}}}, common={}))
    assert "adamw" in valid.out
    assert "common: not used" in valid.out
    assert "all images read: train 32, val 8" in valid.out
    assert not Path("training_output").exists()


def test_validate_finds_the_built_in_presets_and_reports_the_missing_dataset(cli):
    valid = cli.ok("validate", "config/phase3_simple_configs.yaml")
    assert "baseline_optimized" in valid.out
    assert "does not exist; `khmer-tuner run` generates the default dataset first" in valid.out


def test_closed_output_pipe_is_not_an_error(run_study):
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", "export", "--output-dir", run_study.folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_damaged_database_is_reported(cli, run_study, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_study.folder, copy)
    (copy / "study.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    for command in (["status"], ["export"], ["run", "--config", run_study.config]):
        assert "study.db" in cli.error(*command, "--output-dir", copy)
