"""The table of trials that `khmer-tuner status` shows."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from tuner.display.tables import trial_table


@pytest.fixture
def shown():
    def show(status, *, width=80, show_all=False):
        table, hidden = trial_table(status, width, show_all=show_all)
        console = Console(file=io.StringIO(), width=width, record=True)
        console.print(table)
        lines = console.export_text().splitlines()
        assert max(map(cell_len, lines)) <= width
        return [line.split() for line in lines[1:]], hidden

    return show


def test_each_trial_has_a_row(shown, make_row, make_status):
    rows = [
        make_row(0, "completed", "conservative_small", best_value=0.97334),
        make_row(1, "failed", best_value=None, why_ended="out_of_memory"),
        make_row(2, "running", epochs=3, best_value=0.5, seconds=3700.0),
        make_row(3, "running", worker_pid=0),
        make_row(4, "waiting", "late"),
        make_row(5, "pruned"),
    ]
    assert shown(make_status(*rows)) == (
        [
            "0 conservative_small completed 0.9733 25 early stopped 4:10 -".split(),
            "1 search_0001 failed - 25 out of memory 4:10 -".split(),
            "2 search_0002 running 0.5000 3 - 1:01:40 1002".split(),
            "3 search_0003 running - 0 - - remote".split(),
            "4 late waiting - 0 - - -".split(),
            "5 search_0005 pruned 0.5000 25 pruned 4:10 -".split(),
        ],
        0,
    )


def test_waiting_search_trials_share_a_row(shown, make_row, make_status):
    rows = [make_row(0), *(make_row(number, "waiting") for number in range(1, 9)), make_row(9, "waiting", "late")]
    lines, hidden = shown(make_status(*rows))
    assert lines[1:] == ["1-8 8 search trials waiting - 0 - - -".split(), "9 late waiting - 0 - - -".split()]
    assert hidden == 0
    assert len(shown(make_status(*rows), show_all=True)[0]) == 10


def test_large_study_shows_best_last_failed_and_started_trials(shown, make_row, make_status):
    rows = [make_row(number, best_value=number % 50 / 100) for number in range(100)]
    rows[20] = make_row(20, "failed")
    rows[60] = make_row(60, "pruned", best_value=0.99)
    rows[70] = make_row(70, "running")
    rows[71] = make_row(71, "interrupted")
    rows += [make_row(number, "waiting") for number in range(100, 120)]
    lines, hidden = shown(make_status(*rows))
    alone = [line[0] for line in lines if "-" not in line[0]]
    # The failed trial, the five best completed trials, the running and interrupted trials, the last five ended trials.
    assert alone == ["20", "47", "48", "49", "70", "71", "95", "96", "97", "98", "99"]
    groups = [line for line in lines if "-" in line[0]]
    assert groups[0] == "0-19 20 more trials finished 0.1900 - - - -".split()
    assert groups[2] == "50-69 20 more trials finished 0.9900 - - - -".split()
    assert groups[-1] == "100-119 20 search trials waiting - 0 - - -".split()
    assert hidden == 100 - len(alone)


def test_show_all_gives_each_trial_of_a_large_study_a_row(shown, make_row, make_status):
    status = make_status(*(make_row(number) for number in range(100)))
    lines, hidden = shown(status, show_all=True)
    assert [line[0] for line in lines] == [str(number) for number in range(100)]
    assert hidden == 0


def test_forty_trials_each_have_a_row(shown, make_row, make_status):
    rows = [make_row(number) for number in range(40)]
    assert len(shown(make_status(*rows))[0]) == 40
    assert len(shown(make_status(*rows, make_row(40)))[0]) < 20


def test_many_waiting_experiments_share_a_row(shown, make_row, make_status):
    rows = [make_row(0), *(make_row(number, "waiting", f"e{number}") for number in range(1, 100))]
    assert shown(make_status(*rows))[0][1:] == ["1-99 99 experiments waiting - 0 - - -".split()]


def test_narrow_terminal_shows_names_and_figures(shown, make_row, make_status):
    rows = [make_row(0, "completed", "a"), make_row(1, "running", epochs=3, best_value=0.25, seconds=3700.0)]
    lines = [" ".join(line) for line in shown(make_status(*rows), width=60)[0]]
    assert "1 search_0001 running 0.2500 3 - 1:01:40" in lines
    assert any(line.startswith("0 a completed 0.5000 25 early") for line in lines)


def test_wide_terminal_shows_parameters_and_latency_in_milliseconds(shown, make_row, make_status):
    rows = [
        make_row(0, "completed", "a", parameters=159_867, latency_ms=1.724),
        *(make_row(number, "waiting") for number in (1, 2)),
        make_row(3, "waiting", "late"),
    ]
    lines = [" ".join(line) for line in shown(make_status(*rows), width=120)[0]]
    assert lines == [
        "0 a completed 0.5000 25 early stopped 4:10 - 159,867 1.72",
        "1-2 2 search trials waiting - 0 - - - - -",
        "3 late waiting - 0 - - - - -",
    ]


@pytest.mark.parametrize(("width", "name"), [(80, "a"), (120, "a" * 60)])
def test_parameters_and_latency_are_omitted_unless_they_fit(width, name, shown, make_row, make_status):
    status = make_status(make_row(0, "completed", name, parameters=159_867, latency_ms=1.724))
    ((*_, seconds, process),) = shown(status, width=width)[0]
    assert (seconds, process) == ("4:10", "-")


@pytest.mark.parametrize("name", ["a", "conservative_small", "ខ្មែរ_លេខ", ""])
def test_columns_of_any_terminal_width_keep_each_trial_on_one_line(name, shown, make_row, make_status):
    status = make_status(make_row(0, "completed", name, parameters=1_159_867, latency_ms=101.724))
    tables = [shown(status, width=width)[0] for width in range(80, 140)]
    assert {len(lines) for lines in tables} == {1}
    has_latency = [line[-1] == "101.72" for (line,) in tables]
    assert has_latency == sorted(has_latency)
    assert has_latency[-1]
