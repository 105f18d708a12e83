"""Commands that use the winner of a study: `best`, `predict`, `evaluate` and `confirm`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tuner.data.vocabulary import KHMER_DIGITS
from tuner.training.checkpoints import load_checkpoint, save_checkpoint

METRICS = ("train_loss", "val_loss", "val_char_accuracy", "val_seq_accuracy", "learning_rate")


def epochs(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: line[name] for name in METRICS} for line in lines]


def test_best_then_run_reproduces_results_with_more_threads(cli, run_study):
    written = cli.ok("best", "--output-dir", run_study.folder, "--out", "best.yaml")
    assert "written     best.yaml and best_models.yaml" in written.out
    cli.ok("validate", "best.yaml")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the study had one thread
    try:
        again = cli("run", "--config", "best.yaml", "--output-dir", "again", "--results-file", "again.json")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert again.code == 0
    assert "PyTorch threads: 1" in Path("again/best_ខ្មែរ/logs/training.log").read_text()
    assert epochs(Path("again/best_ខ្មែរ")) == epochs(run_study.folder / "ខ្មែរ")


def test_best_prints_a_summary_or_the_configuration(cli, run_study, tree):
    before = tree(run_study.folder)
    printed, plain = (cli("best", "--output-dir", run_study.folder, *more) for more in ([], ["--json"]))
    assert printed.code == plain.code == 0
    best = json.loads(plain.out)
    ran = json.loads(run_study.results.read_text())["best_result"]
    assert best["name"] == ran["experiment_name"] == "ខ្មែរ"
    assert best["outcome"]["best_val_char_accuracy"] == ran["best_val_char_accuracy"]
    assert best["best_epoch"]["epoch"] == best["outcome"]["best_epoch"]
    assert Path(best["checkpoint"]).is_file()
    assert best["preset_file"] is None
    assert best["checkpoint"] in printed.out
    Path("printed.yaml").write_text(printed.out, encoding="utf-8")
    Path("plain.yaml").write_text(json.dumps(best["preset"]), encoding="utf-8")
    plans = [cli("validate", file).out.splitlines()[1:] for file in ("printed.yaml", "plain.yaml")]
    # Notes and warnings contain the file name.
    plan_lines = [[line for line in plan if not line.startswith(("note: ", "warning: "))] for plan in plans]
    assert plan_lines[0] == plan_lines[1]
    assert "best_ខ្មែរ" in str(plan_lines)
    assert tree(run_study.folder) == before


def test_best_accepts_limits_and_names_them(cli, run_study):
    limits = ["--max-latency-ms", "1000", "--max-parameters", "1000000"]
    written = cli.ok("best", "--output-dir", run_study.folder, *limits, "--out", "best.yaml")
    why = "the only completed trial with at most 1,000 ms per image and at most 1,000,000 parameters"
    for text in (written.out, Path("best.yaml").read_text(encoding="utf-8")):
        assert f"why best    {why}" in text
        assert re.search(r"^(# )?size        2,231 parameters, .* ms per image", text, re.MULTILINE)
    cli.ok("validate", "best.yaml")
    assert json.loads(cli("best", "--output-dir", run_study.folder, *limits, "--json").out)["why"] == why


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--output-dir", "nope"], "no such folder"),
        (
            ["--output-dir", "{study}", "--out", "foreign.yaml"],
            "foreign.yaml: this file exists and is not a configuration written",
        ),
        (["--output-dir", "{study}", "--out", "no/best.yaml"], "there is no folder"),
        (["--output-dir", "{study}", "--out", ""], "--out"),
        (["--output-dir", "{study}", "--study", "another"], "belongs to the study 'khmer-ocr'"),
        (["--output-dir", "{study}", "--max-latency-ms", "0"], "--max-latency-ms: found '0'; expected a finite number"),
        (["--output-dir", "{study}", "--max-latency-ms", "inf"], "expected a finite number of milliseconds above 0"),
        (["--output-dir", "{study}", "--max-latency-ms", "fast"], "expected a finite number of milliseconds above 0"),
        (["--output-dir", "{study}", "--max-parameters", "0"], "--max-parameters: found '0'; expected a whole number"),
        (["--output-dir", "{study}", "--max-parameters", "1e5"], "--max-parameters: found '1e5'"),
        (
            ["--output-dir", "{study}", "--max-parameters", "10", "--out", "best.yaml"],
            "found no completed trial with at most 10 parameters; the lowest is 2,231 parameters (ខ្មែរ); use higher",
        ),
        (["--output-dir", "{study}", "--max-latency-ms", "1e-9"], "with at most 1e-09 ms per image; the lowest is "),
    ],
)
def test_best_refuses_invalid_input(argv, expected, cli, run_study, working_dir, tree):
    Path("foreign.yaml").write_text("mine: 1\n")
    before = tree(working_dir)
    outcome = cli("best", *[word.format(study=run_study.folder) for word in argv])
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert expected in outcome.err
    assert outcome.out == ""
    assert tree(working_dir) == before


def test_best_and_the_checks_of_confirm_import_no_torch(run_study):
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for command in ("best", "confirm"):  # the study has one completed experiment: confirm refuses it
        argv = [sys.executable, "-c", code, command, "--output-dir", run_study.folder]
        assert subprocess.run(argv, capture_output=True).returncode == 0


def test_confirm_refuses_a_study_with_nothing_to_compare(cli, run_study, tree):
    before = tree(run_study.folder.parent)
    outcome = cli.error("confirm", "--output-dir", run_study.folder)
    assert "completed configurations: found 1; expected at least 2" in outcome
    outcome = cli.error("confirm", "--output-dir", run_study.folder, "--top", "1", "--seeds", "0")
    assert [word in outcome for word in ("--top", "--seeds", "3 problems")] == [True] * 3
    assert tree(run_study.folder.parent) == before


def test_predict_reads_every_image_format_and_names_other_files(cli, run_study, tiny_dataset, working_dir):
    source = next((tiny_dataset.parent / "test").glob("*.png"))
    with Image.open(source) as opened:
        image = opened.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 8
    images = working_dir / "images"
    images.mkdir()
    image.save(images / "grey.png")
    image.resize((300, 150)).save(images / "larger.jpg")
    image.transpose(Image.Transpose.ROTATE_270).save(images / "turned.png", exif=exif)
    Image.fromarray(np.asarray(image, np.uint16) * 257).save(images / "deep.png")
    Image.merge("LA", (image, Image.new("L", image.size, 255))).save(images / "transparent.png")
    Image.new("L", (30, 400), 200).save(images / "narrow.png")
    (images / "text.png").write_text("no image")
    (images / "half.png").write_bytes(source.read_bytes()[:1500])
    Image.new("1", (20_000, 20_000)).save(images / "bomb.png")
    table = cli("predict", "images", "--output-dir", run_study.folder)
    assert table.code == 2
    errors = [line for line in table.err.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1].strip() for line in errors] == [
        f"images/{name}.png" for name in ("bomb", "half", "text")
    ]
    assert "more than 50 million pixels" in errors[0]
    plain = {Path(entry["path"]).name: entry for entry in json.loads(cli(*PREDICT, run_study.folder).out)}
    texts = {plain[name]["text"] for name in ("grey.png", "turned.png", "deep.png", "transparent.png")}
    assert len(texts) == 1
    assert [bool(entry.get("problem")) for entry in plain.values()].count(True) == 3
    assert any(flag.startswith("aspect ratio 0.07 is outside 1.60") for flag in plain["narrow.png"]["flagged"])
    lines = table.out.splitlines()
    below = lines[lines.index(next(line for line in lines if line.endswith("narrow.png"))) + 1]
    assert below.strip().startswith("flagged: ")
    assert lines[0].index("image") == below.index("flagged")


def test_predict_notes_many_out_of_distribution_images_once(cli, run_study, tiny_dataset):
    images = sorted((tiny_dataset.parent / "test").glob("*.png"))
    for count, expected in ((4, 0), (8, 1)):  # the study's model has learned nothing, so every reading is flagged
        read = cli.ok("predict", *images[:count], "--json", "--output-dir", run_study.folder)
        assert all(reading["flagged"] for reading in json.loads(read.out))
        assert read.err.count(f"{count} of {count} images are out-of-distribution") == expected
    assert "khmer-tuner data --fonts" in read.err
    assert cli("predict", *images[:8], "--output-dir", run_study.folder).err == read.err


def test_predict_notes_that_an_unfinished_checkpoint_flags_fewer_images(cli, run_study, tiny_dataset, working_dir):
    image = next((tiny_dataset.parent / "test").glob("*.png"))
    state = load_checkpoint(run_study.folder / "ខ្មែរ" / "checkpoints" / "best.pt")
    counts = []
    for name in ("finished.pt", "unfinished.pt"):
        save_checkpoint(working_dir / name, state)
        read = cli.ok("predict", "--checkpoint", name, image)
        counts.append(read.err.count("only confidences below 0.5 and unusual aspect ratios can be flagged"))
        state["validation"].pop("tta_confidence", None)
    assert counts == [0, 1]


def test_predict_escapes_control_sequences_in_file_names(cli, run_study, tiny_dataset, working_dir):
    source = next((tiny_dataset.parent / "test").glob("*.png"))
    names = ["a\n១២៣            1.0000  fake.png", "\x1b[2Jclear.png", "bad\udcff.png"]
    for name in names:
        shutil.copy(source, working_dir / name)
    (working_dir / "none\x1b[1A.png").write_text("no image")
    read = cli("predict", ".", "--output-dir", run_study.folder)
    assert read.code == 2
    shown = [line.split("  ", 2)[-1].strip() for line in read.out.splitlines()[1:] if "flagged: " not in line]
    assert [line.split()[1] for line in shown] == [r"\x1b[2Jclear.png", r"a\n១២៣", r"bad\udcff.png"]
    assert r"error: none\x1b[1A.png: " in read.err
    assert "\x1b" not in read.out + read.err
    plain = json.loads(cli("predict", ".", "--json", "--output-dir", run_study.folder).out)
    assert {entry["path"] for entry in plain} >= set(names[:2])


@pytest.mark.parametrize("images", [[""], ["", "generated_data", " "]])
def test_predict_refuses_an_empty_name(images, cli, run_study):
    read = cli.error("predict", *images, "--output-dir", run_study.folder)
    assert read.startswith("error: IMAGE: found ''; expected a value that is not empty")


PREDICT = ("predict", "images", "--json", "--output-dir")


def test_evaluate_reports_confused_characters(cli, run_study, tiny_dataset):
    argv = ["evaluate", "--metadata", tiny_dataset, "--output-dir", run_study.folder]
    table, plain = cli(*argv).out, json.loads(cli(*argv, "--json").out)
    rows = [line.split() for line in table.splitlines() if re.match(f"[{KHMER_DIGITS}] ", line)]
    assert [row[0] for row in rows] == list(KHMER_DIGITS)
    labels = re.findall(r'"label": "(.+?)"', tiny_dataset.read_text(encoding="utf-8").split("\ntest:\n")[1])
    for digit, row in zip(KHMER_DIGITS, rows, strict=True):
        score = plain["by_character"][digit]
        assert int(row[1]) == score["count"] == sum(label.count(digit) for label in labels[:10])
        assert row[2] == ("-" if score["recall"] is None else f"{score['recall']:.4f}")
        assert sum(score["read_as"].values()) == round(score["count"] * (1 - (score["recall"] or 0)))
    assert plain["confusion"][10][10] == 0
    assert max(map(len, table.splitlines()[3:])) <= 80


def test_winner_without_checkpoint_can_be_retrained(cli, run_study, tmp_path):
    copy = Path(shutil.copytree(run_study.folder, tmp_path / "copy"))
    (copy / "ខ្មែរ" / "checkpoints" / "best.pt").unlink()
    assert "best.pt (missing)" in cli.ok("best", "--output-dir", copy).out
    assert json.loads(cli("best", "--output-dir", copy, "--json").out)["checkpoint"] is None
