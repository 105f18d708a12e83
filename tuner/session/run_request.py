"""The request of a run, loaded and ready to be opened as a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

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
from search_spaces.diagnostics.problem_collector import ProblemCollector
from studies import (
    OutputFolder,
    TrialRecord,
    add_search_trials,
    enqueue_presets,
    refuse_foreign_folders,
    require_same_search,
    study_invariants,
    study_space,
)
from tuner.data.metadata import read_metadata_bytes
from tuner.session.run_options import RunOptions, TrialFilter, check_device
from tuner.session.study_setup import with_overrides


@dataclass(frozen=True)
class RunRequest:
    """Experiments to train in a study, and the search after them.

    Attributes:
        options: Where the study is and how it is trained.
        experiments: What to train, by name; all agree in dataset, splits, monitor, mode, model definitions and seed.
        targets: What the experiments should reach.
        file_order: All names of the file that they come from.
        may_generate: Whether the default dataset is generated if it is missing.
        space: What a search may vary; None for that of the study, or the packaged one if the study has none yet.
        file_messages: Warnings and notes about the file of the experiments, a line each.
    """

    options: RunOptions
    experiments: Mapping[str, TrainingConfig] = field(default_factory=dict)
    targets: Targets = field(default_factory=Targets)
    file_order: Sequence[str] = ()
    may_generate: bool = False
    space: SearchSpace | None = None
    file_messages: tuple[str, ...] = ()

    @classmethod
    def from_file(
        cls, file: ExperimentFile, names: Sequence[str] | None = None, options: RunOptions | None = None
    ) -> RunRequest:
        """Take experiments of a file and load the search space.

        Args:
            file: The checked file.
            names: Which experiments; None for all.
            options: How they are trained; by default as `RunOptions` says.

        Raises:
            ConfigurationError: A name is unknown, no experiment is named, or the search space is wrong.
            FileNotFoundError, yaml.YAMLError: As `load_search_space`.
        """
        options = options or RunOptions()
        experiments = file.select(names)
        if not experiments:
            raise ConfigurationError("experiments: none chosen; name one or more, or leave the names out for all")
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
        )

    @property
    def first(self) -> TrainingConfig:
        """The first experiment, or the first of the search's base, which stands for all where they agree."""
        return next(iter((*self.experiments.values(), *self.options.search.base)))

    @property
    def messages(self) -> tuple[str, ...]:
        """Warnings and notes about the files, a line each."""
        warnings = () if self.space is None else self.space.warnings
        return (*self.file_messages, *(f"warning: {text}" for text in warnings))

    @cached_property
    def trial_filter(self) -> TrialFilter:
        """The trials that are trained: the experiments, and search trials if the search has some."""
        return TrialFilter(frozenset(self.experiments), search=self.options.search.starts_search)

    def enqueue(
        self, study: optuna.Study, folder: OutputFolder, on_note: Callable[[str], object]
    ) -> dict[str, TrialRecord]:
        """Enqueue the experiments that a study does not have yet, and the search trials.

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
            add_search_trials(study, folder, search)
        return records

    def occupied(self, folder: OutputFolder) -> list[Path]:
        """Return the non-empty folders of its trials; if it starts a search, those of all search trials."""
        names = set(self.experiments)
        if self.options.search.starts_search:
            names |= {path.name for path in folder.path.glob("search_*") if is_search_trial_name(path.name)}
        return folder.occupied(sorted(names))

    def search_space(self, study: optuna.Study | None) -> SearchSpace:
        """Return the search space of the request, else of the study, else the packaged one.

        Raises:
            ConfigurationError: The space cannot take the settings that the search fixes.
        """
        if study is None:
            definitions = load_model_definitions(self.first.model_config_path)
        else:
            definitions = study_invariants(study).definitions
        space = self.space or (default_search_space(definitions) if study is None else study_space(study))
        check_fixed(space, self.options.search.fixed, definitions)
        return space

    def check_dataset(self) -> None:
        """Refuse a missing dataset, unless it is the default one, which is generated.

        Raises:
            DataLoaderError: The dataset is missing, or its metadata cannot be read.
        """
        path = Path(self.first.metadata_path)
        if path.exists() or not self.may_generate:
            read_metadata_bytes(path)

    def check(self) -> None:
        """Check where the study is, and the devices of the experiments; nothing is created.

        Raises:
            ConfigurationError: Something cannot be used; all problems are reported together.
        """
        problems = ProblemCollector()
        with problems.collect():
            self.options.check_location()
        for device in {config.device for config in (*self.experiments.values(), *self.options.search.base)}:
            with problems.collect():
                check_device(device)
        problems.raise_all()
