"""Studies to report on, and parsed reports."""

from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from types import MappingProxyType

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from studies import WhyEnded, load_study
from studies.report import render_report
from studies.report.snapshot import take_snapshot
from studies.trials.record import stored_outcome

RATES = FloatDistribution(1e-4, 1e-2, log=True)
MODELS = CategoricalDistribution(("small", "medium"))
VOID_ELEMENTS = {"meta", "input", "img", "wbr", "br"}


@dataclass
class Page(HTMLParser):
    """A parsed report.

    Attributes:
        html: The whole page.
        ids: The ids of its elements.
        addresses: The URLs of its links and images.
        scripts: Type and text of each script.
        policy: Its Content Security Policy.
        texts: The visible text of each section, keyed by the section's id.
    """

    html: str
    ids: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    scripts: list[tuple[str, str]] = field(default_factory=list)
    policy: str = ""
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        """Parse the page and assert that every element is closed."""
        super().__init__()
        self._open = []
        self._section = ""
        self.feed(self.html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on")], f"<{tag}> has an inline event handler"
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.addresses += [attributes[name] or "" for name in ("href", "src") if name in attributes]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"] or ""
        if tag == "section":
            self._section = attributes["id"] or ""
        if tag == "script":
            self.scripts.append((attributes.get("type") or "", ""))
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "script" in self._open:
            kind, text = self.scripts.pop()
            self.scripts.append((kind, text + data))
        else:
            self.texts[self._section] = self.texts.get(self._section, "") + data

    def rows(self):
        """Return the cells of the table of all trials, the headings first."""
        table = self.html.partition('<table class="sortable">')[2].partition("</table>")[0]
        return [Cells(row).texts for row in table.split("<tr")[1:]]


class Cells(HTMLParser):
    """The cells of a table row."""

    def __init__(self, row):
        super().__init__()
        self.texts = []
        self._inside = False
        self.feed("<tr" + row)

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th"):
            self.texts.append("")
            self._inside = True

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.texts[-1] += data


@pytest.fixture
def add_trials(outcome):
    """Add a finished search trial for each value; None adds a failed trial.

    All trials have the same model and different learning rates. `user_attrs` are further user attributes of the trials;
    other keyword arguments are fields of their outcomes.
    """

    def add(study, values, *, model="small", user_attrs=MappingProxyType({}), **changes):
        for value in values:
            failed = value is None
            why = changes.get("why_ended", WhyEnded.FAILED if failed else WhyEnded.MAX_EPOCHS)
            accuracy = {} if value is None else {"best_val_char_accuracy": value, "best_val_seq_accuracy": value / 2}
            ended = replace(outcome, **{**accuracy, **changes, "why_ended": why})
            rate = 1e-4 * (len(study.get_trials(deepcopy=False)) % 90 + 1)
            params = {"learning_rate": rate, "model_name": model}
            distributions = {"learning_rate": RATES, "model_name": MODELS}
            states = {WhyEnded.PRUNED: TrialState.PRUNED, WhyEnded.NONFINITE_LOSS: TrialState.PRUNED}
            study.add_trial(
                create_trial(
                    state=TrialState.FAIL if failed else states.get(why, TrialState.COMPLETE),
                    value=value,
                    params=params,
                    distributions=distributions,
                    user_attrs={"kind": "search", "config": params, "outcome": stored_outcome(ended)} | user_attrs,
                    intermediate_values={} if value is None else {1: value / 2, 2: value},
                )
            )

    return add


@pytest.fixture
def snapshot_of():
    """Return the snapshot of a study, without epochs."""

    def take(folder):
        study, folder = load_study(folder.path)
        return take_snapshot(study, folder, lambda name: [])

    return take


@pytest.fixture
def report():
    """Render the report on the study in a folder and parse it."""

    def make(folder, **epochs):
        study, folder = load_study(folder.path)
        return Page(render_report(study, folder, lambda name: epochs.get(name, []), output_dir="my output"))

    return make
