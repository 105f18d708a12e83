"""`clean`: the files of a study that it deletes, also during training, and those that it keeps."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces import TrainingConfig
from studies import SearchRequest, TrialOutcome, WhyEnded, add_search_trials, load_study_for_changes
from studies.trials.claims import claim_next

OUT = Path("training_output")
EVENTS = "tensorboard/events.out.tfevents.1.host.1"
CHECKPOINTS = ("checkpoints/best.pt", "checkpoints/epoch_0002.pt")
# Why each trial ended, and its accuracy, keyed by trial number. Trial 6 is running, 7 is interrupted, 8 is waiting.
FINISHED = {
    2: (WhyEnded.PRUNED, 0.9),
    3: (WhyEnded.MAX_EPOCHS, 0.8),
    4: (WhyEnded.PRUNED, 0.1),
    5: (WhyEnded.FAILED, 0.0),
}


@pytest.fixture
def study_with_files(working_dir, run_study):
    """The study of `run_study` with seven search trials, of which all but the last have files."""
    shutil.copytree(run_study.folder, OUT)
    study, folder = load_study_for_changes(OUT)
    add_search_trials(study, folder, SearchRequest(at_least=7))
    claims = []
    for number in range(2, 8):
        claim = claim_next(study, folder)
        assert claim is not None
        claim.record_config(TrainingConfig(model_name="tiny", num_epochs=4))
        claims.append(claim)
        for name in (*CHECKPOINTS, EVENTS, "checkpoints/last.pt", "metrics.jsonl", "logs/training.log"):
            file = OUT / f"search_{number:04d}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * 1000)
    for claim, (why, accuracy) in zip(claims, FINISHED.values(), strict=False):
        outcome = TrialOutcome(
            why_ended=why,
            training_time_s=1.0,
            best_val_char_accuracy=accuracy,
            best_val_seq_accuracy=accuracy,
            final_train_loss=1.0,
            total_epochs=2,
            best_epoch=1,
        )
        claim.finish(outcome, accuracy)
    claims[5].release()
    yield claims[4]
    claims[4].release()


def files():
    return {str(path.relative_to(OUT)): path.read_bytes() for path in sorted(OUT.rglob("*")) if path.is_file()}


def test_clean_deletes_exactly_the_listed_files(cli, study_with_files):
    before = files()
    dry = cli("clean", "--keep", "1", "--dry-run")
    assert files() == before
    listed = json.loads(cli("clean", "--keep", "1", "--dry-run", "--json").out)
    done = cli("clean", "--keep", "1")
    deleted = before.keys() - files().keys()
    # Trial 2 is the best trial but pruned, so trial 3 is the winner.
    failed_or_pruned = {f"search_{number:04d}/{name}" for number in (4, 5) for name in CHECKPOINTS}
    assert {name for name in deleted if not name.endswith("last.pt")} == failed_or_pruned | {
        f"search_0002/{EVENTS}",
        f"search_0004/{EVENTS}",
    }
    assert {name: content for name, content in before.items() if name not in deleted} == files()
    assert {
        str(Path(file).relative_to(OUT.absolute())) for item in listed["trials"] for file in item["files"]
    } == deleted
    assert (listed["deleted"], listed["size"]) == (False, 8000)
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[1:4] == [
        ["search_0002", "tensorboard", "1", "1.0", "kB"],
        ["search_0004", "checkpoints", "3", "3.0", "kB"],
        ["search_0004", "tensorboard", "1", "1.0", "kB"],
    ]
    assert dry.out.replace("dry run: nothing was deleted", "deleted") == done.out
    assert "total: 8.0 kB; deleted" in done.out
    assert cli("clean", "--keep", "1").out == "nothing to delete\n"
    for command in (["best"], ["status"], ["report"], ["show", "search_0004"], ["export"]):
        cli.ok(*command)


def test_clean_by_default_keeps_the_files_that_training_keeps(cli, study_with_files):
    before = files()
    cli.ok("clean")
    # A failed search trial is never among the best.
    checkpoints = {f"search_0005/{name}" for name in (*CHECKPOINTS, "checkpoints/last.pt")}
    assert before.keys() - files().keys() == checkpoints | {f"search_{number:04d}/{EVENTS}" for number in (2, 4)}


def test_the_winner_of_a_search_keeps_its_checkpoint(cli, study_with_files, tmp_path):
    """A pruned trial is better, but cannot win."""
    cli.ok("clean", "--keep", "1")
    best = json.loads(cli("best", "--json").out)
    assert best["name"] == "search_0003"
    assert Path(best["checkpoint"]).is_file()


def test_nothing_is_deleted_through_a_link(cli, study_with_files, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(OUT / "search_0005" / "checkpoints", outside)
    (OUT / "search_0005" / "checkpoints").symlink_to(outside)
    kept = sorted(outside.iterdir())
    cli.ok("clean", "--keep", "1")
    assert sorted(outside.iterdir()) == kept


@pytest.mark.parametrize(
    ("argv", "expected"), [(["--keep", "0"], "--keep: found '0'"), (["--output-dir", "nowhere"], "no such folder")]
)
def test_clean_refuses_invalid_options(argv, expected, cli, working_dir):
    assert expected in cli.error("clean", *argv)


def test_torch_is_not_imported(run_study):
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for arguments in (["clean", "--dry-run"], ["status", "--watch"]):
        argv = [sys.executable, "-c", code, *arguments, "--output-dir", str(run_study.folder)]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
