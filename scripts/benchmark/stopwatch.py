"""How a program's time is divided among functions, which are replaced by timed ones."""

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
class Watched:
    """Functions whose time is one part of the whole.

    Attributes:
        part: What they do.
        targets: Their dotted names, where their callers look them up.
        opaque: Whether what they call belongs to them, also if it is watched itself.
    """

    part: str
    targets: tuple[str, ...]
    opaque: bool = False


@dataclass
class Lap:
    """A stretch of time.

    Attributes:
        seconds: How long it took.
        parts: Seconds of each part; what a watched function calls counts for the part that is called.
        calls: How often functions of each part were called.
    """

    seconds: float
    parts: dict[str, float]
    calls: dict[str, int]


@dataclass
class Stopwatch:
    """Divides the time of this process among watched functions.

    Attributes:
        wait: Called before the clock is read; for a device that works asynchronously.
        laps: The stretches that have ended.
    """

    wait: Callable[[], object] = lambda: None
    laps: list[Lap] = field(default_factory=list)
    _parts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _calls: Counter[str] = field(default_factory=Counter)
    _inner: list[float] = field(default_factory=list)
    _opaque: bool = False
    _lap_begun: float | None = None

    def time(self, watched: Sequence[Watched]) -> None:
        """Replace functions by ones that are timed.

        Raises:
            HarnessError: The program has no such function any more.
        """
        for item in watched:
            for target in item.targets:
                replace(target, functools.partial(self._timed, item))

    def lap(self) -> None:
        """End a stretch, if one has begun, and begin the next."""
        self.wait()
        now = time.perf_counter()
        if self._lap_begun is not None:
            self.laps.append(Lap(now - self._lap_begun, dict(self._parts), dict(self._calls)))
        self._lap_begun = now
        self._parts.clear()
        self._calls.clear()

    def lap_before(self, target: str) -> None:
        """End a stretch whenever a function is called."""
        watch(target, before=lambda *arguments, **named: self.lap())

    def _timed(self, item: Watched, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._opaque:
                return function(*arguments, **named)
            with self._counted(item):
                return function(*arguments, **named)

        return timed

    @contextmanager
    def _counted(self, item: Watched) -> Iterator[None]:
        self.wait()
        started_at = time.perf_counter()
        self._inner.append(0.0)
        self._opaque = item.opaque
        try:
            yield
        finally:
            self._opaque = False
            self.wait()
            seconds = time.perf_counter() - started_at
            self._parts[item.part] += seconds - self._inner.pop()
            self._calls[item.part] += 1
            if self._inner:
                self._inner[-1] += seconds


def refuse_uncalled(laps: Sequence[Lap], parts: Sequence[str]) -> None:
    """Refuse to report parts that the program no longer calls.

    Raises:
        HarnessError: A part was never called.
    """
    called = {part for lap in laps for part in lap.calls}
    if missing := [part for part in parts if part not in called]:
        raise HarnessError(f"the program no longer calls what is timed as {', '.join(missing)}")
