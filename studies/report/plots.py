"""The plots of the report, of trials and of the sampled settings; most are Optuna's plots."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from functools import partial

import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import (
    plot_intermediate_values,
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_slice,
    plot_timeline,
)

from search_spaces.diagnostics.wording import counted
from studies.report.panels import BLUE, GREEN, GREY, INK, ORANGE, RED, Panel, bars, styled
from studies.report.snapshot import Snapshot, has_value
from studies.status.status import StatusRow
from studies.trials.record import TrialKind, WhyEnded
from studies.trials.results import best_records

MAX_CURVES = 30

# Displayed name and color of each trial state of Optuna.
_STATES = {
    "COMPLETE": ("completed", BLUE),
    "PRUNED": ("pruned", ORANGE),
    "FAIL": ("failed", RED),
    "RUNNING": ("running", GREEN),
}
_REASON_COLORS = {WhyEnded.MAX_EPOCHS: BLUE, WhyEnded.EARLY_STOPPED: "#60a5fa", WhyEnded.PRUNED: ORANGE}


def history(snapshot: Snapshot) -> Panel:
    """Return the panel that plots the value of each trial and the best value so far."""
    panel = partial(Panel, "history", "Optimization history")
    valued = list(filter(has_value, snapshot.plot_trials))
    completed = [trial for trial in valued if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in valued if trial.state == TrialState.PRUNED]
    if not completed and not pruned:
        return panel(missing="This plot appears when the first trial has ended with a value.")
    # Optuna plots points, a line of the best value so far, and infeasible trials, which do not occur here. It is not
    # called without a completed trial, because it would log a warning.
    figure = plot_optimization_history(snapshot.plot_study, target_name=snapshot.metric) if completed else go.Figure()
    figure.data = figure.data[:2]
    for points in figure.data[:1]:
        points.update(name="completed", marker={"color": BLUE, "size": 8}, customdata=snapshot.names_of(points.x))
        points.update(hovertemplate="%{customdata}: %{y:.4f}<extra></extra>")
    for line in figure.data[1:]:
        line.update(name="best so far", line={"color": INK, "width": 1.5, "shape": "hv"}, hoverinfo="skip")
    if pruned:
        numbers = [trial.number for trial in pruned]
        figure.add_scatter(
            x=numbers,
            y=[trial.value for trial in pruned],
            mode="markers",
            name="pruned (best value)",
            marker={"color": ORANGE, "size": 7, "symbol": "x-thin-open"},
            customdata=snapshot.names_of(numbers),
            hovertemplate="%{customdata}, pruned: %{y:.4f}<extra></extra>",
        )
    styled(figure, height=380, xaxis_title="trial", yaxis_title=snapshot.metric, showlegend=True)
    return panel("Failed trials are not shown.", (figure,))


def latency(snapshot: Snapshot) -> Panel:
    """Return the panel that plots the accuracy of each completed trial against its latency, and the Pareto front."""
    panel = partial(Panel, "latency", "Accuracy against latency")
    points = {
        record.number: (outcome.latency_ms, outcome.best_val_seq_accuracy)
        for record in best_records(snapshot.records.values())
        if (outcome := record.outcome) is not None and outcome.latency_ms is not None
    }
    if len(points) < 2:
        return panel(missing="This plot appears when two trials have completed and their latency was measured.")
    figure = go.Figure()
    for kind, color, symbol in ((TrialKind.PRESET, ORANGE, "diamond"), (TrialKind.SEARCH, BLUE, "circle")):
        numbers = [number for number in points if snapshot.records[number].kind is kind]
        x, y = ([points[number][axis] for number in numbers] for axis in (0, 1))
        marker, names = {"color": color, "size": 8, "symbol": symbol}, snapshot.names_of(numbers)
        figure.add_scatter(x=x, y=y, mode="markers", name=kind.value, marker=marker, customdata=names)
    figure.update_traces(hovertemplate="%{customdata}: %{y:.4f}, %{x:.2f} ms<extra></extra>")
    x, y = map(list, zip(*pareto_front(points.values()), strict=True))
    style = {"line": {"color": INK, "shape": "hv"}, "marker": {"color": INK, "size": 13, "symbol": "circle-open"}}
    figure.add_scatter(x=x, y=y, mode="lines+markers", name="Pareto front", hoverinfo="skip", **style)
    styled(figure, height=380, xaxis_type="log", xaxis_title="ms per image (batch 1)", yaxis_title="val_seq_accuracy")
    caption = (
        "No trial is both faster and more accurate than a trial of the Pareto front. Latencies are measured "
        "in PyTorch on the device of the training; those of different machines or beside other processes differ."
    )
    return panel(caption, (figure,))


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the pairs of latency and accuracy that no other pair matches in both, fastest first."""
    front: list[tuple[float, float]] = []
    for latency_ms, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((latency_ms, accuracy))
    return front


def reported_curves(snapshot: Snapshot) -> Panel:
    """Return the panel that plots the best value so far of each trial after each epoch."""
    panel = partial(Panel, "curves", "Intermediate values")
    reporting = [trial for trial in snapshot.plot_trials if trial.intermediate_values]
    if not reporting:
        return panel(missing="This plot appears when the first trial has finished an epoch.")
    running = [trial for trial in reporting if trial.state == TrialState.RUNNING]
    shown = [*running, *snapshot.best_first(reporting)][:MAX_CURVES]
    if not shown:
        return panel(missing="Only failed trials have finished an epoch, and failed trials are not shown.")
    figure = plot_intermediate_values(snapshot.study_of(shown))
    names = snapshot.names_of([trial.number for trial in shown])
    for trace in figure.data:
        position = int(trace.name.removeprefix("Trial"))
        dash = "dot" if shown[position].state == TrialState.PRUNED else "solid"
        trace.update(name=names[position], marker={"size": 4}, line={"width": 1.5, "dash": dash})
        trace.update(hovertemplate="%{fullData.name}, epoch %{x}: %{y:.4f}<extra></extra>")
    legend = {"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"}
    styled(figure, height=440, xaxis_title="epoch", yaxis_title=f"{snapshot.metric}, best so far")
    figure.update_layout(showlegend=True, legend=legend)
    whole = len(shown) == len(reporting)
    some = "" if whole else f" {len(shown)} of {len(reporting)} trials are shown: the running trials, then the best."
    return panel(f"Curves of pruned trials are dotted. Click a name in the legend to hide its curve.{some}", (figure,))


def timeline(snapshot: Snapshot) -> Panel:
    """Return the panel that shows each trial as a bar from its start to its end."""
    panel = partial(Panel, "timeline", "Timeline")
    if not any(trial.datetime_start for trial in snapshot.plot_trials):
        return panel(missing="This plot appears when the first trial has started.")
    figure = plot_timeline(snapshot.plot_study)
    figure.data = [trace for trace in figure.data if trace.name in _STATES]
    rows = {row.number: row for row in snapshot.status.rows}
    for trace in figure.data:
        name, color = _STATES[trace.name]
        # By default, Plotly makes a bar as thick as the distance between two trials of the same state.
        trace.update(name=name, width=0.8, marker={"color": color, "line": {"width": 0}})
        trace.update(text=[_timeline_text(number, rows.get(number)) for number in trace.y])
        trace.update(hovertemplate="%{text}<extra></extra>")
    height = min(640, 150 + 14 * len(snapshot.trials))
    styled(figure, height=height, xaxis_title="", yaxis_title="trial", showlegend=True, barmode="overlay")
    figure.update_yaxes(autorange="reversed", tickformat="d")
    return panel("Each bar spans the time from a trial's first start to its end, interruptions included.", (figure,))


def _timeline_text(number: int, row: StatusRow | None) -> str:
    if row is None:
        return f"trial {number}"
    best = "" if row.best_value is None else f", best {row.best_value:.4f}"
    return f"{row.name}: {row.reason or row.state.value}, {counted(row.epochs, 'epoch')}{best}"


def reasons(snapshot: Snapshot) -> Panel:
    """Return the panel that shows how many trials ended for each reason."""
    panel = partial(Panel, "reasons", "Why trials ended")
    ended = [row for row in snapshot.status.rows if row.has_ended]
    if not ended:
        return panel(missing="No trial has ended yet.")
    counts = Counter(row.reason or "ended externally" for row in ended)
    colors = {why.text: _REASON_COLORS.get(why, RED) for why in WhyEnded}
    ordered = [name for name in (*colors, "ended externally") if name in counts]
    values = [counts[name] for name in ordered]
    shown = [colors.get(name, GREY) for name in ordered]
    layout = {"height": 90 + 34 * len(ordered), "xaxis_title": "trials"}
    figure = bars(ordered, values, [str(value) for value in values], shown, **layout)
    figure.update_xaxes(rangemode="tozero", tickformat="d", nticks=min(max(values) + 1, 10))
    return panel(figures=(figure,))


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
