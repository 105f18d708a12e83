import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from search_spaces import ConfigurationError, TrainingConfig
from tuner.training.optimizers import create_optimizer, create_scheduler, step_scheduler, uncompiled


def make(**fields):
    config = TrainingConfig(**fields)
    optimizer = create_optimizer(nn.Linear(2, 1), config)
    return optimizer, create_scheduler(optimizer, config)


def rate(optimizer):
    return float(optimizer.param_groups[0]["lr"])


def rates(optimizer, scheduler, monitored):
    """Return the learning rate of each epoch: the initial rate, then the rate after each monitored value."""
    found = [rate(optimizer)]
    for value in monitored:
        optimizer.step()
        step_scheduler(scheduler, value)
        found.append(rate(optimizer))
    return found


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_configuration_selects_the_optimizer(name, kind):
    optimizer, _ = make(optimizer_type=name, optimizer_betas=[0.8, 0.95], weight_decay=0.02, learning_rate=0.004)
    assert isinstance(optimizer, kind)
    assert type(optimizer).__name__ == kind.__name__  # AdamW is an Adam too
    group = optimizer.param_groups[0]
    assert (tuple(group["betas"]), group["weight_decay"], group["lr"]) == ((0.8, 0.95), 0.02, 0.004)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_weight_decay_is_in_the_gradient_for_adam_and_on_the_weights_for_adamw(name):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    config = TrainingConfig(optimizer_type=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = create_optimizer(model, config)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    # Adam's first step has the size of the rate for any gradient; AdamW shrinks the weight by rate x decay.
    assert model.weight.item() == pytest.approx(2 - 0.1 if name == "adam" else 2 * (1 - 0.1 * 0.5), rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_weights_before_a_normalisation_do_not_decay(name):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = create_optimizer(model, TrainingConfig(optimizer_type=name, learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    unchanged = [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    # Convolution, its bias, scale and offset (which is zero) of the normalisation, convolution, its bias.
    assert unchanged == [True, False, False, True, False, False]


def test_unknown_optimizer_and_scheduler_are_rejected():
    with pytest.raises(ConfigurationError, match="optimizer_type: found 'sgd'; use one of adam, adamw"):
        make(optimizer_type="sgd")
    with pytest.raises(ConfigurationError, match="scheduler_type: found 'linear'; use one of cosine, plateau, steplr"):
        make(scheduler_type="linear")


COSINE = {"scheduler_type": "cosine", "num_epochs": 6, "min_lr": 0.02}
EIGHTH = 0.8535533905932737  # (1 + cos(pi/4)) / 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"scheduler_type": "steplr", "step_size": 2, "gamma": 0.1, "min_lr": 5e-4},
            [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 5e-4, 5e-4, 5e-4],
        ),
        (
            COSINE | {"warmup_epochs": 2},
            [0.05, 0.1, *(0.02 + 0.08 * share for share in (1, EIGHTH, 0.5, 1 - EIGHTH, 0, 0))],
        ),
        (COSINE | {"num_epochs": 4, "min_lr": 0.0}, [0.1, 0.1 * EIGHTH, 0.05]),
        (COSINE | {"warmup_epochs": 10, "min_lr": 0.03}, [0.03]),
    ],
    ids=["steps down to min_lr", "warm-up, then down to min_lr", "without warm-up", "min_lr in the warm-up"],
)
def test_schedule_has_the_documented_rates(settings, expected):
    optimizer, scheduler = make(learning_rate=0.1, **settings)
    assert rates(optimizer, scheduler, [0.0] * (len(expected) - 1)) == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_plateau_reduces_the_rate_after_patience_epochs_without_improvement(mode, sign):
    optimizer, scheduler = make(
        learning_rate=0.1,
        scheduler_type="plateau",
        patience=1,
        factor=0.1,
        min_lr=5e-4,
        early_stopping_mode=mode,
        early_stopping_min_delta=0.05,
    )
    monitored = [0.5, 0.6, 0.62, 0.61, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    # 0.62 and 0.61 do not improve by more than min_delta; with a patience of 1, the second reduces the rate.
    expected = [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 5e-4, 5e-4, 5e-4]
    assert rates(optimizer, scheduler, [sign * value for value in monitored]) == pytest.approx(expected)


@pytest.mark.parametrize("copy_of", [lambda pair: pickle.loads(pickle.dumps(pair)), copy.deepcopy])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_copied_model_and_optimizer_train_like_the_originals(name, copy_of):
    def step(model, optimizer, scheduler):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.arange(4.0)).square().sum().backward()
            optimizer.step()
            scheduler.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    model, config = nn.Linear(4, 3), TrainingConfig(optimizer_type=name, learning_rate=0.1)
    optimizer = create_optimizer(model, config)
    step(model, optimizer, create_scheduler(optimizer, config))
    other, other_optimizer = copy_of((model, optimizer))
    assert type(other_optimizer) is type(optimizer)
    ours = step(model, optimizer, create_scheduler(optimizer, config))
    assert torch.equal(step(other, other_optimizer, create_scheduler(other_optimizer, config)), ours)


def trained(kind):
    """Return the weights after ten steps; the last four use an optimizer restored from a saved state."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = kind(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    for step in range(10):
        if step == 6:
            state = optimizer.state_dict()
            optimizer = kind(model.parameters(), lr=0.5, fused=True)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_uncompiled_optimizer_steps_like_the_original(kind):
    for one, other in zip(trained(uncompiled(kind)), trained(kind), strict=True):
        assert torch.equal(one, other)


def test_training_step_does_not_import_the_compiler():
    program = (
        "import sys, torch\n"
        "from search_spaces import TrainingConfig\n"
        "from tuner.training.optimizers import create_optimizer\n"
        "model = torch.nn.Linear(2, 1)\n"
        "optimizer = create_optimizer(model, TrainingConfig())\n"
        "model(torch.ones(1, 2)).sum().backward()\n"
        "optimizer.step(); optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
