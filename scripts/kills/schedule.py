"""The schedule of kills: random from a seed, and covering every kill point."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.kill_points import AFTER_TAKE_OVER, TAKE_OVER, Phase, points
from harness.snapshot import Snapshot
from harness.survey import Survey

RANDOM_MOMENT = "random moment"

# A study is created only once and passes many points then: fewer kills are random there, and more points are targets.
_SHARE_OF_RANDOM = {Phase.CREATE: 0.1, Phase.WORK: 0.4, Phase.END: 0.0}
_TARGETS = {Phase.CREATE: 4, Phase.WORK: 1, Phase.END: 1}
# A random kill is uniformly distributed over the start of the process and this share of the whole training.
_MAX_SHARE_OF_WORK = 0.25
_MAX_KILLS_AT_THE_END = 2
# A process that takes over a trial starts in the epoch in which the previous process was killed. Kills at its first
# step are consecutive crashes, which the program must not attribute to lack of memory. A campaign starts with some.
SEVERAL_CRASHES = 4
_SHARE_OF_SAME_EPOCH = 0.3
_FIRST_STEP = "before training step"
_MAX_CRASHES_IN_AN_EPOCH = 5


@dataclass(frozen=True)
class Reference:
    """The undisturbed study.

    Attributes:
        snapshot: Its snapshot.
        passages: Number of passages of each kill point.
        epochs: Number of trained epochs.
        seconds: Duration.
        first_epoch_s: Seconds from its start to the start of its first epoch.
    """

    snapshot: Snapshot
    passages: dict[str, int]
    epochs: int
    seconds: float
    first_epoch_s: float


@dataclass(frozen=True)
class Plan:
    """How one process is killed; without points and time, it is not.

    Attributes:
        kill_at: For each point, the passage at which it is killed; the first one reached counts.
        lifetime_s: Seconds after which it is killed.
    """

    kill_at: dict[str, int] = field(default_factory=dict)
    lifetime_s: float | None = None


class Schedule:
    """Plans the kills of all processes of a campaign.

    Attributes:
        kills: Number of kills so far at each point and at random moments.
        most_crashes: Maximum number so far of consecutive crashes in the same epoch of a trial.
    """

    def __init__(self, rng: random.Random, reference: Reference, trials: int, only: Sequence[str] = ()) -> None:
        """Prepare the schedule.

        Args:
            rng: Random number generator of all choices.
            reference: The undisturbed study.
            trials: Number of its trials.
            only: Points at which to kill, without random kills; empty for all points.
        """
        self.kills: Counter[str] = Counter()
        self.most_crashes = 0
        self._rng = rng
        self._per_trial = {point: count / trials for point, count in reference.passages.items()}
        self._trials = trials
        work_s = reference.seconds - reference.first_epoch_s
        self._max_lifetime_s = reference.first_epoch_s + _MAX_SHARE_OF_WORK * work_s
        self._only = frozenset(only)
        self._kills_at_the_end = 0

    def start_study(self) -> None:
        """Start to plan for a new study."""
        self._kills_at_the_end = 0

    def killed_at(self, point: str, survey: Survey) -> None:
        """Count a kill; `survey` is the progress of the study after it."""
        self.kills[point] += 1
        self.most_crashes = max(self.most_crashes, survey.crashes)
        self._kills_at_the_end += point in points(Phase.END)

    def plan(self, survey: Survey) -> Plan:
        """Return the plan for the next process of a study."""
        phase = self._phase(survey)
        if self._is_for_the_same_epoch(survey):
            return Plan(kill_at={_FIRST_STEP: 1})
        if not self._only and self._rng.random() < _SHARE_OF_RANDOM[phase]:
            return Plan(lifetime_s=self._rng.uniform(0, self._max_lifetime_s))
        # The process may not pass a point of an earlier phase again, so points of later phases are targets, too.
        phases = {Phase.CREATE: [Phase.CREATE, Phase.WORK], Phase.WORK: [Phase.WORK], Phase.END: []}[phase]
        if self._kills_at_the_end < _MAX_KILLS_AT_THE_END:
            phases.append(Phase.END)
        return Plan(kill_at={point: self._passage(point) for phase in phases for point in self._targets(phase, survey)})

    def _is_for_the_same_epoch(self, survey: Survey) -> bool:
        possible = not self._only and 0 < survey.crashes < _MAX_CRASHES_IN_AN_EPOCH
        return possible and (self.most_crashes < SEVERAL_CRASHES or self._rng.random() < _SHARE_OF_SAME_EPOCH)

    def _phase(self, survey: Survey) -> Phase:
        if survey.trials < self._trials:
            return Phase.CREATE
        return Phase.END if survey.finished == self._trials else Phase.WORK

    def _targets(self, phase: Phase, survey: Survey) -> list[str]:
        """Return some of the points with the fewest kills."""
        ahead = [point for point in points(phase) if self._is_ahead(point, survey)]
        possible = [point for point in ahead if not self._only or point in self._only]
        fewest = min((self.kills[point] for point in possible), default=0)
        candidates = [point for point in possible if self.kills[point] == fewest]
        # Prefer take-overs, which are rarely possible.
        preferred = [point for point in candidates if point.endswith(TAKE_OVER)] or candidates
        return self._rng.sample(preferred, min(_TARGETS[phase], len(preferred)))

    def _is_ahead(self, point: str, survey: Survey) -> bool:
        if point == AFTER_TAKE_OVER:  # a kill here counts as a crash of the trial without progress
            return survey.is_running and not survey.is_at_crash_limit
        if point.endswith(TAKE_OVER):
            return survey.is_running
        return point in self._per_trial

    def _passage(self, point: str) -> int:
        """Return a random one of the passages that a trial makes on average."""
        return 1 + self._rng.randrange(max(1, round(self._per_trial.get(point, 0))))
