import logging

import pytest
import torch

from search_spaces import ConfigurationError, TrainingConfig
from tuner.training.device import amp_dtype, peak_gpu_memory_mib, setup_training_environment

HAS_CUDA = torch.cuda.is_available()
HAS_BF16 = bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("bf16"))


def test_cpu_is_used_if_configured():
    assert setup_training_environment(TrainingConfig(device="cpu")) == (torch.device("cpu"), False)


def test_auto_selects_cuda_if_available():
    device, _ = setup_training_environment(TrainingConfig(device="auto"))
    assert device.type == ("cuda" if HAS_CUDA else "cpu")


def test_cpu_reports_no_gpu_memory():
    assert peak_gpu_memory_mib(torch.device("cpu")) == 0


@pytest.mark.skipif(not HAS_CUDA, reason="there is no CUDA device")
def test_peak_gpu_memory_is_measured_since_the_last_call():
    device = torch.device("cuda")
    peak_gpu_memory_mib(device)
    torch.zeros(64, 2**20, dtype=torch.uint8, device=device)
    assert peak_gpu_memory_mib(device) >= 64
    assert peak_gpu_memory_mib(device) < 64


@pytest.mark.parametrize(
    ("device", "remedy"),
    [
        pytest.param(
            "cuda", "use 'auto' or 'cpu'", marks=pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
        ),
        ("gpu", "use one of auto, cpu, cuda"),
    ],
)
def test_unavailable_device_is_rejected(device, remedy):
    with pytest.raises(ConfigurationError, match=f"found '{device}'.*{remedy}"):
        setup_training_environment(TrainingConfig(device=device))


def test_mixed_precision_is_used_only_with_native_bfloat16(caplog):
    with caplog.at_level(logging.WARNING, "tuner"):
        device, use_amp = setup_training_environment(TrainingConfig(device="cpu", mixed_precision=True))
    assert use_amp == HAS_BF16
    assert ("float32" in caplog.text) == (not HAS_BF16)
    assert amp_dtype(device) == torch.bfloat16
