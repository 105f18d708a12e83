"""Processes that train side by side to be measured; all of them are real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from search_spaces import TrainingConfig
from tuner.workers import throughput_probe
from tuner.workers.throughput_probe import MeasurementError, ThroughputProbe, free_memory

MakeConfig = Callable[..., TrainingConfig]
Begun = Callable[[], set[psutil.Process]]

LONG = 300  # seconds, however busy the machine


@pytest.fixture
def begun() -> Iterator[Begun]:
    """Return the processes that a test has begun; when it is over, they are to be gone."""
    before = psutil.Process().children(recursive=True)

    def children() -> set[psutil.Process]:
        return {*psutil.Process().children(recursive=True)} - {*before}

    yield children
    assert children() == set()


class TestMeasuring:
    def test_processes_are_begun_once_and_measured_in_groups(
        self, begun: Begun, tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ThroughputProbe(tiny_config(), threads=2, seconds=LONG) as processes:
            processes.start(2)
            both = begun()
            assert len(both) == 2
            rates = [processes.images_per_s(shares) for shares in ([2], [1, 1], [1])]
            assert min(rates) > 0
            assert begun() == both
            # On a machine whose memory is used up.
            monkeypatch.setattr(throughput_probe, "free_memory", lambda: 10**6)
            with pytest.raises(MeasurementError, match=r"^2 more need \d+\.\d GB of memory, 0\.0 GB are free$"):
                processes.images_per_s([1, 1, 1, 1])
            assert begun() == both

    @pytest.mark.usefixtures("begun")
    def test_a_process_that_cannot_train_says_why(self, tiny_config: MakeConfig) -> None:
        with (
            ThroughputProbe(tiny_config(model_name="none"), threads=1, seconds=LONG) as processes,
            pytest.raises(MeasurementError, match="'none'"),
        ):
            processes.start(1)

    def test_a_process_that_is_killed_is_no_riddle(self, begun: Begun, tiny_config: MakeConfig) -> None:
        with ThroughputProbe(tiny_config(), threads=1, seconds=LONG) as processes:
            processes.start(1)
            begun().pop().kill()
            with pytest.raises(MeasurementError, match="killed by signal 9"):
                processes.images_per_s([1])

    @pytest.mark.usefixtures("begun")
    def test_it_takes_no_longer_than_it_may(self, tiny_config: MakeConfig) -> None:
        with (
            ThroughputProbe(tiny_config(), threads=1, seconds=0.1) as processes,
            pytest.raises(MeasurementError, match="time limit"),
        ):
            processes.start(1)

    @pytest.mark.usefixtures("begun")
    def test_an_interruption_ends_all(self, tiny_config: MakeConfig) -> None:
        def measure() -> None:
            with ThroughputProbe(tiny_config(), threads=1, seconds=LONG) as processes:
                processes.start(1)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measure()


@pytest.mark.parametrize(
    ("most", "used", "statistics", "left"),
    [
        ("3000", "2000", "anon 1500\nfile 500\n", 1500),  # what is cached of files makes way
        ("3000", "2900", "anon 2900\nfile 0\n", 100),
        ("max", "2000", "anon 1500\nfile 500\n", None),
        ("3000", "2000", "", None),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, most: str, used: str, statistics: str, left: int | None) -> None:
    for name, text in {"max": most, "current": used, "stat": statistics}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    free = free_memory(tmp_path)
    assert free == left if left is not None else free > 10**6


def test_where_there_is_no_container_the_machine_counts(tmp_path: Path) -> None:
    assert free_memory(tmp_path) > 10**6
