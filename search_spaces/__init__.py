"""Configuration: training settings, experiments, model definitions, search spaces and exceptions."""

from search_spaces.diagnostics.names import name_problem
from search_spaces.errors import ConfigurationError, DataLoaderError, ExperimentFailedError, ModelCreationError
from search_spaces.experiments.file import (
    ExperimentFile,
    create_training_config,
    experiments_data,
    experiments_yaml,
    load_experiments,
    parse_experiments,
)
from search_spaces.experiments.overrides import load_overridden, override, parse_overrides
from search_spaces.experiments.schema import Targets
from search_spaces.model_definitions import (
    ModelDefinition,
    definition_changes,
    definitions_yaml,
    fit_loss,
    load_model_definitions,
)
from search_spaces.space.file import check_fixed, default_search_space, load_search_space, parse_search_space
from search_spaces.space.space import Choices, Domain, FloatRange, IntRange, Parameter, Scalar, SearchSpace
from search_spaces.training_config import TrainingConfig, config_digest, differing_fields
from search_spaces.yaml_reader.file import YamlDocument, load_yaml, resolve_config_path
