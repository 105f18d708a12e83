"""The plots of the settings: which matter, and which values did well. Optuna's own where it has them."""

from __future__ import annotations

import warnings
from functools import partial

import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import plot_parallel_coordinate, plot_slice

from search_spaces.diagnostics.plural import counted
from studies.report.panels import BLUE, INK, Panel, bars, styled
from studies.report.snapshot import Snapshot, has_value

# Optuna's advice: five trials in the best tenth, which is what the importances are computed from.
FEWEST_FOR_IMPORTANCE = 50
MOST_LINES = 200
_SLICE_MARGIN = {"l": 56, "r": 12, "t": 12, "b": 44}
_CUT_SHORT_COUNT = "Trials that were pruned or diverged count with the best value that they had reached"


def parallel_coordinates(snapshot: Snapshot) -> Panel:
    """Return the panel with a line through the settings of each trial."""
    panel = partial(Panel, "parallel", "Parallel coordinates")
    trials = _parametrized(snapshot)
    if len(trials) < 2:
        return panel(missing=f"They need 2 ended trials with settings; there is {len(trials) or 'none'}.")
    shown = snapshot.best_first(trials)[:MOST_LINES]
    # The best are drawn last, so that they lie on top.
    figure = plot_parallel_coordinate(snapshot.study_of(shown[::-1]), target_name=snapshot.metric)
    styled(figure, height=470, margin={"l": 110, "r": 24, "t": 36, "b": 110})
    figure.update_xaxes(tickangle=-35)
    # Values of the axes stay readable on top of the lines.
    figure.update_annotations(bgcolor="rgba(255, 255, 255, 0.75)", font={"size": 10, "color": INK}, borderpad=0)
    figure.data[-1].marker.colorbar.update(title={"text": snapshot.metric, "side": "right"}, thickness=12)
    some = f" Shown are the best {len(shown)} of {len(trials)}." if len(shown) < len(trials) else ""
    return panel(f"{_CUT_SHORT_COUNT}. None: a setting that did not count for the trial.{some}", (figure,))


def importances(snapshot: Snapshot) -> Panel:
    """Return the panel of the importance of each setting."""
    panel = partial(Panel, "importances", "Importances")
    trials = _parametrized(snapshot)
    if (lacking := FEWEST_FOR_IMPORTANCE - len(trials)) > 0:
        needed = f"{FEWEST_FOR_IMPORTANCE} trials that ended with a value, else they would be chance"
        return panel(missing=f"They need {needed}; {counted(lacking, 'trial')} to go.")
    if len({trial.value for trial in trials}) == 1:
        return panel(missing="All trials ended with the same value, so nothing depends on the settings.")
    with warnings.catch_warnings():
        # Optuna warns that it cannot tell many equal values apart; the bars show that as well.
        warnings.simplefilter("ignore")
        found = get_param_importances(snapshot.counted_study, evaluator=PedAnovaImportanceEvaluator())
    # Optuna leaves the order of equal ones to chance.
    names = sorted(found, key=lambda name: (-found[name], name))
    shares = [found[name] for name in names]
    layout = {"height": 90 + 26 * len(names), "xaxis_title": "share of the difference that it makes"}
    figure = bars(names, shares, [f"{share:.2f}" for share in shares], BLUE, **layout)
    cut_short = sum(trial.number in snapshot.cut_short for trial in trials)
    caption = (
        f"PED-ANOVA over {len(trials)} trials: how much a setting decides whether a trial is among the best tenth. "
        f"{_CUT_SHORT_COUNT} ({cut_short} of them): without them, what makes trials bad would seem not to matter."
    )
    return panel(caption, (figure,))


def slices(snapshot: Snapshot) -> Panel:
    """Return the panel of the values over each setting by itself."""
    panel = partial(Panel, "slices", "Setting by setting")
    trials = _parametrized(snapshot)
    if len(trials) < 2:
        return panel(missing=f"It needs 2 ended trials with settings; there is {len(trials) or 'none'}.")
    figures = tuple(_slice(snapshot, name) for name in sorted({name for trial in trials for name in trial.params}))
    return panel(f"The darker a point, the later the trial. {_CUT_SHORT_COUNT}.", figures, side_by_side=True)


def _slice(snapshot: Snapshot, name: str) -> go.Figure:
    figure = plot_slice(snapshot.counted_study, params=[name], target_name=snapshot.metric)
    for trace in figure.data:
        trace.update(marker={"showscale": False, "size": 7, "cmin": 0, "cmax": len(snapshot.trials)})
        trace.update(customdata=snapshot.names_of(trace.marker.color))
        trace.update(hovertemplate="%{customdata}: %{x}, %{y:.4f}<extra></extra>")
    # One scale for all settings, so that they can be compared.
    values = [trial.value or 0.0 for trial in _parametrized(snapshot)]
    margin = 0.05 * (max(values) - min(values)) or 0.05
    scale = (min(values) - margin, max(values) + margin)
    return styled(figure, height=260, showlegend=False, margin=_SLICE_MARGIN, yaxis_range=scale)


def _parametrized(snapshot: Snapshot) -> list[FrozenTrial]:
    """Return the trials of the counted study that say something of settings."""
    trials = snapshot.counted_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if has_value(trial) and trial.params]
