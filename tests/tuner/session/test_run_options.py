import time
from pathlib import Path

import pytest

from search_spaces import ConfigurationError
from studies import PrunerName, SamplerName, SearchRequest, TrialKind, TrialPhase, TrialRecord
from tuner.session import run_options
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter, check_workers, default_parallelism

OUT = Path("training_output")


def record(kind, name):
    return TrialRecord(0, kind, TrialPhase.WAITING, name, {}, "", (), None)


@pytest.mark.parametrize(
    ("trial_filter", "matching"),
    [
        (TrialFilter(), {"one", "two", "search_0002"}),
        (TrialFilter(search=False), {"one", "two"}),
        (TrialFilter(frozenset({"one"})), {"one", "search_0002"}),
        (TrialFilter(frozenset({"one", "other"}), search=False), {"one"}),
        (TrialFilter(frozenset()), {"search_0002"}),
    ],
)
def test_filter_matches_presets_by_name_and_search_trials_together(trial_filter, matching):
    records = [
        record(TrialKind.PRESET, "one"),
        record(TrialKind.PRESET, "two"),
        record(TrialKind.SEARCH, "search_0002"),
    ]
    assert {item.experiment_name for item in records if trial_filter.matches(item)} == matching


@pytest.mark.parametrize(
    ("trial_filter", "may_gain"),
    [
        (TrialFilter(), True),
        (TrialFilter(frozenset({"one"})), True),
        (TrialFilter(search=False), True),
        (TrialFilter(frozenset({"one"}), search=False), False),
    ],
)
def test_only_a_filter_of_named_experiments_can_never_match_new_trials(trial_filter, may_gain):
    assert trial_filter.may_gain_trials == may_gain


def test_run_times_out_at_the_deadline_and_never_without_a_deadline():
    assert not StopConditions().timed_out
    assert not StopConditions(deadline=time.monotonic() + 1000).timed_out
    assert StopConditions(deadline=time.monotonic()).timed_out


@pytest.mark.usefixtures("in_tmp")
class TestCheck:
    @pytest.mark.parametrize("options", [{}, {"storage": "sqlite:///training_output/other.db"}])
    def test_check_of_valid_options_creates_nothing(self, options, tmp_path):
        RunOptions(**options).check()
        assert list(tmp_path.iterdir()) == []

    def test_default_storage_is_in_the_output_folder(self):
        assert RunOptions().storage_url == f"sqlite:///{OUT.absolute()}/study.db"
        assert RunOptions(storage="sqlite:////elsewhere/x.db").storage_url == "sqlite:////elsewhere/x.db"

    def test_database_in_the_output_folder_is_checked(self):
        OUT.mkdir()
        (OUT / "study.db").write_text("no database, but long enough to be taken for one" * 100)
        with pytest.raises(ConfigurationError, match=r"study\.db is not a SQLite database"):
            RunOptions().check()

    def test_all_problems_are_reported_together(self):
        search = SearchRequest(SamplerName.GP, PrunerName.QUANTILE)
        options = RunOptions(OUT, "a/b", "sqlite://", device="tpu", results_file="no/r.json", search=search)
        with pytest.raises(ConfigurationError) as caught:
            options.check()
        subjects = [problem.split(":")[0] for problem in caught.value.problems]
        assert subjects == ["storage URL", "study name", "device", "results file no/r.json", "--pruner"]

    def test_output_folder_that_is_a_file_is_reported_with_an_invalid_storage(self):
        OUT.write_text("a file where a folder should be")
        with pytest.raises(ConfigurationError) as caught:
            RunOptions(storage="sqlite://").check()
        assert len(caught.value.problems) == 2
        assert "is a file" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("threads", "workers", "problem"),
    [
        (None, 9, ""),
        (1, 9, ""),
        (4, 1, ""),
        (2, 2, ""),
        (5, 1, "found 5; expected 1 to 4, because this process may use 4 cores; use fewer threads or workers"),
        (3, 2, "found 3 for each of 2 workers; expected 1 to 2, because this process may use 4 cores; "),
        (2, 9, "found 2 for each of 9 workers; expected 1 to 1, "),
        (0, 1, "found 0; expected 1 to 4, "),
    ],
)
def test_more_threads_than_cores_are_refused(threads, workers, problem, monkeypatch):
    monkeypatch.setattr(run_options, "usable_cores", lambda: 4)
    if problem:
        with pytest.raises(ConfigurationError) as caught:
            check_workers(workers, threads)
        assert str(caught.value).startswith(f"--threads: {problem}")
    else:
        check_workers(workers, threads)


@pytest.mark.parametrize(("workers", "parallelism"), [(1, 1), (2, 4), (3, 6)])
def test_default_parallelism_is_twice_the_number_of_workers(workers, parallelism):
    assert default_parallelism(workers) == parallelism


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(workers):
    with pytest.raises(ConfigurationError, match=f"workers: found {workers}; expected a whole number above 0"):
        RunOptions(workers=workers).check()
