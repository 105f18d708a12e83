"""``--workers auto``: measuring how many workers in parallel train the most trials an hour."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import torch

from search_spaces import TrainingConfig, fit_loss
from studies import search_settings, study_invariants
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.trial_selection import may_start, trials_to_start
from tuner.training.device import setup_training_environment
from tuner.workers.process import shared_threads
from tuner.workers.throughput_probe import MeasurementError, ThroughputProbe

AUTO: Literal["auto"] = "auto"

# More workers need more memory, and one alone repeats to the same bits: a difference like that does not count.
_TIE = 0.03
_CLEARLY_WORSE = 0.05
_MOST_ON_A_GPU = 8
# The longest that measuring may take: for the first processes to begin, for each number, and of the time there is.
_SECONDS_TO_BEGIN = 10.0
_SECONDS_EACH = 8.0
_SHARE_OF_TIME = 0.25


def choose_worker_count(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    pending: Mapping[str, TrainingConfig | None],
) -> int:
    """Choose how many workers train the pending trials, and show why; one if nothing can be measured.

    Processes take training steps of the first pending trial, one process alone, then two in parallel and so on, until
    more are clearly worse. Of the numbers that are about as fast as the fastest, the smallest is chosen.

    Args:
        session: The opened study.
        trial_filter: Which trials.
        stop_conditions: What ends the work early.
        pending: The pending trials by name; None where the settings are not sampled yet.
    """
    display = session.context.display
    trials = trials_to_start(session, trial_filter) if pending and may_start(session, stop_conditions) else 0
    if trials < 2:
        if trials:
            display.note("workers: 1, since one trial is to be trained")
        return 1
    name, config = _measured(session, pending)
    threads = torch.get_num_threads()
    counts = candidates(threads, trials, on_gpu=setup_training_environment(config)[0].type == "cuda")
    if len(counts) < 2:
        display.note("workers: 1, since PyTorch has one thread here")
        return 1
    display.note(f"workers: measuring how many side by side are fastest, on {name}")
    started = time.monotonic()
    seconds = _SECONDS_TO_BEGIN + _SECONDS_EACH * len(counts)
    if stop_conditions.deadline is not None:
        seconds = min(seconds, _SHARE_OF_TIME * (stop_conditions.deadline - started))
    rates, problem = measure(config, counts, threads, seconds)
    chosen = fewest_of_the_fastest(rates)
    display.note(
        f"workers: {_why(rates, chosen, problem, f'measured on {name} in {time.monotonic() - started:.0f} s')}"
    )
    return chosen


def candidates(threads: int, pending: int, *, on_gpu: bool) -> list[int]:
    """Return the numbers of workers to measure: 1, 2, 4 and so on, and the largest that makes sense.

    That is the number of pending trials, but on a GPU at most 8, and on the CPU at most the number of threads.
    """
    most = min(_MOST_ON_A_GPU if on_gpu else threads, pending)
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def is_worth_climbing(rates: Mapping[int, float]) -> bool:
    """Return whether more workers may be faster than those measured so far, fewest first.

    They are not once the latest is clearly slower than the one before, or neither of the latest two is the fastest.
    """
    measured = list(rates.values())
    if len(measured) > 1 and measured[-1] < (1 - _CLEARLY_WORSE) * measured[-2]:
        return False
    return len(measured) < 3 or max(measured[-2:]) == max(measured)


def fewest_of_the_fastest(rates: Mapping[int, float]) -> int:
    """Return the fewest workers that are as good as the fastest; one if none was measured."""
    fastest = max(rates.values(), default=0.0)
    return min((count for count, rate in rates.items() if rate >= (1 - _TIE) * fastest), default=1)


def measure(config: TrainingConfig, counts: list[int], threads: int, seconds: float) -> tuple[dict[int, float], str]:
    """Measure numbers of workers, fewest first, as long as more may be faster and for at most some seconds.

    Returns:
        Images a second that all workers train together, by their number; and why not all numbers could be measured.
    """
    rates: dict[int, float] = {}
    with ThroughputProbe(config, threads=threads, seconds=seconds) as processes:
        try:
            processes.start(2)  # both at once are ready sooner than one after the other
            for count in counts:
                rates[count] = processes.images_per_s(shared_threads(threads, count))
                if not is_worth_climbing(rates):
                    break
        except MeasurementError as error:
            return rates, str(error)
        # Once more for those that matter: what else the machine did in such a moment is to decide nothing.
        with suppress(MeasurementError):  # each has been measured once
            for count in sorted(rates, key=rates.__getitem__)[-2:]:
                rates[count] = max(rates[count], processes.images_per_s(shared_threads(threads, count)))
    return rates, ""


def _measured(session: Session, pending: Mapping[str, TrainingConfig | None]) -> tuple[str, TrainingConfig]:
    """Return the name and the settings of what is measured: the first pending trial."""
    name, config = next(iter(pending.items()))
    told, context = name, session.context
    if config is None:
        search = search_settings(session.study)
        assert search is not None, "search trials are enqueued after the settings of the search"
        told, config = "the search's base settings", fit_loss(search.start, study_invariants(session.study).definitions)
    return told, context.local_config(config, name)


def _why(rates: Mapping[int, float], chosen: int, problem: str, measured: str) -> str:
    if not rates:
        return f"1, since nothing could be measured: {problem}"
    figures = ", ".join(f"{count}: {rate:,.0f}" for count, rate in rates.items())
    if chosen > 1:
        said = f"{chosen} side by side, {rates[chosen] / rates[1]:.2f} times the images/s of one"
    elif len(rates) > 1:
        said = f"1, more side by side are not {_TIE:.0%} faster"
    else:
        said = "1, the only number that could be measured"
    left_out = f"; the rest was left out: {problem}" if problem else ""
    return f"{said} ({figures} images/s, {measured}{left_out})"
