"""The schedule of kills: random points and times, with preference for the points that have the fewest kills so far."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.kill_points import TAKE_OVER, Phase, points
from harness.snapshot import Snapshot
from harness.survey import Survey

RANDOM_MOMENT = "random moment"

# The probability of a random kill, and the number of target points per plan. Each study is created only once but passes
# many points during its creation, so fewer kills are random in that phase and a plan has more targets.
_RANDOM_KILL_PROBABILITY = {Phase.CREATE: 0.1, Phase.WORK: 0.4, Phase.END: 0.0}
_TARGETS = {Phase.CREATE: 4, Phase.WORK: 1, Phase.END: 1}
# The time of a random kill is uniformly distributed over the start of a process and this fraction of the training time.
_MAX_FRACTION_OF_WORK = 0.25
_MAX_KILLS_AT_THE_END = 2
# A process that takes over a trial resumes it in the epoch in which the previous process was killed. Kills at the first
# training step are consecutive crashes, which the program must not attribute to out-of-memory (OOM) kills. A campaign
# plans these kills until one epoch has had `SEVERAL_CRASHES`, and later with a fixed probability.
SEVERAL_CRASHES = 4
_SAME_EPOCH_PROBABILITY = 0.3
_FIRST_STEP = "before training step"
_MAX_CRASHES_IN_AN_EPOCH = 5


@dataclass(frozen=True)
class Reference:
    """The reference study, which runs without kills.

    Attributes:
        snapshot: Snapshot of the complete study.
        passages: How often the process passed each kill point, keyed by point.
        epochs: Number of trained epochs, in total.
        seconds: Duration of the process in seconds.
        first_epoch_s: Seconds from the start of the process to the start of the first epoch.
    """

    snapshot: Snapshot
    passages: dict[str, int]
    epochs: int
    seconds: float
    first_epoch_s: float


@dataclass(frozen=True)
class Plan:
    """The points or the time at which one process is killed; by default, the process is not killed.

    Attributes:
        kill_at: For each point, the passage, from 1, at which the process is killed. The first one kills it.
        lifetime_s: Seconds after which the process is killed; None if the process is only killed at points.
    """

    kill_at: dict[str, int] = field(default_factory=dict)
    lifetime_s: float | None = None


class Schedule:
    """A planner of the kills in all processes of a campaign, and the counts of the kills so far.

    Attributes:
        kills: Number of kills so far, keyed by kill point; kills at random times have the key `RANDOM_MOMENT`.
        most_crashes: Maximum number of consecutive crashes in one epoch of a trial, in all studies so far.
    """

    def __init__(self, rng: random.Random, reference: Reference, trials: int, only: Sequence[str] = ()) -> None:
        """Derive the limits of the kill times and passages from the reference study.

        Args:
            rng: Random number generator for all plans.
            reference: The reference study.
            trials: Number of trials of the reference study.
            only: Points at which to kill, without random kills; empty for all points and random kills.
        """
        self.kills: Counter[str] = Counter()
        self.most_crashes = 0
        self._rng = rng
        self._per_trial = {point: count / trials for point, count in reference.passages.items()}
        self._trials = trials
        work_s = reference.seconds - reference.first_epoch_s
        self._max_lifetime_s = reference.first_epoch_s + _MAX_FRACTION_OF_WORK * work_s
        self._only = frozenset(only)
        self._kills_at_the_end = 0

    def start_study(self) -> None:
        """Reset the counts that concern only the current study."""
        self._kills_at_the_end = 0

    def killed_at(self, point: str, survey: Survey) -> None:
        """Count a kill at a point; `survey` is the progress of the study after the kill."""
        self.kills[point] += 1
        self.most_crashes = max(self.most_crashes, survey.interrupted_crashes)
        self._kills_at_the_end += point in points(Phase.END)

    def plan(self, survey: Survey) -> Plan:
        """Choose the points or the time at which the next process of a study is killed."""
        phase = self._phase(survey)
        if self._is_for_the_same_epoch(survey):
            return Plan(kill_at={_FIRST_STEP: 1})
        if not self._only and self._rng.random() < _RANDOM_KILL_PROBABILITY[phase]:
            return Plan(lifetime_s=self._rng.uniform(0, self._max_lifetime_s))
        # The process may have no more points to pass in this phase, so points of later phases are targets, too.
        phases = {Phase.CREATE: [Phase.CREATE, Phase.WORK], Phase.WORK: [Phase.WORK], Phase.END: []}[phase]
        if self._kills_at_the_end < _MAX_KILLS_AT_THE_END:
            phases.append(Phase.END)
        return Plan(kill_at={point: self._passage(point) for phase in phases for point in self._targets(phase, survey)})

    def _is_for_the_same_epoch(self, survey: Survey) -> bool:
        possible = not self._only and 0 < survey.interrupted_crashes < _MAX_CRASHES_IN_AN_EPOCH
        return possible and (self.most_crashes < SEVERAL_CRASHES or self._rng.random() < _SAME_EPOCH_PROBABILITY)

    def _phase(self, survey: Survey) -> Phase:
        if survey.trials < self._trials:
            return Phase.CREATE
        return Phase.END if survey.finished == self._trials else Phase.WORK

    def _targets(self, phase: Phase, survey: Survey) -> list[str]:
        """Choose kill points of a phase at random, among those with the fewest kills so far."""
        ahead = [point for point in points(phase) if self._is_ahead(point, survey)]
        possible = [point for point in ahead if not self._only or point in self._only]
        fewest = min((self.kills[point] for point in possible), default=0)
        candidates = [point for point in possible if self.kills[point] == fewest]
        # Prefer takeovers, which are rarely possible.
        preferred = [point for point in candidates if point.endswith(TAKE_OVER)] or candidates
        return self._rng.sample(preferred, min(_TARGETS[phase], len(preferred)))

    def _is_ahead(self, point: str, survey: Survey) -> bool:
        if point.endswith(TAKE_OVER):
            return survey.is_interrupted
        return point in self._per_trial

    def _passage(self, point: str) -> int:
        """Choose a passage of a point between 1 and the average number of passages per trial."""
        return 1 + self._rng.randrange(max(1, round(self._per_trial.get(point, 0))))
