"""Studies to report on, and reports taken apart as a browser does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from studies import OutputFolder, TrialOutcome, WhyEnded, load_study
from studies.report import render_report
from studies.report.snapshot import Snapshot, take_snapshot
from studies.trials.record import stored_outcome

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
AddTrials = Callable[..., None]
Report = Callable[..., "Page"]
Look = Callable[[OutputFolder], Snapshot]

RATES = FloatDistribution(1e-4, 1e-2, log=True)
MODELS = CategoricalDistribution(("small", "medium"))
VOID_ELEMENTS = {"meta", "input", "img", "wbr", "br"}


@dataclass
class Page(HTMLParser):
    """A report, taken apart.

    Attributes:
        html: All of it.
        ids: What a link can lead to.
        addresses: Where its links and pictures are.
        scripts: Its scripts as type and text.
        policy: Its Content Security Policy.
        texts: What a reader sees, by section.
    """

    html: str
    ids: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    scripts: list[tuple[str, str]] = field(default_factory=list)
    policy: str = ""
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take it apart; every element must be closed where it ends."""
        super().__init__()
        self._open: list[str] = []
        self._section = ""
        self.feed(self.html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on")], f"<{tag}> has a script of its own"
        self.ids += [given["id"] or ""] if "id" in given else []
        self.addresses += [given[name] or "" for name in ("href", "src") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag == "section":
            self._section = given["id"] or ""
        if tag == "script":
            self.scripts.append((given.get("type") or "", ""))
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            kind, text = self.scripts.pop()
            self.scripts.append((kind, text + data))
        else:
            self.texts[self._section] = self.texts.get(self._section, "") + data

    def rows(self) -> list[list[str]]:
        """Return the cells of the table of all trials, its headings first."""
        table = self.html.partition('<table class="sortable">')[2].partition("</table>")[0]
        return [Cells(row).found for row in table.split("<tr")[1:]]


class Cells(HTMLParser):
    """The cells of a row."""

    def __init__(self, row: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False
        self.feed("<tr" + row)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self.found.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


@pytest.fixture
def add_trials(outcome: TrialOutcome) -> AddTrials:
    """Add search trials that have ended, one for each value; None for one that failed.

    All have the same model and each a learning rate of its own. `kept` adds attributes to the trials; other keyword
    arguments are fields of their outcomes.
    """

    def add(
        study: optuna.Study,
        values: Iterable[float | None],
        *,
        model: str = "small",
        kept: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        for value in values:
            failed = value is None
            why = changes.get("why_ended", WhyEnded.FAILED if failed else WhyEnded.MAX_EPOCHS)
            accuracy = {} if value is None else {"best_val_char_accuracy": value, "best_val_seq_accuracy": value / 2}
            ended = replace(outcome, **{**accuracy, **changes, "why_ended": why})
            rate = 1e-4 * (len(study.get_trials(deepcopy=False)) % 90 + 1)
            params = {"learning_rate": rate, "model_name": model}
            distributions: dict[str, BaseDistribution] = {"learning_rate": RATES, "model_name": MODELS}
            states = {WhyEnded.PRUNED: TrialState.PRUNED, WhyEnded.NONFINITE_LOSS: TrialState.PRUNED}
            study.add_trial(
                create_trial(
                    state=TrialState.FAIL if failed else states.get(why, TrialState.COMPLETE),
                    value=value,
                    params=params,
                    distributions=distributions,
                    user_attrs={"kind": "search", "config": params, "outcome": stored_outcome(ended), **(kept or {})},
                    intermediate_values={} if value is None else {1: value / 2, 2: value},
                )
            )

    return add


@pytest.fixture
def look() -> Look:
    """Read a study as a report does, with no epochs beside it."""

    def read(folder: OutputFolder) -> Snapshot:
        study, folder = load_study(folder.path)
        return take_snapshot(study, folder, lambda name: [])

    return read


@pytest.fixture
def report() -> Report:
    """Report on the study of a folder and take the report apart."""

    def make(folder: OutputFolder, **epochs: list[dict[str, float]]) -> Page:
        study, folder = load_study(folder.path)
        return Page(render_report(study, folder, lambda name: epochs.get(name, []), output_dir="my output"))

    return make
