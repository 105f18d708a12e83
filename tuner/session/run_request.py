"""A request to run experiments and a search in a study, from which a session is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from search_spaces import (
    ConfigurationError,
    ExperimentFile,
    SearchSpace,
    Targets,
    TrainingConfig,
    check_fixed,
    default_search_space,
    load_model_definitions,
    load_search_space,
)
from search_spaces.diagnostics.names import is_search_trial_name
from search_spaces.errors import ProblemCollector
from search_spaces.experiments.file import StatedSize
from studies import (
    OutputFolder,
    TrialRecord,
    add_search_trials,
    enqueue_presets,
    refuse_foreign_folders,
    require_same_search,
    source_note,
    study_invariants,
    study_prior,
    study_space,
)
from tuner.data.metadata import read_metadata_bytes
from tuner.data.vocabulary import Vocabulary
from tuner.session.run_options import RunOptions, TrialFilter, check_device, default_parallelism
from tuner.session.study_setup import with_overrides


@dataclass(frozen=True)
class RunRequest:
    """A request to train experiments in a study, followed by a search.

    Attributes:
        options: The options of the run.
        experiments: The experiments, keyed by name, with the same dataset, splits, monitor, mode, model definitions and
            seed.
        targets: The targets that the experiments should meet.
        file_order: The names of all experiments in the experiment file, in the order of the file.
        may_generate: Whether to generate the default dataset if it is missing.
        space: The search space; None for the search space of the study, or the built-in one in a new study.
        file_messages: Warnings and notes about the experiment file, one line each.
        stated_sizes: The vocabulary sizes that the experiments state, which must agree with the dataset.
    """

    options: RunOptions
    experiments: Mapping[str, TrainingConfig] = field(default_factory=dict)
    targets: Targets = field(default_factory=Targets)
    file_order: Sequence[str] = ()
    may_generate: bool = False
    space: SearchSpace | None = None
    file_messages: tuple[str, ...] = ()
    stated_sizes: tuple[StatedSize, ...] = ()

    @classmethod
    def from_file(
        cls, file: ExperimentFile, names: Sequence[str] | None = None, options: RunOptions | None = None
    ) -> RunRequest:
        """Create a request for experiments of an experiment file, and load the search space file.

        Args:
            file: The validated experiment file.
            names: Names of the experiments; None for all experiments.
            options: The options; None for the defaults of `RunOptions`.

        Raises:
            ConfigurationError: A name is unknown, no experiment is selected, or the search space is invalid.
            FileNotFoundError, yaml.YAMLError: See `load_search_space`.
        """
        options = options or RunOptions()
        experiments = file.select(names)
        if not experiments:
            raise ConfigurationError(
                "experiments: found an empty list of names; list at least one experiment, or omit the list to train all"
            )
        space = None
        if options.space_file is not None:
            first = next(iter(experiments.values()))
            space = load_search_space(options.space_file, load_model_definitions(first.model_config_path))
        return cls(
            options,
            with_overrides(experiments, seed=options.seed, device=options.device),
            file.targets,
            file_order=list(file.experiments),
            may_generate=not file.names_dataset,
            space=space,
            file_messages=file.messages,
            stated_sizes=tuple(stated for stated in file.stated_sizes if stated.experiment in experiments),
        )

    def with_sizes(self, sizes: Mapping[str, int]) -> RunRequest:
        """Return the request with the vocabulary sizes of its dataset, keyed by `DATASET_FIELDS`, in all settings.

        Raises:
            ConfigurationError: An experiment states another size.
        """
        problems = [
            f"{stated.location}found {stated.value}; expected {sizes[stated.field]}, as in the dataset "
            f"{self.first.metadata_path}; use {sizes[stated.field]}, or remove this line"
            for stated in self.stated_sizes
            if stated.value != sizes[stated.field]
        ]
        if problems:
            raise ConfigurationError(problems)
        changes: Mapping[str, Any] = sizes
        base = tuple(replace(config, **changes) for config in self.options.search.base)
        return replace(
            self,
            options=replace(self.options, search=replace(self.options.search, base=base)),
            experiments={name: replace(config, **changes) for name, config in self.experiments.items()},
        )

    @property
    def first(self) -> TrainingConfig:
        """The first experiment or base configuration of the search; all others share its dataset, monitor and seed."""
        return next(iter((*self.experiments.values(), *self.options.search.base)))

    @property
    def messages(self) -> tuple[str, ...]:
        """Warnings and notes about the experiment file and the search space file, one line each."""
        warnings = () if self.space is None else self.space.warnings
        return (*self.file_messages, *(f"warning: {text}" for text in warnings))

    @cached_property
    def trial_filter(self) -> TrialFilter:
        """The trials to train: the experiments, and search trials if a search is requested."""
        return TrialFilter(frozenset(self.experiments), search=self.options.search.starts_search)

    def enqueue(
        self, study: optuna.Study, folder: OutputFolder, on_note: Callable[[str], object]
    ) -> dict[str, TrialRecord]:
        """Enqueue the experiments that the study does not have yet, and the search trials.

        The arguments, result and errors are those of `enqueue_presets` and `add_search_trials`.
        """
        search = self.options.search
        refuse_foreign_folders(study, self.occupied(folder))
        if search.starts_search:
            self.search_space(study)
            require_same_search(study, search)
        records = enqueue_presets(
            study,
            folder,
            self.experiments,
            self.space,
            file_order=self.file_order,
            starts_search=search.starts_search,
            on_note=on_note,
        )
        if search.starts_search:
            add_search_trials(study, folder, search, default_parallelism(self.options.workers))
        if search.warm_start:
            for source in study_prior(study).sources:
                on_note(source_note(source))
        return records

    def occupied(self, folder: OutputFolder) -> list[Path]:
        """Return the non-empty trial folders of the experiments and, if a search is requested, of search trials."""
        names = set(self.experiments)
        if self.options.search.starts_search:
            names |= {path.name for path in folder.path.glob("search_*") if is_search_trial_name(path.name)}
        return folder.occupied(sorted(names))

    def search_space(self, study: optuna.Study | None) -> SearchSpace:
        """Return the search space of the request; otherwise of the study, or the built-in one for a new study.

        Raises:
            ConfigurationError: The space does not allow the fixed settings of the search.
        """
        if study is None:
            definitions = load_model_definitions(self.first.model_config_path)
        else:
            definitions = study_invariants(study).definitions
        space = self.space or (default_search_space(definitions) if study is None else study_space(study))
        check_fixed(space, self.options.search.fixed, definitions)
        return space

    def check_dataset(self) -> None:
        """Check that the dataset's metadata can be read, or that the experiments fit the default dataset.

        Raises:
            ConfigurationError: An experiment states another vocabulary size than that of the missing default dataset.
            DataLoaderError: The dataset is missing, or its metadata cannot be read.
        """
        path = Path(self.first.metadata_path)
        if path.exists() or not self.may_generate:
            read_metadata_bytes(path)
        else:
            self.with_sizes(Vocabulary().sizes)

    def check(self) -> None:
        """Check the location of the study and the devices of the experiments; nothing is created.

        Raises:
            ConfigurationError: The location or a device is invalid; all problems are reported together.
        """
        problems = ProblemCollector()
        with problems.collect():
            self.options.check_location()
        for device in {config.device for config in (*self.experiments.values(), *self.options.search.base)}:
            with problems.collect():
                check_device(device)
        problems.raise_all()
