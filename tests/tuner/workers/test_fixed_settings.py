"""The number of threads per worker and the parallelism, which are fixed when training starts."""

from pathlib import Path

import pytest
import torch

from search_spaces import load_experiments
from studies import SearchRequest, load_study, search_settings, study_threads
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.workers.fixed_settings import fix_worker_threads, note_idle_workers
from tuner.workers.loop import work

OUT = Path("training_output")

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture
def _four_threads(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr("tuner.workers.fixed_settings.usable_cores", lambda: 2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def open_session(write_config):
    """Return a function that opens a study with one preset of one epoch."""
    config = write_config({"one": {"training": {"num_epochs": 1}}})

    def open_it(display, **options):
        request = RunRequest.from_file(load_experiments(config), options=RunOptions(**options))
        return Session.open(request, display)

    return open_it


@pytest.mark.usefixtures("_four_threads")
class TestThreads:
    @pytest.mark.parametrize(("workers", "wanted", "threads"), [(1, None, 4), (2, None, 2), (3, None, 1), (1, 2, 2)])
    def test_first_worker_fixes_the_number_of_the_study(self, workers, wanted, threads, open_session, make_watcher):
        watcher = make_watcher()
        assert fix_worker_threads(open_session(watcher), workers, wanted) == threads
        assert study_threads(load_study(OUT)[0]) == threads
        assert watcher.notes == []

    @pytest.mark.parametrize(
        ("fixed", "workers", "threads", "note"),
        [
            (2, 2, 2, ""),
            (1, 2, 1, ""),
            (4, 2, 2, "4 threads each, but this machine has only 2 per worker, so they train with 2"),
            (8, 1, 4, "8 threads each, but this machine has only 4 per worker, so they train with 4"),
        ],
    )
    def test_later_workers_use_the_number_of_the_study_and_say_if_they_cannot(
        self, fixed, workers, threads, note, open_session, make_watcher
    ):
        watcher = make_watcher()
        session = open_session(watcher)
        fix_worker_threads(session, 1, fixed)
        watcher.notes.clear()
        assert fix_worker_threads(session, workers, None) == threads
        expected = f"the study's workers train with {note}; CPU results may differ slightly"
        assert watcher.notes == ([expected] if note else [])

    def test_trials_train_with_the_number_of_the_study_and_the_process_keeps_its_own(self, open_session, make_watcher):
        session = open_session(make_watcher())
        work(session, TrialFilter(), StopConditions(), threads=3)
        assert torch.get_num_threads() == 4
        (trial,) = load_study(OUT)[0].get_trials()
        assert trial.user_attrs["outcome"]["threads"] == 3


@pytest.mark.parametrize(("parallelism", "workers", "note"), [(1, 1, ""), (4, 4, ""), (4, 2, ""), (2, 3, "2")])
def test_more_workers_than_the_parallelism_are_named(parallelism, workers, note, open_session, make_watcher):
    watcher = make_watcher()
    session = open_session(watcher, search=SearchRequest(at_least=1, parallelism=parallelism))
    watcher.notes.clear()
    note_idle_workers(session, workers)
    expected = (
        f"the parallelism of the study's search is {note}, so only {note} of {workers} workers train search trials at "
        "the same time; a new study accepts a larger --parallelism"
    )
    assert watcher.notes == ([expected] if note else [])


@pytest.mark.parametrize(("workers", "parallelism"), [(1, 1), (2, 4)])
def test_new_search_has_the_default_parallelism(workers, parallelism, open_session, make_watcher):
    session = open_session(make_watcher(), search=SearchRequest(at_least=1), workers=workers)
    settings = search_settings(session.study)
    assert settings is not None
    assert settings.parallelism == parallelism
