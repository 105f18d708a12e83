"""The device and the numerical precision of a training run."""

from __future__ import annotations

import logging

import torch

from search_spaces import ConfigurationError, TrainingConfig

log = logging.getLogger(__name__)


def setup_training_environment(config: TrainingConfig) -> tuple[torch.device, bool]:
    """Select the device, and whether to use mixed precision.

    ``auto`` selects CUDA if it is available. Mixed precision needs CUDA or a CPU with native bfloat16; otherwise the
    training uses single precision and logs a warning.

    Raises:
        ConfigurationError: The device is unknown, or it is ``cuda`` and PyTorch finds no CUDA device.

    Example::

        from tuner import TrainingConfig, setup_training_environment

        device, use_amp = setup_training_environment(TrainingConfig(device="cpu"))
        print(f"training on {device}, mixed precision: {use_amp}")
    """
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device: found {config.device!r}; use one of auto, cpu, cuda")
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigurationError(
            "device: found 'cuda'; PyTorch finds no CUDA device on this machine; use 'auto' or 'cpu'"
        )
    device = torch.device("cuda" if config.device != "cpu" and has_cuda else "cpu")
    use_amp = config.mixed_precision and _supports_half_precision(device)
    if config.mixed_precision and not use_amp:
        log.warning("mixed_precision: found true, but this CPU has no native bfloat16; training uses float32")
    return device, use_amp


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return the half-precision type of a device: bfloat16, or float16 on GPUs without native bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def peak_gpu_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB of this process's tensors on a GPU since the last call; 0 for a CPU."""
    if device.type != "cuda":
        return 0.0
    peak_bytes = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak_bytes / 2**20


def _supports_half_precision(device: torch.device) -> bool:
    if device.type == "cuda":
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
