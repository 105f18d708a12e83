"""Which process dies when: from a seed, and so that every boundary has its turn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.kill_points import AFTER_TAKE_OVER, TAKE_OVER, Phase, points
from harness.snapshot import Snapshot
from harness.survey import Survey

RANDOM_MOMENT = "random moment"

# A study is created once and passes many boundaries then, so fewer kills there are random, and there are more targets.
_SHARE_OF_RANDOM = {Phase.BEGIN: 0.1, Phase.WORK: 0.4, Phase.END: 0.0}
_TARGETS = {Phase.BEGIN: 4, Phase.WORK: 1, Phase.END: 1}
# A process killed at random dies within its start and this share of the whole work, at each moment equally likely.
_LONGEST_WORK = 0.25
_MOST_KILLS_AT_THE_END = 2
# The first step of a process that takes a trial over is in the epoch in which the process before it died. The program
# must not take that for lack of memory, however often it happens. A campaign begins with several such deaths.
SEVERAL_DEATHS = 4
_SHARE_OF_SAME_EPOCH = 0.3
_FIRST_STEP = "before training step"
_MOST_DEATHS_IN_AN_EPOCH = 5


@dataclass(frozen=True)
class Reference:
    """A study that nothing disturbed.

    Attributes:
        snapshot: What it left behind.
        passages: How often it passed each point.
        epochs: Number of epochs that it trained.
        seconds: How long it took.
        first_epoch_s: Seconds from its start until its first epoch started.
    """

    snapshot: Snapshot
    passages: dict[str, int]
    epochs: int
    seconds: float
    first_epoch_s: float


@dataclass(frozen=True)
class Plan:
    """How one process dies; if neither is given, it runs to its end.

    Attributes:
        kill_at: At which passage of which points; the first one that it reaches counts.
        lifetime_s: After this many seconds.
    """

    kill_at: dict[str, int] = field(default_factory=dict)
    lifetime_s: float | None = None


class Schedule:
    """Plans the deaths of all processes of a campaign.

    Attributes:
        kills: Number of kills at each point so far, and at random moments.
        most_deaths: The most processes so far that died one after the other in the same epoch of a trial.
    """

    def __init__(self, rng: random.Random, reference: Reference, trials: int, only: Sequence[str] = ()) -> None:
        """Prepare for studies like the reference.

        Args:
            rng: The source of all randomness.
            reference: The undisturbed study.
            trials: How many trials it has.
            only: Kill at these points only, and never at random; empty for all points.
        """
        self.kills: Counter[str] = Counter()
        self.most_deaths = 0
        self._rng = rng
        self._per_trial = {point: count / trials for point, count in reference.passages.items()}
        self._trials = trials
        work_s = reference.seconds - reference.first_epoch_s
        self._longest_life_s = reference.first_epoch_s + _LONGEST_WORK * work_s
        self._only = frozenset(only)
        self._at_the_end = 0

    def start_study(self) -> None:
        """Plan for a new study from now on."""
        self._at_the_end = 0

    def killed_at(self, point: str, survey: Survey) -> None:
        """Count a kill, after which the study is as surveyed."""
        self.kills[point] += 1
        self.most_deaths = max(self.most_deaths, survey.deaths)
        self._at_the_end += point in points(Phase.END)

    def plan(self, survey: Survey) -> Plan:
        """Return how the next process of a study dies."""
        phase = self._phase(survey)
        if self._is_for_the_same_epoch(survey):
            return Plan(kill_at={_FIRST_STEP: 1})
        if not self._only and self._rng.random() < _SHARE_OF_RANDOM[phase]:
            return Plan(lifetime_s=self._rng.uniform(0, self._longest_life_s))
        # A point that was passed may not be passed again, so later ones are targets, too.
        phases = {Phase.BEGIN: [Phase.BEGIN, Phase.WORK], Phase.WORK: [Phase.WORK], Phase.END: []}[phase]
        if self._at_the_end < _MOST_KILLS_AT_THE_END:
            phases.append(Phase.END)
        return Plan(kill_at={point: self._passage(point) for phase in phases for point in self._targets(phase, survey)})

    def _is_for_the_same_epoch(self, survey: Survey) -> bool:
        possible = not self._only and 0 < survey.deaths < _MOST_DEATHS_IN_AN_EPOCH
        return possible and (self.most_deaths < SEVERAL_DEATHS or self._rng.random() < _SHARE_OF_SAME_EPOCH)

    def _phase(self, survey: Survey) -> Phase:
        if survey.trials < self._trials:
            return Phase.BEGIN
        return Phase.END if survey.ended == self._trials else Phase.WORK

    def _targets(self, phase: Phase, survey: Survey) -> list[str]:
        """Return some of the points that have killed least."""
        ahead = [point for point in points(phase) if self._is_ahead(point, survey)]
        possible = [point for point in ahead if not self._only or point in self._only]
        fewest = min((self.kills[point] for point in possible), default=0)
        least = [point for point in possible if self.kills[point] == fewest]
        # Of these, first what is rarely possible.
        first = [point for point in least if point.endswith(TAKE_OVER)] or least
        return self._rng.sample(first, min(_TARGETS[phase], len(first)))

    def _is_ahead(self, point: str, survey: Survey) -> bool:
        if point == AFTER_TAKE_OVER:  # a kill here counts as a death at the trial, before it makes any progress
            return survey.is_running and not survey.is_at_the_limit
        if point.endswith(TAKE_OVER):
            return survey.is_running
        return point in self._per_trial

    def _passage(self, point: str) -> int:
        """Return one of the passages that are to be expected within a trial."""
        return 1 + self._rng.randrange(max(1, round(self._per_trial.get(point, 0))))
