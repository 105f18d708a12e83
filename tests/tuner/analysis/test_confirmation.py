"""The best configurations, trained again on new seeds; what is killed goes on, what is repeated trains nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces import ConfigurationError
from studies import PrunerName, SearchRequest, load_study, load_study_for_changes, request_stop
from studies.report.confirmation import find_confirmation
from studies.report.snapshot import take_snapshot
from tuner.__main__ import main
from tuner.analysis.best_trial import find_winner
from tuner.analysis.candidates import Candidates, find_candidates
from tuner.analysis.confirmation import Confirmation, confirm
from tuner.display import Display
from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions
from tuner.inference.reader import evaluate_split, reader_of_checkpoint

MakeWatcher = Callable[..., Any]
SEED = 5


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, configs_in: Callable[..., Any], spaces_in: Callable[..., Any]
) -> Path:
    """The folder `out` of a study of two presets and two search trials; not to be changed."""
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
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, beside which there is nothing yet."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def confirmed(candidates: Candidates, count: int, display: Display | None = None, **more: Any) -> Confirmation:
    @contextmanager
    def opened() -> Iterator[Display]:
        yield display or Display()

    return confirm(candidates, candidates.new_seeds(count), open_display=opened, **{"device": "cpu", **more})


def trained(candidates: Candidates) -> dict[str, list[str]]:
    """Return the epochs that each repetition has, by its folder."""
    files = sorted(candidates.root.rglob("metrics.jsonl"))
    return {str(file.parent.relative_to(candidates.root)): file.read_text().splitlines() for file in files}


def test_contenders_are_the_best_that_differ(finished: Path) -> None:
    candidates = find_candidates(*load_study(finished), 10)
    names = [record.experiment_name for record in candidates.records]
    assert names[0] == find_winner(*load_study(finished)).name
    assert len(names) == 4  # of five trials two train the very same
    assert len({"one", "one again"} & set(names)) == 1
    accuracies = [record.outcome.best_val_char_accuracy for record in candidates.records if record.outcome]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [record.experiment_name for record in find_candidates(*load_study(finished), 2).records] == names[:2]


def test_seeds_are_new_and_always_the_same(finished: Path) -> None:
    candidates = find_candidates(*load_study(finished), 2)
    assert candidates.new_seeds(3) == [SEED + 1, SEED + 2, SEED + 3]


def test_figures_are_those_of_the_repetitions(study: Path) -> None:
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


def test_repeating_trains_nothing_and_more_seeds_train_only_these(study: Path, make_watcher: MakeWatcher) -> None:
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


def test_figures_stay_when_the_curves_of_a_repetition_are_gone(study: Path) -> None:
    candidates = find_candidates(*load_study(study), 2)
    first = confirmed(candidates, 1)
    for file in candidates.root.rglob("metrics.jsonl"):
        file.unlink()
    assert confirmed(candidates, 1) == first


def test_a_preset_that_is_named_like_the_repetition_of_a_search_trial_is_trained_too(
    tmp_path: Path, write_config: Callable[..., Path], write_space: Callable[..., Path], make_watcher: MakeWatcher
) -> None:
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


def test_an_interrupted_one_goes_on_and_ends_as_if_nothing_had_been(
    study: Path, tmp_path: Path, make_watcher: MakeWatcher
) -> None:
    candidates = find_candidates(*load_study(study), 2)
    with pytest.raises(KeyboardInterrupt):
        confirmed(candidates, 1, make_watcher(after_epoch=1, of_trial=1))
    going_on = make_watcher()
    interrupted = confirmed(candidates, 1, going_on)
    assert [(number, resumed) for _, number, resumed in going_on.started] == [(1, True)]
    straight = confirmed(find_candidates(*load_study(shutil.copytree(study, tmp_path / "other" / "out")), 2), 1)
    assert interrupted.candidates == straight.candidates


def test_one_that_is_asked_to_stop_says_what_it_has_and_goes_on_when_repeated(
    study: Path, make_watcher: MakeWatcher
) -> None:
    candidates = find_candidates(*load_study(study), 2)

    def stop() -> None:
        request_stop(load_study_for_changes(candidates.seed_dir(SEED + 1))[0])

    stopped = confirmed(candidates, 2, make_watcher(after_epoch=1, of_trial=1, action=stop))
    assert (stopped.count("completed"), stopped.count("unfinished")) == (1, 3)
    assert not candidates.seed_dir(SEED + 2).exists()
    assert confirmed(candidates, 2).count("completed") == 4


@pytest.mark.parametrize("when", [{"after_epoch": 1}, {"in_batch": 2}], ids=["failed", "left pending"])
def test_a_repetition_that_fails_is_left_out(
    when: dict[str, int], study: Path, make_watcher: MakeWatcher, fail: Callable[[], object]
) -> None:
    candidates = find_candidates(*load_study(study), 2)
    confirmation = confirmed(candidates, 1, make_watcher(**when, action=fail))
    assert (confirmation.count("failed"), confirmation.count("completed")) == (1, 1)
    assert None in [candidate.mean("test_char_accuracy") for candidate in confirmation.candidates]
    assert "no seed on which both" in confirmation.comparisons[0].sentence("test char")


def test_repetitions_of_another_study_are_not_taken_for_this_ones(study: Path) -> None:
    candidates = find_candidates(*load_study(study), 2)
    confirmed(candidates, 1)
    before = trained(candidates)
    first, *others = candidates.records
    changed = replace(first, config=first.config | {"weight_decay": 0.5})
    with pytest.raises(ConfigurationError, match=r"weight_decay was .* and is 0\.5 now(.|\n)*move .*out_confirm away"):
        confirmed(replace(candidates, records=(changed, *others)), 1)
    assert trained(candidates) == before


def test_a_device_that_is_not_there_is_no_reason_to_train_all_again(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = find_candidates(*load_study(study), 2)
    confirmed(candidates, 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigurationError) as told:
        confirmed(candidates, 1, device="cuda")
    assert len(told.value.problems) == 1
    assert "no CUDA device" in told.value.problems[0]


def test_what_was_trained_elsewhere_is_repeated_on_the_device_that_is_asked_for(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    candidates = find_candidates(*load_study(study), 2)
    elsewhere = tuple(replace(record, config=record.config | {"device": "cuda"}) for record in candidates.records)
    assert confirmed(replace(candidates, records=elsewhere), 1).count("completed") == 2


def test_a_dataset_that_has_changed_since_is_refused(study: Path, tmp_path: Path, tiny_dataset: Path) -> None:
    copy = Path(shutil.copytree(tiny_dataset.parent, tmp_path / "generated_data"))
    change_terms(study, metadata_path=str(copy / "metadata.yaml"))
    assert len(find_candidates(*load_study(study), 2).records) == 2  # it may move
    one, other, *_ = sorted((copy / "train").glob("*.png"))
    shutil.copy(one, other)
    with pytest.raises(ConfigurationError, match=r"the dataset's fingerprint was '\w+' when it .*; change it back, or"):
        find_candidates(*load_study(study), 2)
    assert not study.with_name("out_confirm").exists()


def test_a_dataset_without_a_test_split_is_refused(study: Path, tmp_path: Path, tiny_dataset: Path) -> None:
    copy = Path(shutil.copytree(tiny_dataset.parent, tmp_path / "generated_data")) / "metadata.yaml"
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace("\ntest:\n", "\nheld_out:\n"), encoding="utf-8")
    change_terms(study, metadata_path=str(copy))
    with pytest.raises(ConfigurationError, match=r"has no split 'test'.*compared on the split 'test'"):
        find_candidates(*load_study(study), 2)
    assert not study.with_name("out_confirm").exists()


def test_a_study_that_has_seen_the_test_split_is_refused(study: Path) -> None:
    change_terms(study, val_split="test")
    with pytest.raises(ConfigurationError, match="this study chooses by it"):
        find_candidates(*load_study(study), 2)


def change_terms(output_dir: Path, **dataset: str) -> None:
    study, _ = load_study_for_changes(output_dir)
    invariants = study.user_attrs["invariants"]
    study.set_user_attr("invariants", invariants | {"dataset": invariants["dataset"] | dataset})


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_says_it(
    as_json: bool, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    argv = ["confirm", "--output-dir", str(study), "--top", "2", "--seeds", "2", "--device", "cpu"]
    assert main([*argv, *(["--json"] if as_json else [])]) == 0
    out, err = capsys.readouterr()
    names = [record.experiment_name for record in find_candidates(*load_study(study), 2).records]
    if as_json:
        plain = json.loads(out)
        assert [item["name"] for item in plain["configurations"]] == names
        assert plain["seeds"] == [SEED + 1, SEED + 2]
        assert plain["comparisons"][0]["sentence"] in err + out
    else:
        assert [line.split()[0] for line in out.splitlines()[4:6]] == [name.split()[0] for name in names]
        assert "% interval" in out
        assert max(map(len, out.splitlines()[:6])) <= 80
    reported = find_confirmation(take_snapshot(*load_study(study), lambda name: []))
    assert reported is not None
    assert [item["name"] for item in reported["configurations"]] == names
    assert reported["seeds"] == [SEED + 1, SEED + 2]
    assert reported["comparisons"][0]["sentence"] in " ".join(out.split())
    assert f"seed {SEED + 2} (2 of 2)" in err
    assert list(Path.cwd().glob("hyperparameter_tuning_results_*")) == []


def test_one_completed_configuration_is_not_enough(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config({"one": {"training": {"num_epochs": 1}}})
    HyperparameterTuner(
        str(config), options=RunOptions(output_dir=str(tmp_path / "out"), results_file=str(tmp_path / "r.json"))
    ).run_experiments()
    assert main(["confirm", "--output-dir", str(tmp_path / "out")]) == 2
    assert "two are needed" in capsys.readouterr().err
    assert not (tmp_path / "out_confirm").exists()
