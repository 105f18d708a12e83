"""Which process dies when: seeded, and so that every boundary has its turn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.kill_points import AFTER_TAKE_OVER, TAKE_OVER, Phase, points
from harness.survey import Survey

RANDOM_MOMENT = "random moment"

# A study begins once, passing many boundaries, so chance has less of a share there, and a process several targets.
_SHARE_OF_RANDOM = {Phase.BEGIN: 0.1, Phase.WORK: 0.4, Phase.END: 0.0}
_TARGETS = {Phase.BEGIN: 4, Phase.WORK: 1, Phase.END: 1}
# A life that ends by chance ends within the start of a process and this part of the whole work, every moment of it
# being as likely as any other.
_LONGEST_WORK = 0.25
_MOST_KILLS_AT_THE_END = 2
# The program gives a trial up after one more, were there anything left to train.
_MOST_DEATHS_AT_A_TAKE_OVER = 2


@dataclass(frozen=True)
class Plan:
    """How one process is to die; if neither is given, it is to live.

    Attributes:
        deadly: At which passage of which points, whatever comes first.
        lifetime_s: After so many seconds.
    """

    deadly: dict[str, int] = field(default_factory=dict)
    lifetime_s: float | None = None


class Schedule:
    """Plans the deaths of all processes of a campaign.

    Attributes:
        kills: How often each point has killed so far, and random moments.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        passages: Mapping[str, int],
        trials: int,
        start_s: float,
        work_s: float,
        only: Sequence[str] = (),
    ) -> None:
        """Learn what an undisturbed run is like.

        Args:
            rng: Where all chance comes from.
            passages: How often it passes each point.
            trials: How many trials it has.
            start_s: How long it takes until it trains.
            work_s: How long it takes from there on.
            only: Kill at these points and at no others, nor at random moments; empty for all.
        """
        self.kills: Counter[str] = Counter()
        self._rng = rng
        self._per_trial = {point: count / trials for point, count in passages.items()}
        self._trials = trials
        self._longest_life_s = start_s + _LONGEST_WORK * work_s
        self._only = frozenset(only)
        self._at_the_end = 0

    def begin_study(self) -> None:
        """Plan for a new study from here on."""
        self._at_the_end = 0

    def killed_at(self, point: str) -> None:
        """Take note of a kill."""
        self.kills[point] += 1
        self._at_the_end += point in points(Phase.END)

    def plan(self, survey: Survey) -> Plan:
        """Return how the next process of a study is to die."""
        phase = self._phase(survey)
        if not self._only and self._rng.random() < _SHARE_OF_RANDOM[phase]:
            return Plan(lifetime_s=self._rng.uniform(0, self._longest_life_s))
        # What is behind cannot kill any more, so there is always something ahead as well.
        phases = {Phase.BEGIN: [Phase.BEGIN, Phase.WORK], Phase.WORK: [Phase.WORK], Phase.END: []}[phase]
        if self._at_the_end < _MOST_KILLS_AT_THE_END:
            phases.append(Phase.END)
        return Plan(deadly={point: self._passage(point) for phase in phases for point in self._targets(phase, survey)})

    def _phase(self, survey: Survey) -> Phase:
        if survey.trials < self._trials:
            return Phase.BEGIN
        return Phase.END if survey.ended == self._trials else Phase.WORK

    def _targets(self, phase: Phase, survey: Survey) -> list[str]:
        """Return some of the points that have killed least."""
        passed = [point for point in points(phase) if self._is_ahead(point, survey)]
        possible = [point for point in passed if not self._only or point in self._only]
        fewest = min((self.kills[point] for point in possible), default=0)
        least = [point for point in possible if self.kills[point] == fewest]
        # Of these, what is seldom ahead.
        first = [point for point in least if point.endswith(TAKE_OVER)] or least
        return self._rng.sample(first, min(_TARGETS[phase], len(first)))

    def _is_ahead(self, point: str, survey: Survey) -> bool:
        if point == AFTER_TAKE_OVER:  # from here on it is a death at the trial, and so far it has not got on
            return survey.is_trained and survey.deaths <= _MOST_DEATHS_AT_A_TAKE_OVER
        if point.endswith(TAKE_OVER):
            return survey.is_running
        return point in self._per_trial

    def _passage(self, point: str) -> int:
        """Return one of the passages that are to be expected within a trial."""
        return 1 + self._rng.randrange(max(1, round(self._per_trial.get(point, 0))))
