"""A stopwatch that measures the time spent in functions, by wrapping them."""

from __future__ import annotations

import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.replacement import replace, watch
from harness.run import HarnessError


@dataclass(frozen=True)
class TimedPart:
    """Functions whose time is one part of the total.

    Attributes:
        part: Name of the part.
        targets: Dotted names under which callers look up the functions.
        opaque: Whether timed functions that these functions call count for this part instead of their own.
    """

    part: str
    targets: tuple[str, ...]
    opaque: bool = False


@dataclass
class Lap:
    """A measured period.

    Attributes:
        seconds: Duration.
        parts: Seconds per part. A timed function counts for its own part only, unless an opaque part calls it.
        calls: Number of calls per part.
    """

    seconds: float
    parts: dict[str, float]
    calls: dict[str, int]


@dataclass
class Stopwatch:
    """A stopwatch for functions in this process.

    Attributes:
        laps: The completed laps.
    """

    laps: list[Lap] = field(default_factory=list)
    _parts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _calls: Counter[str] = field(default_factory=Counter)
    _inner: list[float] = field(default_factory=list)
    _opaque: bool = False
    _lap_started: float | None = None

    def time(self, parts: Sequence[TimedPart]) -> None:
        """Wrap the functions of these parts, to measure the time spent in them.

        Raises:
            HarnessError: A function does not exist in the program.
        """
        for item in parts:
            for target in item.targets:
                replace(target, functools.partial(self._timed, item))

    def lap(self) -> None:
        """End the current lap, if there is one, and start the next."""
        now = time.perf_counter()
        if self._lap_started is not None:
            self.laps.append(Lap(now - self._lap_started, dict(self._parts), dict(self._calls)))
        self._lap_started = now
        self._parts.clear()
        self._calls.clear()

    def lap_before(self, target: str) -> None:
        """End the current lap and start the next before each call of a function."""
        watch(target, before=lambda *arguments, **named: self.lap())

    def _timed(self, item: TimedPart, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._opaque:
                return function(*arguments, **named)
            with self._counted(item):
                return function(*arguments, **named)

        return timed

    @contextmanager
    def _counted(self, item: TimedPart) -> Iterator[None]:
        started_at = time.perf_counter()
        self._inner.append(0.0)
        self._opaque = item.opaque
        try:
            yield
        finally:
            self._opaque = False
            seconds = time.perf_counter() - started_at
            self._parts[item.part] += seconds - self._inner.pop()
            self._calls[item.part] += 1
            if self._inner:
                self._inner[-1] += seconds


def refuse_uncalled(laps: Sequence[Lap], parts: Sequence[str]) -> None:
    """Check that the program has called at least one timed function of each of these parts.

    Raises:
        HarnessError: The program has called no function of a part; the part's function names are probably outdated.
    """
    called = {part for lap in laps for part in lap.calls}
    if missing := [part for part in parts if part not in called]:
        raise HarnessError(
            f"no timed function was called for: {', '.join(missing)}; correct the function names in TimedPart"
        )
