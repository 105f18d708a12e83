"""The share of processor time that a training gets, and a warning if other programs use too much of it."""

from __future__ import annotations

import logging

import psutil
import torch

from search_spaces.diagnostics.plural import counted
from tuner.cores import usable_cores
from tuner.training.history import EpochMetrics

log = logging.getLogger(__name__)

# An idle machine gives a training about 0.9; two cores shared with one busy process, 0.3 to 0.4.
_LOW_SHARE = 0.6
# On a less busy machine, a small network or a CPU quota explains a low share.
_BUSY_MACHINE_PERCENT = 90.0
# A single low epoch can be a suspended process (Ctrl-Z, a sleeping laptop).
_LOW_EPOCHS = 2
_LOW_SECONDS = 10.0


class ProcessorShare:
    """Warns once per training if other programs use the processor."""

    def __init__(self) -> None:
        """Start measuring, before the first epoch."""
        self._low_seconds: list[float] = []
        self._warned = False
        psutil.cpu_percent()  # the first call starts the measurement

    def epoch_ended(self, metrics: EpochMetrics) -> None:
        """Warn after consecutive epochs, 10 s in total, that got under 60 % of their cores on a busy machine."""
        cores = min(torch.get_num_threads(), usable_cores())
        share = metrics.cpu_percent / (100 * cores)
        is_low = psutil.cpu_percent() >= _BUSY_MACHINE_PERCENT and share < _LOW_SHARE
        self._low_seconds = [*self._low_seconds, metrics.epoch_seconds] if is_low else []
        if self._warned or len(self._low_seconds) < _LOW_EPOCHS or sum(self._low_seconds) < _LOW_SECONDS:
            return
        self._warned = True
        log.warning(
            f"epoch {metrics.epoch}: training got only {share:.0%} of the processor time of "
            f"{counted(cores, 'core')}, because other programs are using the processor; stop them"
            + (", or train several trials with one thread each (--workers)" if cores > 1 else "")
        )
