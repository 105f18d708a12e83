"""The best configurations of a study, to be trained again; found without importing PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna

from search_spaces import ConfigurationError, DataLoaderError, Targets, config_digest
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialRecord,
    best_records,
    ended_records,
    refuse_other_invariants,
    study_invariants,
    study_targets,
)
from tuner.data.pixel_cache import open_pixel_cache
from tuner.session.study_setup import current_invariants

TEST_SPLIT = "test"

_SEEDS = 2**32


@dataclass(frozen=True)
class Candidates:
    """The best configurations of a study.

    Attributes:
        folder: The study's output folder.
        invariants: The fixed settings of the study.
        targets: The study's targets.
        records: The best completed trials that differ in what they train, the best first.
    """

    folder: OutputFolder
    invariants: StudyInvariants
    targets: Targets
    records: tuple[TrialRecord, ...]

    @property
    def root(self) -> Path:
        """The folder of their repetitions, beside the study's."""
        return self.folder.confirmation_path.parent

    @property
    def metadata_path(self) -> str:
        """The dataset, where the study has found it last."""
        return str(self.invariants.dataset["metadata_path"])

    def seed_dir(self, seed: int) -> Path:
        """Return the output folder of the repetitions on a seed."""
        return self.root / f"seed_{seed}"

    def new_seeds(self, count: int) -> list[int]:
        """Return seeds that are not the study's own: the next ones, so that repeating the command finds its work."""
        return [(self.invariants.seed + step) % _SEEDS for step in range(1, count + 1)]


def find_candidates(study: optuna.Study, folder: OutputFolder, top: int) -> Candidates:
    """Return the best configurations of a study, at most `top` (2 or more), and check that they can be tested.

    Raises:
        ConfigurationError: Fewer than two configurations have completed, or the study's dataset has no split for
            testing or has changed.
        DataLoaderError: The study's dataset is missing or damaged.
    """
    differing: dict[str, TrialRecord] = {}
    for record in best_records(ended_records(study)):
        differing.setdefault(config_digest(record.training_config), record)
    if len(differing) < 2:
        raise ConfigurationError(
            f"output folder {folder.path}: {len(differing) or 'none'} of its configurations has completed, and two are "
            "needed to be compared; `khmer-tuner status` shows how far they are, `khmer-tuner search` adds some"
        )
    candidates = Candidates(folder, study_invariants(study), study_targets(study), tuple(differing.values())[:top])
    _check_test_split(candidates)
    _check_dataset(study, candidates)
    return candidates


def _check_test_split(candidates: Candidates) -> None:
    dataset = candidates.invariants.dataset
    needed = f"the best configurations are compared on the split {TEST_SPLIT!r}, which none of them has seen"
    used = {dataset["train_split"]: "trains on it", dataset["val_split"]: "chooses by it"}
    if TEST_SPLIT in used:
        raise ConfigurationError(
            f"{candidates.metadata_path}: {needed}; this study {used[TEST_SPLIT]}: train on other splits"
        )
    try:
        open_pixel_cache(candidates.metadata_path, [TEST_SPLIT])
    except DataLoaderError as error:
        first, *others = error.problems
        raise ConfigurationError([f"{first}; {needed}", *others]) from error


def _check_dataset(study: optuna.Study, candidates: Candidates) -> None:
    """Refuse a dataset that has changed: what the study chose on another one is not what would be trained again."""
    dataset = candidates.invariants.dataset
    cache = open_pixel_cache(candidates.metadata_path, [dataset["train_split"], dataset["val_split"]])
    refuse_other_invariants(study, candidates.folder, current_invariants(candidates.invariants, cache.fingerprint))
