from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from tuner.training.uncompiled import uncompiled


def trained(kind: Any) -> list[torch.Tensor]:
    """Weights after ten steps, of which the last four are taken by an optimizer that went on from a saved state."""
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
def test_steps_are_those_of_the_optimizer_itself(kind: type[torch.optim.Optimizer]) -> None:
    for one, other in zip(trained(uncompiled(kind)), trained(kind), strict=True):
        assert torch.equal(one, other)


def test_a_training_step_does_not_load_the_compiler() -> None:
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
