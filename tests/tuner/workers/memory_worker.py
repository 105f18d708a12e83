"""A run that prints its memory usage; started by the tests.

memory_worker.py CONFIG SPACE FOLDER TRIALS: train the configuration and TRIALS search trials in one process; after each
trial, print the memory of the process in MiB, without shared memory.
"""

import sys

import psutil

from studies import SearchRequest
from tuner import HyperparameterTuner
from tuner.display.events import Display
from tuner.session.run_options import RunOptions


class MemoryPrinter(Display):
    """A display that prints the memory usage after each trial."""

    def trial_ended(self, record):
        memory = psutil.Process().memory_info()
        # Without mapped files: other processes decide how much of PyTorch's library counts as shared.
        print((memory.rss - getattr(memory, "shared", 0)) / 2**20, flush=True)


def main(config, space, folder, trials):
    HyperparameterTuner(
        config,
        options=RunOptions(output_dir=folder, space_file=space, search=SearchRequest(at_least=trials)),
        display=MemoryPrinter(),
    ).run_experiments()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
