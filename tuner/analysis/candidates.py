"""The best configurations of a study, to be trained again; found without importing PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from search_spaces import ConfigurationError, DataLoaderError, Targets, config_digest, override
from search_spaces.experiments.overrides import Overrides
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialRecord,
    best_records,
    ended_records,
    require_same_invariants,
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


def find_candidates(
    study: optuna.Study, folder: OutputFolder, top: int, overrides: Overrides | None = None
) -> Candidates:
    """Return the best configurations of a study, and check that they can be tested.

    Args:
        study: The study.
        folder: Its folder.
        top: The number of configurations at most, 2 or more.
        overrides: Settings that their repetitions have instead of their own.

    Raises:
        ConfigurationError: Fewer than two configurations have completed, an override does not go together with one of
            them, or the study's dataset has no split for testing or has changed.
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
    best = tuple(_overridden(record, folder, overrides or {}) for record in list(differing.values())[:top])
    candidates = Candidates(folder, study_invariants(study), study_targets(study), best)
    _check_test_split(candidates)
    _check_dataset(study, candidates)
    return candidates


def _overridden(record: TrialRecord, folder: OutputFolder, overrides: Overrides) -> TrialRecord:
    config = replace(record.training_config, model_config_path=str(folder.model_definitions_path))
    # A file has no experiment with the name of a search trial.
    [changed] = override({"candidate": config}, overrides).values()
    return replace(record, config=asdict(replace(changed, experiment_name=config.experiment_name)))


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
    now = current_invariants(candidates.invariants, cache.fingerprint, cache.image_folder)
    require_same_invariants(study, candidates.folder, now)
