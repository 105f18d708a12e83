"""`khmer-tuner export-model`, and the commands that read its file."""

import json
import shutil
import sys
from pathlib import Path

import pytest


def test_exported_model_reads_and_scores_like_the_checkpoint(cli, run_study, tiny_dataset):
    written = cli("export-model", "--output-dir", run_study.folder, "--license", "MIT")
    assert (written.code, written.err) == (0, f"checkpoint: {run_study.folder}/ខ្មែរ/checkpoints/best.pt\n")
    first, second = written.out.splitlines()
    assert first.startswith("written: reader.onnx, 0.")
    assert second.startswith(
        "PyTorch and ONNX Runtime read all 8 validation images identically (single precision, CPU)"
    )
    content = Path("reader.onnx").read_bytes()

    again = cli("export-model", "--output-dir", run_study.folder, "--license", "MIT", "--trial", "1", "--json")
    plain = json.loads(again.out)
    assert (plain["file"], plain["bytes"]) == (str(Path("reader.onnx").absolute()), len(content))
    assert (plain["trial"], plain["trial_number"], plain["comparison"]["images"]) == ("ខ្មែរ", 1, 8)
    assert Path("reader.onnx").read_bytes() == content

    images = sorted((tiny_dataset.parent / "test").glob("*.png"))
    of_study = ["--output-dir", run_study.folder, "--json"]
    expected = json.loads(cli("predict", *images, *of_study).out)
    found = json.loads(cli("predict", *images, "--checkpoint", "reader.onnx", "--json").out)
    assert [(item["path"], item["text"]) for item in found] == [(item["path"], item["text"]) for item in expected]
    assert [item["confidence"] for item in found] == pytest.approx([item["confidence"] for item in expected], abs=1e-5)
    score = ["evaluate", "--metadata", tiny_dataset]
    expected, found = (
        json.loads(cli(*score, *more).out) for more in (of_study, ["--checkpoint", "reader.onnx", "--json"])
    )
    assert (found.pop("loss"), expected.pop("loss") > 0) == (None, True)
    assert found.pop("checkpoint") == "reader.onnx"
    expected.pop("checkpoint")
    assert found == expected
    assert "loss" not in cli(*score, "--checkpoint", "reader.onnx").out


@pytest.mark.parametrize(
    ("argv", "problems"),
    [
        (["--trial", "nothing"], ["trial: found 'nothing'; use one of broken, ខ្មែរ"]),
        (["--trial", "1", "--checkpoint", "best.pt"], ["--trial and --checkpoint: found both; leave out one of them"]),
        (["--checkpoint", "nothing.pt"], ["checkpoint nothing.pt: there is no such file; use a checkpoint"]),
        (["--out", "no/such/reader.onnx"], ["--out no/such/reader.onnx: there is no folder"]),
        (
            ["--out", "notes.onnx"],
            ["--out notes.onnx: this file exists and is not a model written by"],
        ),
        (["--out", "foreign.onnx"], ["--out foreign.onnx: this file exists and is not a model written by"]),
        (["--out", "requirements.onnx"], ["--out requirements.onnx: this file exists and is not a model written by"]),
        (
            ["--out", "model.bin"],
            ["--out: found 'model.bin'; expected a file name that ends in .onnx; add this"],
        ),
        (["--out", "-"], ["--out: found '-'; expected a file name that ends in .onnx"]),
        (["--out", "folder.onnx"], ["--out folder.onnx: this is a folder; expected a file; add a file name"]),
        (["--metadata", "/nothing.yaml"], ["/nothing.yaml: the dataset's metadata file does not exist"]),
        (
            ["--trial", "9", "--out", "notes.onnx"],
            ["trial: found '9'; expected a trial number from 0 to 1", "--out notes.onnx: this file exists"],
        ),
    ],
    ids=str,
)
def test_wrong_input_is_refused_and_nothing_is_written(argv, problems, cli, run_study, tree):
    Path("notes.onnx").write_text("my notes")
    Path("requirements.onnx").write_text("khmer-ocr-tuner==0.1\n")
    Path("folder.onnx").mkdir()
    Path("foreign.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    before = tree(Path())
    done = cli.error("export-model", "--output-dir", run_study.folder, *argv)
    errors = [line.removeprefix("error: ") for line in done.splitlines() if line.startswith("error: ")]
    assert [error[: len(problem)] for error, problem in zip(errors, problems, strict=True)] == problems
    assert tree(Path()) == before


def test_trial_without_a_best_checkpoint_is_refused(cli, run_study, tmp_path):
    copy = Path(shutil.copytree(run_study.folder, tmp_path / "copy"))
    (copy / "broken" / "checkpoints" / "best.pt").unlink()
    done = cli.error("export-model", "--output-dir", copy, "--trial", "broken")
    assert done.startswith("error: checkpoint ")
    assert "the best checkpoint of trial 'broken' (number 0, failed) is missing; restore it, use an" in done
    assert not Path("reader.onnx").exists()


def test_waiting_trial_is_refused(cli, run_study, copy_of_the_study):
    cli.ok("enqueue", "--trials", "1", "--output-dir", copy_of_the_study)
    done = cli.error("export-model", "--output-dir", copy_of_the_study, "--trial", "2")
    assert "the best checkpoint of trial 'search_0002' (number 2, waiting) is missing" in done


def test_unwritable_folder_is_refused(cli, run_study, monkeypatch):
    Path("closed").mkdir()
    # Root can write to every folder, so the check itself is replaced.
    monkeypatch.setattr("tuner.session.output_paths.os.access", lambda path, mode: Path(path).name != "closed")
    done = cli("export-model", "--output-dir", run_study.folder, "--out", "closed/reader.onnx")
    assert (done.code, done.out, [*Path("closed").iterdir()]) == (2, "", [])
    folder = Path("closed").absolute()
    assert done.err == f"error: --out closed/reader.onnx: the folder {folder} is not writable; choose another folder\n"


def test_missing_packages_are_named_with_the_pip_command(cli, run_study, monkeypatch):
    for package in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    done = cli.error("export-model", "--output-dir", run_study.folder)
    assert done == (
        "error: export-model: missing Python packages: onnx, onnxscript; install them: pip install onnx onnxscript "
        "onnxruntime\n"
    )
