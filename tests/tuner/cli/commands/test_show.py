"""`show`: prints all information about one trial."""

import json
import re

import pytest
import torch

from studies.trials.record import StartedAfter
from tuner.cli.commands.show import _STARTED_AFTER
from tuner.training import loop
from tuner.training.device import MemoryExhaustedError

# Buffers of batch normalisation, which are not parameters.
_STATISTICS = ("running_", "num_batches_tracked")


def test_every_reason_of_an_attempt_has_a_text():
    assert set(_STARTED_AFTER) == set(StartedAfter)


def section(out, title):
    """Return the lines below a title, up to the next blank line."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    end = next((number for number in range(start, len(lines)) if not lines[number].strip()), len(lines))
    return [line.rstrip() for line in lines[start + 1 : end]]


@pytest.mark.parametrize("trial", ["1", "ខ្មែរ"])
def test_a_trial_is_found_by_its_number_and_by_its_name(trial, cli, run_study):
    shown = cli("show", trial, "--output-dir", run_study.folder)
    assert (shown.code, shown.err) == (0, "")
    headline, size_and_speed, *_ = shown.out.splitlines()
    parameters = parameters_of_tiny(run_study.folder)
    known = f"{parameters:,} parameters, checkpoint 0.0. MB, .* ms per image .batch 1., .* images/s .batch 64."
    assert re.fullmatch(f"size and speed: {known}", size_and_speed)
    assert headline.startswith("trial 1, ខ្មែរ: completed, max epochs, 2 of 2 epochs, best val_char_accuracy 0.")
    settings = dict(line.split(maxsplit=1) for line in section(shown.out, "settings"))
    # Only settings that the search space varies or that differ from their default, and no paths or devices.
    assert (settings["model_name"], settings["batch_size"], settings["num_epochs"]) == ("tiny", "8", "2")
    assert not settings.keys() & {"metadata_path", "device", "experiment_name", "seed"}
    header, *epochs = section(shown.out, "epochs, with validation metrics")
    assert header.split()[:3] == ["epoch", "char", "seq"]
    assert [line.lstrip("* ").split()[0] for line in epochs] == ["1", "2"]
    assert [line.lstrip().startswith("*") for line in epochs].count(True) == 1
    _, attempt = section(shown.out, "attempts")
    assert attempt.endswith("0 enqueued")
    assert section(shown.out, "last lines of the training log")[-1].endswith(
        "ended: max_epochs, best epoch " + best_epoch(epochs)
    )
    assert shown.out.rstrip().endswith(f"folder: {run_study.folder / 'ខ្មែរ'}")


def parameters_of_tiny(folder):
    model = torch.load(folder / "ខ្មែរ" / "checkpoints" / "best.pt", weights_only=True)["model"]
    return sum(tensor.numel() for name, tensor in model.items() if not name.rpartition(".")[2].startswith(_STATISTICS))


def best_epoch(epochs):
    return next(line for line in epochs if line.lstrip().startswith("*")).split()[1]


def test_error_of_a_failed_trial_is_shown_with_its_traceback(cli, run_study):
    shown = cli.ok("show", "broken", "--output-dir", run_study.folder)
    headline, error, *_ = shown.out.splitlines()
    assert headline.startswith("trial 0, broken: failed, 1 of 2 epochs")
    assert error == "error: RuntimeError simulated error"
    assert any("RuntimeError: simulated error" in line for line in section(shown.out, "last lines of the training log"))


def test_json_has_all_data_and_agrees_with_the_results_file(cli, run_study):
    shown = cli("show", "1", "--json", "--output-dir", run_study.folder)
    trial = json.loads(shown.out)
    results = json.loads(run_study.results.read_text(encoding="utf-8"))
    (result,) = [entry for entry in results["all_results"] if entry["experiment_name"] == "ខ្មែរ"]
    assert (trial["number"], trial["name"], trial["kind"], trial["state"]) == (1, "ខ្មែរ", "preset", "completed")
    assert trial["outcome"]["best_val_char_accuracy"] == result["best_val_char_accuracy"]
    assert [epoch["epoch"] for epoch in trial["epochs"]] == [1, 2]
    assert trial["best_value"] == max(epoch["val_char_accuracy"] for epoch in trial["epochs"])
    assert trial["config"]["model_name"] == "tiny"
    assert [attempt["after"] for attempt in trial["attempts"]] == ["waiting"]
    assert (trial["worker_pid"], trial["folder"]) == (None, str(run_study.folder / "ខ្មែរ"))
    assert trial["log"][-1].split("ended: ")[1].startswith("max_epochs")


def test_waiting_trial_has_no_settings_yet(cli, copy_of_the_study):
    cli.ok("enqueue", "--trials", "1", "--output-dir", copy_of_the_study)
    shown = cli.ok("show", "search_0002", "--output-dir", copy_of_the_study)
    assert [line for line in shown.out.splitlines() if line] == [
        "trial 2, search_0002: waiting",
        "settings: not sampled yet",
        f"folder: {copy_of_the_study / 'search_0002'}",
    ]


def test_nothing_in_a_log_moves_the_cursor(cli, copy_of_the_study):
    with (copy_of_the_study / "ខ្មែរ" / "logs" / "training.log").open("a") as log:
        log.write("evil \x1b[2J\x1b]0;title\x07 end")
    shown = cli("show", "1", "--output-dir", copy_of_the_study).out
    assert section(shown, "last lines of the training log")[-1] == r"  evil \x1b[2J\x1b]0;title\x07 end"


def test_long_curve_is_thinned_and_keeps_the_last_epoch(cli, copy_of_the_study):
    metrics = copy_of_the_study / "ខ្មែរ" / "metrics.jsonl"
    epoch = json.loads(metrics.read_text().splitlines()[0])
    lines = [json.dumps(epoch | {"epoch": number, "val_char_accuracy": number / 101}) for number in range(1, 102)]
    metrics.write_text("\n".join(lines) + "\n")
    _, *shown = section(cli("show", "1", "--output-dir", copy_of_the_study).out, "epochs, with validation metrics")
    assert [line.lstrip("* ").split()[0] for line in shown] == [str(number) for number in range(2, 102, 3)]
    assert shown[-1].lstrip().startswith("*")
    # The bars rise with the metric.
    bars = [line.count("#") for line in shown]
    assert bars == sorted(bars)
    assert bars[-1] == 20


@pytest.mark.parametrize(
    ("trial", "expected"), [("7", "'7'"), ("brokn", "did you mean 'broken'?"), ("../ខ្មែរ", "'../ខ្មែរ'"), ("", "empty")]
)
def test_unknown_trial_is_reported(trial, expected, cli, run_study):
    assert expected in cli.error("show", trial, "--output-dir", run_study.folder)


def test_micro_batches_after_a_lack_of_memory_are_shown(cli, write_config, monkeypatch):
    run_epoch, failures = loop.run_epoch, iter([MemoryExhaustedError(8, "no memory")])

    def fail_once(*arguments):
        if (error := next(failures, None)) is not None:
            raise error
        return run_epoch(*arguments)

    monkeypatch.setattr(loop, "run_epoch", fail_once)
    config = write_config({"one": {"training": {"num_epochs": 1, "batch_size": 8}}})
    cli.ok("run", "--config", config, "--output-dir", "out")
    shown = cli.ok("show", "one", "--output-dir", "out").out
    assert "micro-batch: 4 images, because memory ran out with whole batches" in shown
