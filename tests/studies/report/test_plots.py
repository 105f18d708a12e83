"""The plots of a study: their content and their trials."""

from dataclasses import replace

import pytest

from search_spaces import TrainingConfig
from studies import WhyEnded
from studies.report import plots
from studies.report.plots import pareto_front
from studies.trials.claims import claim_next


def test_history_shows_completed_and_pruned_trials_and_the_best_so_far(start, add_trials, snapshot_of):
    study, folder = start()
    add_trials(study, [0.5, 0.25, None, 0.75])
    add_trials(study, [0.125], why_ended=WhyEnded.PRUNED)
    (figure,) = plots.history(snapshot_of(folder)).figures
    completed, best, pruned = figure.data
    assert (list(completed.x), list(completed.y)) == ([0, 1, 3], [0.5, 0.25, 0.75])
    assert list(completed.customdata) == ["search_0000", "search_0001", "search_0003"]
    assert list(best.y)[-1] == 0.75
    assert (list(pruned.x), list(pruned.y)) == ([4], [0.125])


def test_diverged_trial_is_shown_as_failed_and_included_in_setting_plots(start, add_trials, snapshot_of):
    study, folder = start()
    add_trials(study, [0.5])
    add_trials(study, [0.25], why_ended=WhyEnded.PRUNED)
    add_trials(study, [0.125], why_ended=WhyEnded.NONFINITE_LOSS)
    snapshot = snapshot_of(folder)
    (history,) = plots.history(snapshot).figures
    assert {trace.name: list(trace.x) for trace in history.data if trace.name != "best so far"} == {
        "completed": [0],
        "pruned (best value)": [1],
    }
    (curves,) = plots.reported_curves(snapshot).figures
    assert [(trace.name, trace.line.dash) for trace in curves.data] == [
        ("search_0000", "solid"),
        ("search_0001", "dot"),
    ]
    (timeline,) = plots.timeline(snapshot).figures
    assert {trace.name: list(trace.y) for trace in timeline.data} == {"completed": [0], "pruned": [1], "failed": [2]}
    panel = plots.slices(snapshot)
    assert list(panel.figures[0].data[0].y) == [0.5, 0.25, 0.125]
    assert "pruned or diverged" in panel.caption


def test_latency_plot_shows_measured_completed_trials_and_the_pareto_front(start, add_trials, outcome, snapshot_of):
    study, folder = start({"one": TrainingConfig()})
    claim = claim_next(study, folder)
    claim.finish(replace(outcome, best_val_seq_accuracy=0.375, images_per_s_batch_1=250.0), 0.75)
    assert "when two trials" in plots.latency(snapshot_of(folder)).missing
    for accuracy, speed in ((0.5, 1000.0), (0.25, 500.0), (1.0, 100.0), (0.9, None)):
        add_trials(study, [accuracy], images_per_s_batch_1=speed)
    add_trials(study, [0.95], images_per_s_batch_1=2000.0, why_ended=WhyEnded.PRUNED)
    panel = plots.latency(snapshot_of(folder))
    presets, searched, front = panel.figures[0].data
    assert (list(presets.customdata), list(presets.x), list(presets.y)) == (["one"], [4.0], [0.375])
    points = dict(zip(searched.customdata, zip(searched.x, searched.y, strict=True), strict=True))
    assert points == {"search_0001": (1.0, 0.25), "search_0002": (2.0, 0.125), "search_0003": (10.0, 0.5)}
    assert (list(front.x), list(front.y)) == ([1.0, 4.0, 10.0], [0.25, 0.375, 0.5])
    assert "on the device of the training" in panel.caption


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(2.0, 0.5)], [(2.0, 0.5)]),
        ([(2.0, 0.5), (1.0, 0.4), (3.0, 0.6)], [(1.0, 0.4), (2.0, 0.5), (3.0, 0.6)]),
        ([(1.0, 0.6), (2.0, 0.5), (3.0, 0.6)], [(1.0, 0.6)]),
        ([(1.0, 0.4), (1.0, 0.5), (2.0, 0.5)], [(1.0, 0.5)]),
        ([(1.0, 0.5), (1.0, 0.5)], [(1.0, 0.5)]),
    ],
)
def test_pareto_front_has_no_pair_that_another_pair_dominates(points, front):
    assert pareto_front(points) == front


def test_curves_of_running_and_best_trials_are_shown(start, add_trials, snapshot_of, monkeypatch):
    monkeypatch.setattr(plots, "MAX_CURVES", 3)
    study, folder = start({"running": TrainingConfig()})
    claim = claim_next(study, folder)
    claim.trial.report(0.125, 1)
    add_trials(study, [0.25, 0.75, None, 0.5])
    panel = plots.reported_curves(snapshot_of(folder))
    (figure,) = panel.figures
    assert [(trace.name, trace.y[-1]) for trace in figure.data] == [
        ("running", 0.125),
        ("search_0002", 0.75),
        ("search_0004", 0.5),
    ]
    assert "3 of 4 trials are shown" in panel.caption
    claim.release()


@pytest.mark.parametrize(("count", "missing"), [(49, "1 more trial to go"), (50, "")])
def test_importances_need_fifty_trials(count, missing, start, add_trials, snapshot_of):
    study, folder = start()
    # Every second trial is pruned; a higher learning rate gives a better value.
    for number in range(count):
        add_trials(study, [0.01 * number], why_ended=WhyEnded.PRUNED if number % 2 else WhyEnded.MAX_EPOCHS)
    panel = plots.importances(snapshot_of(folder))
    assert missing in panel.missing
    assert bool(panel.figures) == (not missing)


def test_setting_that_gets_trials_pruned_is_important(start, add_trials, snapshot_of):
    study, folder = start()
    # All trials of the second model are bad and pruned or diverge, so all completed trials have the first model.
    for number in range(40):
        add_trials(study, [0.9 + 0.001 * (number * 7 % 40)])
        why = WhyEnded.PRUNED if number % 2 else WhyEnded.NONFINITE_LOSS
        add_trials(study, [0.1], user_attrs={"which": "second"}, why_ended=why, model="medium")
    panel = plots.importances(snapshot_of(folder))
    bars = dict(zip(panel.figures[0].data[0].y, panel.figures[0].data[0].x, strict=True))
    assert bars["model_name"] > 0.5
    assert "(40 of them)" in panel.caption


def test_equal_values_have_no_importances(start, add_trials, snapshot_of):
    study, folder = start()
    add_trials(study, [0.5] * 50)
    assert plots.importances(snapshot_of(folder)).missing.startswith("All trials ended with the same value")


def test_parallel_coordinates_show_only_the_best_of_many_trials(start, add_trials, snapshot_of, monkeypatch):
    monkeypatch.setattr(plots, "MAX_LINES", 2)
    study, folder = start()
    add_trials(study, [0.25, 0.5])
    add_trials(study, [0.75], why_ended=WhyEnded.PRUNED)
    panel = plots.parallel_coordinates(snapshot_of(folder))
    *lines, _scale = panel.figures[0].data
    # The first axis is the metric; the best line is plotted last, on top.
    assert [line.customdata[0][1] for line in lines] == ["0.5", "0.75"]
    assert "Only the best 2 of 3 trials are shown." in panel.caption


def test_slice_plots_have_the_same_scale(start, add_trials, snapshot_of):
    study, folder = start()
    add_trials(study, [0.25, None, 0.75])
    figures = plots.slices(snapshot_of(folder)).figures
    assert [figure.layout.xaxis.title.text for figure in figures] == ["learning_rate", "model_name"]
    assert len({figure.layout.yaxis.range for figure in figures}) == 1
    assert [list(figure.data[0].customdata) for figure in figures] == [["search_0000", "search_0002"]] * 2


def test_timeline_shows_why_each_trial_ended(start, add_trials, snapshot_of):
    study, folder = start()
    add_trials(study, [0.5, None], total_epochs=1)
    (figure,) = plots.timeline(snapshot_of(folder)).figures
    texts = {trace.name: list(trace.text) for trace in figure.data}
    assert {trace.width for trace in figure.data} == {0.8}
    assert texts == {
        "completed": ["search_0000: max epochs, 1 epoch, best 0.5000"],
        "failed": ["search_0001: failed, 1 epoch"],
    }


def test_reasons_of_ending_are_counted(start, add_trials, snapshot_of):
    study, folder = start()
    reasons = [
        (WhyEnded.MAX_EPOCHS, 0.5),
        (WhyEnded.EARLY_STOPPED, 0.5),
        (WhyEnded.EARLY_STOPPED, 0.5),
        (WhyEnded.NONFINITE_LOSS, 0.5),
        (WhyEnded.CRASHED, None),
    ]
    for why, value in reasons:
        add_trials(study, [value], why_ended=why)
    (figure,) = plots.reasons(snapshot_of(folder)).figures
    counted = dict(zip(figure.data[0].y, figure.data[0].x, strict=True))
    assert counted == {"max epochs": 1, "early stopped": 2, "nonfinite loss": 1, "crashed": 1}
