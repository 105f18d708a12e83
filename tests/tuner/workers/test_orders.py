import pytest

from search_spaces import TrainingConfig
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.workers.orders import WorkerOrders, read_orders, to_line

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


def test_other_lines_are_rejected_as_orders():
    for line in (b"", b"{}", b"null"):
        with pytest.raises(ValueError, match=r"."):
            read_orders(line)
