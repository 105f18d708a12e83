"""Retraining of a study's trials without faults, to compare their epochs."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT


def retrain(folder: Path, part: int, parts: int) -> dict[str, str]:
    """Retrain part of a study's trials, and compare every epoch with the stored epoch bit for bit.

    Call this in a forked child process.

    Leaves out trials whose micro-batches were reduced after crashes, and trials that ended as crashed.

    Args:
        folder: Folder of the study.
        part: Index of the part, from 0.
        parts: Number of parts of about equal size.

    Returns:
        The difference of each retrained trial as text, keyed by trial name; the text is empty if there is none.
    """
    from studies import load_study, own_records

    logging.getLogger("tuner").addHandler(logging.NullHandler())  # discards warnings of high learning rates
    os.chdir(folder)
    study, output = load_study(OUTPUT)
    records = [record for record in own_records(study) if is_reproducible(record)][part::parts]
    with tempfile.TemporaryDirectory(dir=folder.parent) as work_dir:
        return {record.experiment_name: _differences(record, output, Path(work_dir)) for record in records}


def is_reproducible(record: Any) -> bool:
    """Return whether retraining a trial must give the same bits."""
    from studies import WhyEnded

    outcome = record.outcome
    return outcome is not None and outcome.micro_batch_size is None and outcome.why_ended is not WhyEnded.CRASHED


def _differences(record: Any, output: Any, work_dir: Path) -> str:
    from studies import WhyEnded
    from tuner.data.batches import TrainingData
    from tuner.data.pixel_cache import open_pixel_cache
    from tuner.training.device import setup_training_environment
    from tuner.training.history import read_metrics
    from tuner.training.loop import train

    outcome = record.outcome
    config = replace(
        record.training_config,
        experiment_name=record.experiment_name,
        model_config_path=str(output.model_definitions_path),
        use_tensorboard=False,
        device="cpu",
    )
    device, _ = setup_training_environment(config)
    cache = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split])
    is_pruned = outcome.why_ended is WhyEnded.PRUNED
    result = train(
        config,
        TrainingData.of(config, cache, device),
        work_dir / record.experiment_name,
        should_prune=lambda epoch: is_pruned and epoch == outcome.total_epochs,
    )
    known, found = (
        _without_times(epochs) for epochs in (read_metrics(output.trial_dir(config.experiment_name)), result.history)
    )
    if (known, outcome.why_ended) == (found, result.why_ended):
        return ""
    epoch = next((number for number, (one, other) in enumerate(zip(known, found, strict=False), 1) if one != other), 0)
    return (
        f"{config.experiment_name} differs when retrained: found {len(found)} epochs ({result.why_ended}); "
        f"expected {len(known)} ({outcome.why_ended}); first differing epoch: {epoch or 'none'}"
    )


def _without_times(epochs: Sequence[Any]) -> list[str]:
    """Format epochs as texts that are equal if and only if the epochs are, without their times, memory and CPU load."""
    return [
        repr(replace(epoch, epoch_seconds=0.0, memory_mb=0.0, cpu_percent=0.0, gpu_memory_mb=0.0)) for epoch in epochs
    ]
