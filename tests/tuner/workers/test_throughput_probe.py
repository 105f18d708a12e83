"""The throughput of parallel training processes, measured with real processes."""

import psutil
import pytest

from tuner.workers import throughput_probe
from tuner.workers.throughput_probe import MeasurementError, ThroughputProbe, free_memory

LONG_S = 300  # enough on a busy machine, too


@pytest.fixture
def child_processes():
    """Return a function that lists the processes started by a test; at its end, all must have exited."""
    before = psutil.Process().children(recursive=True)

    def children():
        return {*psutil.Process().children(recursive=True)} - {*before}

    yield children
    assert children() == set()


class TestMeasuring:
    def test_processes_are_reused_for_all_measurements(self, child_processes, tiny_config, monkeypatch):
        with ThroughputProbe(tiny_config(), threads_for=lambda count: max(1, 2 // count), seconds=LONG_S) as processes:
            processes.start(2)
            both = child_processes()
            assert len(both) == 2
            rates = [processes.images_per_s(count) for count in (1, 2, 1)]
            assert min(rates) > 0
            assert child_processes() == both
            # On a machine without free memory.
            monkeypatch.setattr(throughput_probe, "free_memory", lambda: 10**6)
            with pytest.raises(
                MeasurementError, match=r"^2 more workers need \d+\.\d GB of memory; only 0\.0 GB is free$"
            ):
                processes.images_per_s(4)
            assert child_processes() == both

    @pytest.mark.usefixtures("child_processes")
    def test_error_of_a_process_is_reported(self, tiny_config):
        with (
            ThroughputProbe(tiny_config(model_name="none"), threads_for=lambda count: 1, seconds=LONG_S) as processes,
            pytest.raises(MeasurementError, match="'none'"),
        ):
            processes.start(1)

    def test_killed_process_is_reported(self, child_processes, tiny_config):
        with ThroughputProbe(tiny_config(), threads_for=lambda count: 1, seconds=LONG_S) as processes:
            processes.start(1)
            child_processes().pop().kill()
            with pytest.raises(MeasurementError, match=r"measurement process was killed by SIGKILL \(signal 9\)"):
                processes.images_per_s(1)

    @pytest.mark.usefixtures("child_processes")
    def test_time_limit_ends_the_measurement(self, tiny_config):
        with (
            ThroughputProbe(tiny_config(), threads_for=lambda count: 1, seconds=0.1) as processes,
            pytest.raises(MeasurementError, match="time limit"),
        ):
            processes.start(1)

    @pytest.mark.usefixtures("child_processes")
    def test_interruption_stops_all_processes(self, tiny_config):
        def measure():
            with ThroughputProbe(tiny_config(), threads_for=lambda count: 1, seconds=LONG_S) as processes:
                processes.start(1)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measure()


@pytest.mark.parametrize(
    ("most", "used", "statistics", "expected"),
    [
        ("3000", "2000", "anon 1500\nfile 500\n", 1500),  # cached files count as free
        ("3000", "2900", "anon 2900\nfile 0\n", 100),
        ("max", "2000", "anon 1500\nfile 500\n", None),
        ("3000", "2000", "", None),
    ],
)
def test_container_limit_bounds_the_free_memory(tmp_path, most, used, statistics, expected):
    for name, text in {"max": most, "current": used, "stat": statistics}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    free = free_memory(tmp_path)
    assert free == expected if expected is not None else free > 10**6


def test_machine_memory_is_used_without_a_container(tmp_path):
    assert free_memory(tmp_path) > 10**6
