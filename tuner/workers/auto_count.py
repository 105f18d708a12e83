"""The measurement for ``--workers auto``: the number of parallel workers that train the most trials per hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal

import torch

from search_spaces import TrainingConfig, fit_loss
from studies import search_settings, study_invariants, study_threads
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.trial_selection import may_start, trials_to_start
from tuner.training.device import setup_training_environment
from tuner.workers.process import threads_per_worker
from tuner.workers.throughput_probe import MeasurementError, ThroughputProbe

AUTO: Literal["auto"] = "auto"

# Prefer fewer workers within this margin: they need less memory, and each has more threads.
_TIE = 0.03
_CLEARLY_WORSE = 0.05
_MAX_ON_A_GPU = 8
# Time limits of the measurement: to start the processes, per worker count, and as a fraction of `--timeout`.
_SECONDS_TO_START = 10.0
_SECONDS_PER_COUNT = 8.0
_MAX_FRACTION_OF_TIMEOUT = 0.25


def choose_worker_count(
    session: Session,
    trial_filter: TrialFilter,
    stop_conditions: StopConditions,
    pending: Mapping[str, TrainingConfig | None],
    threads: int | None = None,
) -> int:
    """Choose the number of workers for the pending trials and show the reason; 1 if nothing can be measured.

    Processes take training steps with the settings of the first pending trial: one process alone, then two in parallel
    and so on, until more processes are clearly slower. The smallest count within 3 % of the fastest count is chosen.

    Args:
        session: The opened study.
        trial_filter: The trials to train.
        stop_conditions: When to stop early.
        pending: Settings of the pending trials, keyed by name; None until they have been sampled.
        threads: The number of threads per worker; None for that of the study, which may have none yet.
    """
    display = session.context.display
    trials = _startable_trials(session, trial_filter, len(pending)) if may_start(session, stop_conditions) else 0
    if trials < 2:
        if trials:
            display.note("workers: 1, because only one trial can be trained at a time")
        return 1
    name, config = _probe_config(session, pending)
    total, fixed = torch.get_num_threads(), threads or study_threads(session.study)
    counts = counts_to_measure(total, trials, on_gpu=setup_training_environment(config)[0].type == "cuda")
    if len(counts) < 2:
        display.note("workers: 1, because PyTorch uses only one thread")
        return 1

    def threads_for(count: int) -> int:
        return min(fixed or total, threads_per_worker(total, count))

    display.note(f"workers: measuring which number is fastest, with {name}")
    started = time.monotonic()
    seconds = _SECONDS_TO_START + _SECONDS_PER_COUNT * len(counts)
    if stop_conditions.deadline is not None:
        seconds = min(seconds, _MAX_FRACTION_OF_TIMEOUT * (stop_conditions.deadline - started))
    rates, problem = measure(config, counts, threads_for, seconds)
    chosen = smallest_near_fastest(rates)
    display.note(
        f"workers: {_summary(rates, chosen, problem, f'measured with {name} in {time.monotonic() - started:.0f} s')}"
    )
    return chosen


def _startable_trials(session: Session, trial_filter: TrialFilter, pending: int) -> int:
    """Return how many of the pending trials can be trained at the same time, if one can start now."""
    settings, startable = search_settings(session.study), trials_to_start(session, trial_filter)
    if settings is None or not trial_filter.search:
        return startable
    if settings.parallelism is None:
        return pending
    return max(startable, min(pending, settings.parallelism)) if startable else 0


def counts_to_measure(threads: int, pending: int, *, on_gpu: bool) -> list[int]:
    """Return the worker counts to measure: 1, 2, 4 and so on, and the largest useful count.

    The largest is the number of pending trials, but at most 8 on a GPU and at most the number of threads on the CPU.
    """
    most = min(_MAX_ON_A_GPU if on_gpu else threads, pending)
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def may_be_faster(rates: Mapping[int, float]) -> bool:
    """Return whether more workers may be faster than the worker counts measured so far, in ascending order.

    False if the last count is clearly slower than the count before it, or if neither of the last two is the fastest.
    """
    measured = list(rates.values())
    if len(measured) > 1 and measured[-1] < (1 - _CLEARLY_WORSE) * measured[-2]:
        return False
    return len(measured) < 3 or max(measured[-2:]) == max(measured)


def smallest_near_fastest(rates: Mapping[int, float]) -> int:
    """Return the smallest worker count within 3 % of the fastest count; 1 if none was measured."""
    fastest = max(rates.values(), default=0.0)
    return min((count for count, rate in rates.items() if rate >= (1 - _TIE) * fastest), default=1)


def measure(
    config: TrainingConfig, counts: list[int], threads_for: Callable[[int], int], seconds: float
) -> tuple[dict[int, float], str]:
    """Measure worker counts in ascending order while more workers may be faster, for at most `seconds`.

    `threads_for` returns the number of PyTorch threads of each worker for a worker count.

    Returns:
        Images per second in total, keyed by worker count; and the error that ended the measurement, "" if none.
    """
    rates: dict[int, float] = {}
    with ThroughputProbe(config, threads_for=threads_for, seconds=seconds) as processes:
        try:
            processes.start(2)  # faster than one after another
            for count in counts:
                rates[count] = processes.images_per_s(count)
                if not may_be_faster(rates):
                    break
        except MeasurementError as error:
            return rates, str(error)
        # Measure the two fastest counts again, in case other programs slowed one of them down.
        with suppress(MeasurementError):  # keep the first measurements
            for count in sorted(rates, key=rates.__getitem__)[-2:]:
                rates[count] = max(rates[count], processes.images_per_s(count))
    return rates, ""


def _probe_config(session: Session, pending: Mapping[str, TrainingConfig | None]) -> tuple[str, TrainingConfig]:
    """Return a name, for messages, and the settings with which to measure: those of the first pending trial."""
    name, config = next(iter(pending.items()))
    title, context = f"the settings of {name}", session.context
    if config is None:
        search = search_settings(session.study)
        assert search is not None, "a search trial is pending, but its study has no search settings"
        title = "the search's base settings"
        config = fit_loss(search.start, study_invariants(session.study).definitions)
    return title, context.local_config(config, name)


def _summary(rates: Mapping[int, float], chosen: int, problem: str, measured: str) -> str:
    if not rates:
        return f"1, because nothing could be measured: {problem}"
    figures = ", ".join(f"{count}: {rate:,.0f}" for count, rate in rates.items())
    if chosen > 1:
        result = f"{chosen}, with {rates[chosen] / rates[1]:.2f} times the images/s of one worker"
    elif len(rates) > 1:
        result = f"1, because more workers are not {_TIE:.0%} faster"
    else:
        result = "1, the only count that could be measured"
    not_measured = f"; larger counts were not measured: {problem}" if problem else ""
    return f"{result} ({figures} images/s, {measured}{not_measured})"
