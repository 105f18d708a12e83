"""Selecting the best configurations of a study for retraining, without importing PyTorch."""

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
        records: The best completed trials with different settings, the best first.
    """

    folder: OutputFolder
    invariants: StudyInvariants
    targets: Targets
    records: tuple[TrialRecord, ...]

    @property
    def root(self) -> Path:
        """The folder of all repetitions; it is in the same folder as the study's output folder."""
        return self.folder.confirmation_path.parent

    @property
    def metadata_path(self) -> str:
        """The last known path of the study's dataset."""
        return str(self.invariants.dataset["metadata_path"])

    def seed_dir(self, seed: int) -> Path:
        """Return the output folder of all repetitions with one seed."""
        return self.root / f"seed_{seed}"

    def new_seeds(self, count: int) -> list[int]:
        """Return the next `count` seeds after the study's seed.

        A repeated command gets the same seeds, so it resumes the repetitions or uses their results.
        """
        return [(self.invariants.seed + step) % _SEEDS for step in range(1, count + 1)]


def find_candidates(
    study: optuna.Study, folder: OutputFolder, top: int, overrides: Overrides | None = None
) -> Candidates:
    """Select the best configurations of a study, and check that they can be compared on the test split.

    Args:
        study: The study.
        folder: The study's output folder.
        top: The maximum number of configurations, 2 or more.
        overrides: Settings that replace those of the configurations in all repetitions.

    Raises:
        ConfigurationError: Fewer than two configurations have completed, an override is incompatible with a
            configuration, or the study's dataset has no test split or has changed.
        DataLoaderError: The study's dataset is missing or damaged.
    """
    distinct: dict[str, TrialRecord] = {}
    for record in best_records(ended_records(study)):
        distinct.setdefault(config_digest(record.training_config), record)
    if len(distinct) < 2:
        raise ConfigurationError(
            f"output folder {folder.path}: completed configurations: found {len(distinct)}; expected at least "
            "2 to compare; run `khmer-tuner status` to see the progress, or `khmer-tuner search` to add trials"
        )
    best = tuple(_overridden(record, folder, overrides or {}) for record in list(distinct.values())[:top])
    candidates = Candidates(folder, study_invariants(study), study_targets(study), best)
    _check_test_split(candidates)
    _check_dataset(study, candidates)
    return candidates


def _overridden(record: TrialRecord, folder: OutputFolder, overrides: Overrides) -> TrialRecord:
    config = replace(record.training_config, model_config_path=str(folder.model_definitions_path))
    # Overrides are validated like the experiments of a file, which must not have the names of search trials.
    [changed] = override({"candidate": config}, overrides).values()
    return replace(record, config=asdict(replace(changed, experiment_name=config.experiment_name)))


def _check_test_split(candidates: Candidates) -> None:
    dataset = candidates.invariants.dataset
    rule = f"the best configurations are compared on the split {TEST_SPLIT!r}, so no trial may use it"
    used = {dataset["train_split"]: "trains on the test split", dataset["val_split"]: "validates on the test split"}
    if TEST_SPLIT in used:
        raise ConfigurationError(
            f"{candidates.metadata_path}: the study {used[TEST_SPLIT]}; {rule}; start a study with other splits"
        )
    try:
        open_pixel_cache(candidates.metadata_path, [TEST_SPLIT])
    except DataLoaderError as error:
        first, *others = error.problems
        raise ConfigurationError([f"{first}; {rule}", *others]) from error


def _check_dataset(study: optuna.Study, candidates: Candidates) -> None:
    """Raise if the dataset has changed, because the study selected its best configurations on the original one."""
    dataset = candidates.invariants.dataset
    cache = open_pixel_cache(candidates.metadata_path, [dataset["train_split"], dataset["val_split"]])
    current = current_invariants(candidates.invariants, cache.fingerprint, cache.image_folder)
    require_same_invariants(study, candidates.folder, current)
