"""Retraining of the best trials on new seeds; interrupted repetitions are resumed, finished repetitions reused."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import ConfigurationError
from studies import PrunerName, SearchRequest, load_study, load_study_for_changes, request_stop
from studies.report.snapshot import take_snapshot
from studies.report.tables import find_confirmation
from tuner.__main__ import main
from tuner.analysis.best_trial import find_winner
from tuner.analysis.candidates import find_candidates
from tuner.analysis.confirmation import confirm
from tuner.display.events import Display
from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.inference.reader import evaluate_split

SEED = 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory, configs_in, spaces_in):
    """The output folder of a study with three presets and two search trials; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    training = {"seed": SEED, "learning_rate": 0.01}
    config = configs_in(folder)(
        {
            "one": {"training": training},
            "one again": {"training": training},
            "two": {"model": {"name": "tiny_ctc"}, "training": training | {"loss_type": "ctc"}},
        }
    )
    HyperparameterTuner(
        str(config),
        options=RunOptions(
            output_dir=str(folder / "out"),
            results_file=str(folder / "results.json"),
            space_file=str(spaces_in(folder)()),
            search=SearchRequest(pruner=PrunerName.NONE, at_least=2),
        ),
    ).run_experiments()
    return folder / "out"


@pytest.fixture
def study(finished, tmp_path):
    """The path of a copy of the folder `finished`, without repetitions."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def confirmed(candidates, count, display=None, **more):
    @contextmanager
    def opened():
        yield display or Display()

    return confirm(candidates, candidates.new_seeds(count), open_display=opened, **{"device": "cpu", **more})


def trained(candidates):
    """Return the lines of the metrics files, keyed by the folders of the repetitions."""
    files = sorted(candidates.root.rglob("metrics.jsonl"))
    return {str(file.parent.relative_to(candidates.root)): file.read_text().splitlines() for file in files}


def test_candidates_are_the_best_different_configurations(finished):
    candidates = find_candidates(*load_study(finished), 10)
    names = [record.experiment_name for record in candidates.records]
    assert names[0] == find_winner(*load_study(finished)).name
    assert len(names) == 4  # two of the five trials have the same settings
    assert len({"one", "one again"} & set(names)) == 1
    accuracies = [record.outcome.best_val_char_accuracy for record in candidates.records if record.outcome]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [record.experiment_name for record in find_candidates(*load_study(finished), 2).records] == names[:2]


def test_new_seeds_follow_the_seed_of_the_study(finished):
    candidates = find_candidates(*load_study(finished), 2)
    assert candidates.new_seeds(3) == [SEED + 1, SEED + 2, SEED + 3]


def test_confirmation_has_the_accuracies_of_the_repetitions(study):
    candidates = find_candidates(*load_study(study), 2)
    confirmation = confirmed(candidates, 2)
    assert confirmation.seeds == (SEED + 1, SEED + 2)
    assert confirmation.count("completed") == 4
    for candidate in confirmation.candidates:
        for repetition in candidate.repetitions:
            name = candidate.name if not candidate.name.startswith("search_") else f"best_{candidate.name}"
            checkpoint = candidates.seed_dir(repetition.seed) / name / "checkpoints" / "best.pt"
            reader = reader_of_checkpoint(checkpoint, device="cpu")
            assert reader.config.seed == repetition.seed
            test = evaluate_split(reader, candidates.metadata_path, "test")
            val = evaluate_split(reader, candidates.metadata_path, "val")
            assert (repetition.test_char_accuracy, repetition.test_seq_accuracy) == (
                test.char_accuracy,
                test.seq_accuracy,
            )
            assert repetition.val_char_accuracy == val.char_accuracy
        assert candidate.mean("test_char_accuracy") == pytest.approx(sum(candidate.values("test_char_accuracy")) / 2)
    winner, other = confirmation.candidates
    (comparison,) = confirmation.comparisons
    differences = [
        one - two
        for one, two in zip(winner.values("test_char_accuracy"), other.values("test_char_accuracy"), strict=True)
    ]
    assert comparison.difference == pytest.approx(sum(differences) / 2)
    assert (comparison.first, comparison.second) == (winner.name, other.name)


def test_repeated_confirmation_only_trains_additional_seeds(study, make_watcher):
    candidates = find_candidates(*load_study(study), 2)
    first = confirmed(candidates, 1)
    before = trained(candidates)
    again = make_watcher()
    assert confirmed(candidates, 1, again) == first
    assert again.started == []
    assert trained(candidates) == before
    more = make_watcher()
    assert confirmed(candidates, 2, more).candidates[0].repetitions[:1] == first.candidates[0].repetitions
    assert len(more.started) == 2
    assert trained(candidates).items() > before.items()


def test_confirmation_does_not_change_if_metrics_files_of_repetitions_are_missing(study):
    candidates = find_candidates(*load_study(study), 2)
    first = confirmed(candidates, 1)
    for file in candidates.root.rglob("metrics.jsonl"):
        file.unlink()
    assert confirmed(candidates, 1) == first


def test_preset_with_the_same_name_as_a_repetition_of_a_search_trial_is_trained_too(
    tmp_path, write_config, write_space, make_watcher
):
    long = "best_search_0002_".ljust(64, "x")
    HyperparameterTuner(
        str(write_config({"best_search_0002": {}, long: {"training": {"num_epochs": 1}}})),
        options=RunOptions(
            output_dir=str(tmp_path / "out"),
            results_file=str(tmp_path / "results.json"),
            space_file=str(write_space()),
            search=SearchRequest(pruner=PrunerName.NONE, at_least=1),
        ),
    ).run_experiments()
    watcher = make_watcher()
    confirmation = confirmed(find_candidates(*load_study(tmp_path / "out"), 3), 1, watcher)
    assert {name for name, _, _ in watcher.started} == {"best_search_0002", "best_search_0002_0", f"{long[:62]}_1"}
    assert confirmation.count("completed") == 3
    again = make_watcher()
    fewer = confirmed(find_candidates(*load_study(tmp_path / "out"), 2), 1, again)
    assert (fewer.candidates, again.started) == (confirmation.candidates[:2], [])


def test_interrupted_confirmation_is_resumed_with_the_same_results(study, tmp_path, make_watcher):
    candidates = find_candidates(*load_study(study), 2)
    with pytest.raises(KeyboardInterrupt):
        confirmed(candidates, 1, make_watcher(after_epoch=1, of_trial=1))
    second_call = make_watcher()
    interrupted = confirmed(candidates, 1, second_call)
    assert [(number, resumed) for _, number, resumed in second_call.started] == [(1, True)]
    uninterrupted = confirmed(find_candidates(*load_study(shutil.copytree(study, tmp_path / "other" / "out")), 2), 1)
    assert interrupted.candidates == uninterrupted.candidates


def test_stopped_confirmation_reports_finished_repetitions_and_the_next_call_resumes_it(study, make_watcher):
    candidates = find_candidates(*load_study(study), 2)

    def stop():
        request_stop(load_study_for_changes(candidates.seed_dir(SEED + 1))[0])

    stopped = confirmed(candidates, 2, make_watcher(after_epoch=1, of_trial=1, action=stop))
    assert (stopped.count("completed"), stopped.count("unfinished")) == (1, 3)
    assert not candidates.seed_dir(SEED + 2).exists()
    assert confirmed(candidates, 2).count("completed") == 4


@pytest.mark.parametrize("when", [{"after_epoch": 1}, {"in_batch": 2}], ids=["failed", "pending"])
def test_failed_repetition_is_excluded(when, study, make_watcher, fail):
    candidates = find_candidates(*load_study(study), 2)
    confirmation = confirmed(candidates, 1, make_watcher(**when, action=fail))
    assert (confirmation.count("failed"), confirmation.count("completed")) == (1, 1)
    assert None in [candidate.mean("test_char_accuracy") for candidate in confirmation.candidates]
    assert "no completed seed in common" in confirmation.comparisons[0].sentence("test char")


def test_repetitions_with_other_settings_are_refused(study):
    candidates = find_candidates(*load_study(study), 2)
    confirmed(candidates, 1)
    before = trained(candidates)
    first, *others = candidates.records
    changed = replace(first, config=first.config | {"weight_decay": 0.5})
    with pytest.raises(ConfigurationError, match=r"weight_decay was .* and is 0\.5 now(.|\n)*move .*out_confirm away"):
        confirmed(replace(candidates, records=(changed, *others)), 1)
    assert trained(candidates) == before


def test_error_of_an_unavailable_device_does_not_suggest_retraining(study, monkeypatch):
    candidates = find_candidates(*load_study(study), 2)
    confirmed(candidates, 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigurationError) as caught:
        confirmed(candidates, 1, device="cuda")
    assert len(caught.value.problems) == 1
    assert "no CUDA device" in caught.value.problems[0]


def test_configurations_of_another_device_are_retrained_on_the_requested_device(study, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    candidates = find_candidates(*load_study(study), 2)
    of_cuda = tuple(replace(record, config=record.config | {"device": "cuda"}) for record in candidates.records)
    assert confirmed(replace(candidates, records=of_cuda), 1).count("completed") == 2


def test_changed_dataset_is_refused(study, tmp_path, tiny_dataset):
    copy = Path(shutil.copytree(tiny_dataset.parent, tmp_path / "generated_data"))
    change_invariants(study, metadata_path=str(copy / "metadata.yaml"))
    assert len(find_candidates(*load_study(study), 2).records) == 2  # a moved dataset is accepted
    one, other, *_ = sorted((copy / "train").glob("*.png"))
    shutil.copy(one, other)
    with pytest.raises(ConfigurationError, match=r"fingerprint '\w+' instead of '\w+'.*; use the study's dataset "):
        find_candidates(*load_study(study), 2)
    assert not study.with_name("out_confirm").exists()


def test_dataset_without_a_test_split_is_refused(study, tmp_path, tiny_dataset):
    copy = Path(shutil.copytree(tiny_dataset.parent, tmp_path / "generated_data")) / "metadata.yaml"
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace("\ntest:\n", "\nheld_out:\n"), encoding="utf-8")
    change_invariants(study, metadata_path=str(copy))
    with pytest.raises(ConfigurationError, match=r"split 'test' is missing.*compared on the split 'test'"):
        find_candidates(*load_study(study), 2)
    assert not study.with_name("out_confirm").exists()


def test_study_that_validates_on_the_test_split_is_refused(study):
    change_invariants(study, val_split="test")
    with pytest.raises(ConfigurationError, match="the study validates on the test split"):
        find_candidates(*load_study(study), 2)


def change_invariants(output_dir, **dataset):
    study, _ = load_study_for_changes(output_dir)
    invariants = study.user_attrs["invariants"]
    study.set_user_attr("invariants", invariants | {"dataset": invariants["dataset"] | dataset})


@pytest.mark.parametrize("as_json", [False, True])
def test_command_prints_the_confirmation_and_stores_it_for_the_report(as_json, study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    argv = ["confirm", "--output-dir", str(study), "--top", "2", "--seeds", "2", "--device", "cpu"]
    assert main([*argv, *(["--json"] if as_json else [])]) == 0
    out, err = capsys.readouterr()
    names = [record.experiment_name for record in find_candidates(*load_study(study), 2).records]
    if as_json:
        content = json.loads(out)
        assert [item["name"] for item in content["configurations"]] == names
        assert content["seeds"] == [SEED + 1, SEED + 2]
        assert content["comparisons"][0]["sentence"] in err + out
    else:
        assert [line.split()[0] for line in out.splitlines()[4:6]] == [name.split()[0] for name in names]
        assert max(map(len, out.splitlines()[:6])) <= 80
    reported = find_confirmation(take_snapshot(*load_study(study), lambda name: []))
    assert reported is not None
    assert [item["name"] for item in reported["configurations"]] == names
    assert reported["seeds"] == [SEED + 1, SEED + 2]
    assert reported["comparisons"][0]["sentence"] in " ".join(out.split())
    assert f"seed {SEED + 2} (2 of 2)" in err
    assert list(Path.cwd().glob("hyperparameter_tuning_results_*")) == []


def test_study_with_one_completed_configuration_is_refused(tmp_path, write_config, capsys):
    config = write_config({"one": {"training": {"num_epochs": 1}}})
    HyperparameterTuner(
        str(config), options=RunOptions(output_dir=str(tmp_path / "out"), results_file=str(tmp_path / "r.json"))
    ).run_experiments()
    assert main(["confirm", "--output-dir", str(tmp_path / "out")]) == 2
    assert "completed configurations: found 1; expected at least 2 to compare" in capsys.readouterr().err
    assert not (tmp_path / "out_confirm").exists()
