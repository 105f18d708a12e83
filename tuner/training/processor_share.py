"""The fraction of CPU time that a training run gets, and a warning if other programs use too much CPU time."""

from __future__ import annotations

import logging

import psutil
import torch

from search_spaces.diagnostics.wording import counted
from tuner.cores import usable_cores
from tuner.training.history import EpochMetrics

log = logging.getLogger(__name__)

# A training run gets about 0.9 on an idle machine, and 0.3 to 0.4 of two cores that a busy process uses, too.
_LOW_FRACTION = 0.6
# On a less busy machine, a low fraction has another reason: a small network or a CPU quota.
_BUSY_MACHINE_PERCENT = 90.0
# A low fraction in a single epoch can come from a suspended process (Ctrl-Z, a sleeping laptop).
_LOW_EPOCHS = 2
_LOW_SECONDS = 10.0


class ProcessorShare:
    """Warns once per training run if other programs are using the CPU."""

    def __init__(self) -> None:
        """Start the measurement of the first epoch."""
        self._low_seconds: list[float] = []
        self._warned = False
        psutil.cpu_percent()  # the first call starts the measurement

    def epoch_ended(self, metrics: EpochMetrics) -> None:
        """Warn if consecutive epochs, 10 s in total, got under 60 % of the time of their cores on a busy machine."""
        cores = min(torch.get_num_threads(), usable_cores())
        fraction = metrics.cpu_percent / (100 * cores)
        is_low = psutil.cpu_percent() >= _BUSY_MACHINE_PERCENT and fraction < _LOW_FRACTION
        self._low_seconds = [*self._low_seconds, metrics.epoch_seconds] if is_low else []
        if self._warned or len(self._low_seconds) < _LOW_EPOCHS or sum(self._low_seconds) < _LOW_SECONDS:
            return
        self._warned = True
        log.warning(
            f"epoch {metrics.epoch}: training got only {fraction:.0%} of the CPU time of {counted(cores, 'core')} "
            f"(expected: {_LOW_FRACTION:.0%} or more), because other programs are using the CPU; this slows training "
            "but does not change the results; stop these programs"
            + (", or train several trials with one thread each (--workers)" if cores > 1 else "")
        )
