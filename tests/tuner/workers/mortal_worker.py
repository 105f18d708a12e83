"""Runs that kill their own process; started by the tests.

mortal_worker.py CONFIG FOLDER NAME EPOCHS ...: for each EPOCHS, fork a process that trains in FOLDER and kills itself
(SIGKILL) in the middle of the next epoch after EPOCHS epochs of the trial NAME, or after the last epoch if there is no
next one; print the wait status of each process.
"""

import os
import sys
from signal import SIGKILL

from studies import SearchRequest
from tuner import HyperparameterTuner
from tuner.display.events import Display
from tuner.session.run_options import RunOptions


class SelfKiller(Display):
    """A display that kills this process in the middle of an epoch, or after the last one."""

    def __init__(self, name, epochs):
        self._name = name
        self._epochs = epochs
        self._number = -1
        self._finished = 0
        self._last = 0

    def trial_started(self, number, name, config, *, resumed):
        if name == self._name:
            self._number, self._finished, self._last = number, 0, config.num_epochs

    def epoch_ended(self, number, metrics, signal):
        self._finished = metrics.epoch
        if number == self._number and metrics.epoch == self._epochs == self._last:
            os.kill(os.getpid(), SIGKILL)

    def batch(self, number, done, total):
        if number == self._number and self._finished == self._epochs and done == total // 2:
            os.kill(os.getpid(), SIGKILL)


def main(config, folder, name, *epochs):
    for finished in epochs:
        pid = os.fork()
        if pid == 0:
            search = SearchRequest(at_least=1 if name.startswith("search_") else 0)
            display = SelfKiller(name, finished)
            HyperparameterTuner(
                config, options=RunOptions(output_dir=folder, search=search), display=display
            ).run_experiments()
            os._exit(0)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
