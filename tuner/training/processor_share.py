"""How much processor time a training gets beside other programs."""

from __future__ import annotations

import logging

import torch

from search_spaces.diagnostics.plural import counted
from tuner.training.history import EpochMetrics

log = logging.getLogger(__name__)

# On a quiet machine training gets about 0.9; beside one busy process on two cores, 0.3 to 0.4.
_LOW_SHARE = 0.6
# One such epoch may be a pause of the process (Ctrl-Z, a sleeping laptop).
_LOW_EPOCHS = 2
_LOW_SECONDS = 10.0


class ProcessorShare:
    """Warns once per training when other programs take the processor from it."""

    def __init__(self) -> None:
        """Start before the first epoch."""
        self._low_seconds: list[float] = []
        self._warned = False

    def epoch_ended(self, metrics: EpochMetrics) -> None:
        """Warn after several epochs in a row, of 10 s together, that got less than 60 % of wall time x threads."""
        threads = torch.get_num_threads()
        share = metrics.cpu_percent / (100 * threads)
        self._low_seconds = [*self._low_seconds, metrics.epoch_seconds] if share < _LOW_SHARE else []
        if self._warned or len(self._low_seconds) < _LOW_EPOCHS or sum(self._low_seconds) < _LOW_SECONDS:
            return
        self._warned = True
        log.warning(
            f"epoch {metrics.epoch}: training got only {share:.0%} of the processor time of its "
            f"{counted(threads, 'thread')}, because other programs use the processor; stop them"
            + (", or train several trials with one thread each (--workers)" if threads > 1 else "")
        )
