import io
import re
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from search_spaces import Targets, TrainingConfig
from studies import (
    RowState,
    StatusRow,
    StudyStatus,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
)
from studies.status.status import SearchStatus
from tuner.display.events import RunSummary
from tuner.training.history import EarlyStopping, EpochMetrics


class Stream(io.StringIO):
    def __init__(self, *, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal

    @property
    def text(self):
        """The written text, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())

    @property
    def lines(self):
        return self.text.splitlines()


@pytest.fixture
def stream():
    return Stream(terminal=False)


@pytest.fixture
def terminal():
    return Stream(terminal=True)


@pytest.fixture
def config():
    return TrainingConfig(model_name="small", num_epochs=30)


@pytest.fixture
def make_record(config):
    """Make a finished trial: a search trial if its name starts with ``search_``, failed if `why` is a failure."""

    def make(name, number=0, why="early_stopped", *, of=config, **known):
        values = {
            "why_ended": WhyEnded(why),
            "training_time_s": 200.0,
            "best_val_char_accuracy": 0.9912,
            "best_val_seq_accuracy": 0.6789,
            "final_train_loss": 0.05,
            "total_epochs": 25,
            "best_epoch": 15,
            "epoch_seconds_median": 7.94,
        }
        outcome = TrialOutcome(**values | known)
        return TrialRecord(
            number=number,
            kind=TrialKind.SEARCH if name.startswith("search_") else TrialKind.PRESET,
            phase=TrialPhase.COMPLETED if outcome.succeeded else TrialPhase.FAILED,
            experiment_name=name,
            config=asdict(of),
            config_digest="",
            attempts=(),
            outcome=outcome,
        )

    return make


@pytest.fixture
def make_metrics():
    def make(epoch, seconds=10.0):
        return EpochMetrics(epoch, 0.5, 0.4, 0.8, 0.9123, 0.6, 0.7, 1e-3, seconds, 500.0, 200.0)

    return make


@pytest.fixture
def make_signal():
    def make(best=0.91, epoch=4):
        signal = EarlyStopping("max", 0.0, 10)
        signal.update(epoch, best)
        return signal

    return make


@pytest.fixture
def make_summary():
    def make(*records, **known):
        best = {"experiment_name": "a", "best_val_char_accuracy": 0.9912, "best_val_seq_accuracy": 0.6789}
        values = {
            "results": {"best_result": best},
            "results_path": Path.cwd() / "results.json",
            "output_dir": Path.cwd() / "out",
            "storage_url": None,
            "records": list(records),
            "targets": Targets(),
            "monitor": "val_loss",
            "leader": None,
        }
        return RunSummary(**values | known)

    return make


@pytest.fixture
def make_row():
    """Make a row of a trial with 30 epochs and the model `small`: a preset if it has a name, else a search trial."""

    def make(number, state="completed", name="", **known):
        values = {
            "kind": TrialKind.PRESET if name else TrialKind.SEARCH,
            "model_name": None if state == "waiting" and not name else "small",
            "num_epochs": None if state == "waiting" and not name else 30,
        }
        if state in ("completed", "pruned", "failed"):
            values |= {
                "best_value": 0.5,
                "epochs": 25,
                "why_ended": {"completed": "early_stopped", "pruned": "pruned"}.get(state, "crashed"),
                "ended": datetime(2026, 1, 1) + timedelta(minutes=number),
                "seconds": 250.0,
                "epoch_seconds": 10.0,
            }
        if state == "running":
            values |= {"worker_pid": 1000 + number, "started": datetime(2026, 1, 1)}
        return StatusRow(number, name or f"search_{number:04d}", state=RowState(state), **values | known)

    return make


@pytest.fixture
def make_status():
    """Make a study of these trials and of `unenqueued` further search trials."""

    def make(*rows, unenqueued=0, **known):
        searches = [row for row in rows if row.kind is TrialKind.SEARCH]
        ended = sum(row.has_ended for row in searches)
        values = {
            "study": "khmer-ocr",
            "monitor": "val_char_accuracy",
            "mode": "max",
            "search": SearchStatus("tpe", "quantile", 1, len(searches) + unenqueued, ended, unenqueued),
            "targets": Targets(),
            "met_by": (),
        }
        return StudyStatus(rows=rows, **values | known)

    return make


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
