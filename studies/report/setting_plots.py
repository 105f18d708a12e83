"""The plots of the sampled settings: importances, parallel coordinates and slices; most are Optuna's plots."""

from __future__ import annotations

import warnings
from functools import partial

import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import plot_parallel_coordinate, plot_slice

from search_spaces.diagnostics.wording import counted
from studies.report.panels import BLUE, INK, Panel, bars, styled
from studies.report.snapshot import Snapshot, has_value

# PED-ANOVA compares the best tenth of the trials with all trials; Optuna recommends five or more in the best tenth.
MIN_TRIALS_FOR_IMPORTANCE = 50
MAX_LINES = 200
_SLICE_MARGIN = {"l": 56, "r": 12, "t": 12, "b": 44}
_INCLUDED = "Trials that were pruned or diverged are included with their best value"


def parallel_coordinates(snapshot: Snapshot) -> Panel:
    """Return the panel that shows the settings and the value of each trial as a line."""
    panel = partial(Panel, "parallel", "Parallel coordinates")
    trials = _parametrized(snapshot)
    if len(trials) < 2:
        return panel(missing=f"This plot needs 2 finished trials with a value; the study has {len(trials) or 'none'}.")
    shown = snapshot.best_first(trials)[:MAX_LINES]
    # The best trials are plotted last, on top of the others.
    figure = plot_parallel_coordinate(snapshot.study_of(shown[::-1]), target_name=snapshot.metric)
    styled(figure, height=470, margin={"l": 110, "r": 24, "t": 36, "b": 110})
    figure.update_xaxes(tickangle=-35)
    # The background keeps the labels of the axes readable on top of the lines.
    figure.update_annotations(bgcolor="rgba(255, 255, 255, 0.75)", font={"size": 10, "color": INK}, borderpad=0)
    figure.data[-1].marker.colorbar.update(title={"text": snapshot.metric, "side": "right"}, thickness=12)
    some = f" Only the best {len(shown)} of {len(trials)} trials are shown." if len(shown) < len(trials) else ""
    return panel(f"{_INCLUDED}. None means that a setting does not apply to the trial.{some}", (figure,))


def importances(snapshot: Snapshot) -> Panel:
    """Return the panel that shows the importance of each setting as a bar."""
    panel = partial(Panel, "importances", "Hyperparameter importances")
    trials = _parametrized(snapshot)
    if (lacking := MIN_TRIALS_FOR_IMPORTANCE - len(trials)) > 0:
        needed = f"{MIN_TRIALS_FOR_IMPORTANCE} finished trials with a value, because fewer give unreliable results"
        return panel(missing=f"Importances need {needed}; {counted(lacking, 'more trial')} to go.")
    if len({trial.value for trial in trials}) == 1:
        return panel(missing="All trials ended with the same value, so no setting has a measurable influence.")
    with warnings.catch_warnings():
        # Optuna warns that it cannot distinguish many equal values; the bars show that as well.
        warnings.simplefilter("ignore")
        by_name = get_param_importances(snapshot.settings_study, evaluator=PedAnovaImportanceEvaluator())
    # Optuna returns equal importances in random order.
    names = sorted(by_name, key=lambda name: (-by_name[name], name))
    values = [by_name[name] for name in names]
    layout = {"height": 90 + 26 * len(names), "xaxis_title": "relative importance"}
    figure = bars(names, values, [f"{value:.2f}" for value in values], BLUE, **layout)
    included = sum(trial.number in snapshot.pruned_or_diverged for trial in trials)
    caption = (
        f"PED-ANOVA over {len(trials)} trials: how strongly a setting affects whether a trial is among the best tenth. "
        f"{_INCLUDED} ({included} of them), because otherwise settings that make trials bad would seem unimportant."
    )
    return panel(caption, (figure,))


def slices(snapshot: Snapshot) -> Panel:
    """Return the panel that plots the value of each trial over each setting, one plot per setting."""
    panel = partial(Panel, "slices", "Slice plots")
    trials = _parametrized(snapshot)
    if len(trials) < 2:
        return panel(missing=f"These plots need 2 finished trials with a value; the study has {len(trials) or 'none'}.")
    figures = tuple(_slice(snapshot, name) for name in sorted({name for trial in trials for name in trial.params}))
    return panel(f"Darker points are later trials. {_INCLUDED}.", figures, is_grid=True)


def _slice(snapshot: Snapshot, name: str) -> go.Figure:
    figure = plot_slice(snapshot.settings_study, params=[name], target_name=snapshot.metric)
    for trace in figure.data:
        trace.update(marker={"showscale": False, "size": 7, "cmin": 0, "cmax": len(snapshot.trials)})
        trace.update(customdata=snapshot.names_of(trace.marker.color))
        trace.update(hovertemplate="%{customdata}: %{x}, %{y:.4f}<extra></extra>")
    # All slice plots have the same value axis, so that they can be compared.
    values = [trial.value or 0.0 for trial in _parametrized(snapshot)]
    margin = 0.05 * (max(values) - min(values)) or 0.05
    scale = (min(values) - margin, max(values) + margin)
    return styled(figure, height=260, showlegend=False, margin=_SLICE_MARGIN, yaxis_range=scale)


def _parametrized(snapshot: Snapshot) -> list[FrozenTrial]:
    """Return the finished trials of the settings study that have a finite value and parameters."""
    trials = snapshot.settings_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if has_value(trial) and trial.params]
