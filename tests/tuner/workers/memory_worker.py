"""A run that tells how much memory it uses; started by the tests.

memory_worker.py CONFIG SPACE FOLDER TRIALS: train the configuration and so many search trials in this one process;
after each, print the MiB of memory that are this process's own.
"""

from __future__ import annotations

import sys

import psutil

from studies import SearchRequest, TrialRecord
from tuner import HyperparameterTuner
from tuner.display import Display
from tuner.session.run_options import RunOptions


class Memory(Display):
    """Prints what memory is in use after each trial."""

    def trial_ended(self, record: TrialRecord) -> None:
        memory = psutil.Process().memory_info()
        # Without files: how much of PyTorch's library counts as ours alone depends on who else has it open.
        print((memory.rss - getattr(memory, "shared", 0)) / 2**20, flush=True)


def main(config: str, space: str, folder: str, trials: int) -> None:
    HyperparameterTuner(
        config,
        options=RunOptions(output_dir=folder, space_file=space, search=SearchRequest(at_least=trials)),
        display=Memory(),
    ).run_experiments()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
