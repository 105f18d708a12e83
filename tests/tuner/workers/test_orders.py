import pytest

from search_spaces import TrainingConfig
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.workers.orders import ProbeOrders, ProbeRate, ProbeWindow, WorkerOrders, from_line, read_orders, to_line

CONFIG = TrainingConfig(experiment_name="ខ្មែរ", learning_rate=1e-3, optimizer_betas=[0.8, 0.99])


@pytest.mark.parametrize("trial_filter", [TrialFilter(), TrialFilter(frozenset({"ខ្មែរ", "two"}), search=False)])
@pytest.mark.parametrize(("device", "deadline"), [(None, None), ("cpu", 0.0), ("cuda", 12.5)])
def test_orders_survive_the_round_trip(trial_filter, device, deadline):
    orders = WorkerOrders(
        output_dir="out\udcff",  # a byte that is not valid UTF-8
        study="study",
        storage="sqlite:///out/study.db",
        stop_token="token",
        device=device,
        metadata="data/metadata.yaml",
        experiments={"ខ្មែរ": CONFIG},
        trial_filter=trial_filter,
        stop_conditions=StopConditions(deadline, until_targets=True),
        threads=2,
    )
    line = to_line(orders)
    assert "\n" not in line
    assert read_orders(line.encode()) == orders


def test_probe_orders_are_distinguished_from_worker_orders():
    orders = ProbeOrders(CONFIG, threads=1)
    assert read_orders(to_line(orders).encode()) == orders


def test_probe_messages_survive_the_round_trip():
    for message in (ProbeWindow(2, 1.25, 3.5), ProbeRate(812.5, 0, 2**40)):
        assert from_line(type(message), to_line(message)) == message


def test_other_lines_are_rejected_as_orders():
    for line in (b"", b"{}", b"null", to_line(ProbeWindow(2, 1.0, 2.0)).encode()):
        with pytest.raises(ValueError, match=r"."):
            read_orders(line)
