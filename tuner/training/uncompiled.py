"""Optimizers that do not load PyTorch's compiler."""

from __future__ import annotations

import inspect
from typing import Any

import torch

_GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def uncompiled(kind: type[torch.optim.Optimizer]) -> type[Any]:
    """Return an optimizer class without what keeps `torch.compile` out of it.

    PyTorch wraps these methods so that its compiler leaves them alone, and the wrappers load the compiler to say so:
    0.8 s and 60 MB for every process that trains, though nothing here is ever compiled.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _GUARDED}
    # The wrapper of `step` also switches gradients off.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)
