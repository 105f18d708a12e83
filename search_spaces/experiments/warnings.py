"""What is legal in an experiment but senseless: settings that can never act, and values that are hardly meant."""

from __future__ import annotations

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.diagnostics.validation import Section
from search_spaces.experiments.schema import Experiment, Targets
from search_spaces.yaml_reader.nodes import KeyPath

# Keys that only one type of scheduler or loss looks at.
ONLY_FOR = {
    ("scheduler", "warmup_epochs"): ("scheduler", "type", "cosine"),
    ("scheduler", "step_size"): ("scheduler", "type", "steplr"),
    ("scheduler", "gamma"): ("scheduler", "type", "steplr"),
    ("scheduler", "patience"): ("scheduler", "type", "plateau"),
    ("scheduler", "factor"): ("scheduler", "type", "plateau"),
    ("training", "focal_alpha"): ("training", "loss_type", "focal"),
    ("training", "focal_gamma"): ("training", "loss_type", "focal"),
    ("training", "label_smoothing"): ("training", "loss_type", "crossentropy"),
}
_HIGH_LEARNING_RATE = 0.1


def usual_mode(monitor: str) -> str:
    """Return which way a metric is better: ``max`` or ``min``."""
    return "min" if monitor.endswith("loss") else "max"


class ExperimentWarnings:
    """Warns of senseless settings of one experiment; a rule is left out where a key of it is wrong by itself."""

    def __init__(self, experiment: Experiment, path: KeyPath, diagnostics: Diagnostics) -> None:
        """Prepare to look at one experiment.

        Args:
            experiment: The experiment, with defaults in place of wrong values.
            path: The keys that lead to it.
            diagnostics: Where warnings go.
        """
        self._experiment = experiment
        self._path = path
        self._diagnostics = diagnostics

    def run(self) -> None:
        """Apply all rules."""
        self._rate_is_usual()
        self._overrides_are_meant()
        self._keys_have_an_effect()
        if self._sound("training.num_epochs"):
            self._early_stopping_can_act()
            self._schedule_can_act()
            self._snapshots_are_taken()
        self._rate_can_change()
        self._mode_suits_the_monitor()

    def _rate_is_usual(self) -> None:
        key, rate = learning_rate_of(self._experiment)
        if self._sound(key) and rate > _HIGH_LEARNING_RATE:
            self._warn(key, f"{rate} is far above usual rates (0.0001 to 0.01); training may not learn or diverge")

    def _overrides_are_meant(self) -> None:
        training, optimizer = self._experiment.training, self._experiment.optimizer
        for key in ("learning_rate", "weight_decay"):
            if key not in training.model_fields_set & optimizer.model_fields_set:
                continue
            first, wins = getattr(training, key), getattr(optimizer, key)
            if first != wins:
                self._warn(f"training.{key}", f"{first} can never act: optimizer.{key}, {wins}, wins over it")

    def _keys_have_an_effect(self) -> None:
        for (section, key), (owner, kind, needed) in ONLY_FOR.items():
            actual = getattr(getattr(self._experiment, owner), kind)
            values: Section = getattr(self._experiment, section)
            is_given = key in values.model_fields_set and (key != "label_smoothing" or getattr(values, key) > 0)
            if is_given and actual != needed and self._sound(f"{owner}.{kind}"):
                self._warn(f"{section}.{key}", f"can never act with {owner}.{kind} {actual}, only with {needed}")

    def _early_stopping_can_act(self) -> None:
        epochs, stopping = self._experiment.training.num_epochs, self._experiment.early_stopping
        # The first epoch always counts as an improvement.
        if "patience" in stopping.model_fields_set and stopping.patience + 1 >= epochs:
            self._warn("early_stopping.patience", f"{stopping.patience} of {epochs} epochs can never act: too long")
        if stopping.min_delta >= 1 and stopping.monitor.endswith("accuracy"):
            text = f"{stopping.min_delta} is more than an accuracy can ever gain: training always ends after"
            self._warn("early_stopping.min_delta", f"{text} {min(epochs, stopping.patience + 1)} epochs")

    def _schedule_can_act(self) -> None:
        epochs, scheduler = self._experiment.training.num_epochs, self._experiment.scheduler
        if scheduler.type == "cosine" and scheduler.warmup_epochs >= epochs:
            text = f"{scheduler.warmup_epochs} of {epochs} epochs never ends, so the cosine can never act"
            self._warn("scheduler.warmup_epochs", text)
        if scheduler.type == "steplr" and scheduler.step_size >= epochs and self._is_chosen("step_size", "gamma"):
            text = f"{scheduler.step_size} of {epochs} epochs: the rate never drops, so gamma can never act"
            self._warn("scheduler.step_size", text)
        if scheduler.type == "plateau":
            self._plateau_can_act(epochs)

    def _plateau_can_act(self, epochs: int) -> None:
        patience, stopping = self._experiment.scheduler.patience, self._experiment.early_stopping
        if not self._sound("scheduler.patience", "early_stopping.patience"):
            return
        # It counts from the second epoch on, and drops the rate after one more than its patience, for the next epoch.
        if patience + 2 >= epochs:
            text = f"{patience} of {epochs} epochs: the rate never drops, so factor can never act"
            self._warn("scheduler.patience", text)
        elif patience + 1 >= stopping.patience:
            text = f"{patience} can never act: early_stopping.patience, {stopping.patience}, ends the training first"
            self._warn("scheduler.patience", text)

    def _rate_can_change(self) -> None:
        scheduler = self._experiment.scheduler
        key, rate = learning_rate_of(self._experiment)
        if not self._sound("scheduler.min_lr", "scheduler.type", key):
            return
        if scheduler.min_lr == rate:
            text = f"{scheduler.min_lr} is the initial rate ({key}), so the schedule can never act"
            self._warn("scheduler.min_lr", text)
        elif scheduler.type == "steplr" and scheduler.gamma == 1:
            self._warn("scheduler.gamma", "1 never changes the rate, so the schedule can never act")

    def _snapshots_are_taken(self) -> None:
        training = self._experiment.training
        every = training.save_every_n_epochs
        if "save_every_n_epochs" in training.model_fields_set and every > training.num_epochs:
            text = f"{every} of {training.num_epochs} epochs can never act: no numbered snapshot is written"
            self._warn("training.save_every_n_epochs", text)

    def _mode_suits_the_monitor(self) -> None:
        stopping = self._experiment.early_stopping
        usual = usual_mode(stopping.monitor)
        if self._sound("early_stopping.monitor", "early_stopping.mode") and stopping.mode != usual:
            better = "lower" if usual == "min" else "higher"
            text = f"{stopping.mode}, but {better} {stopping.monitor} is better, and the worst epoch would be kept"
            self._warn("early_stopping.mode", f"{text}; {usual}?")

    def _is_chosen(self, *keys: str) -> bool:
        return bool(self._experiment.scheduler.model_fields_set & {"type", *keys})

    def _sound(self, *keys: str) -> bool:
        return all(self._diagnostics.is_sound((*self._path, *key.split("."))) for key in keys)

    def _warn(self, key: str, text: str) -> None:
        self._diagnostics.warning((*self._path, *key.split(".")), text)


def learning_rate_of(experiment: Experiment) -> tuple[str, float]:
    """Return the key that decides on an experiment's learning rate, and the rate."""
    if "learning_rate" in experiment.optimizer.model_fields_set:
        return "optimizer.learning_rate", experiment.optimizer.learning_rate
    return "training.learning_rate", experiment.training.learning_rate


def warn_of_targets(targets: Targets, diagnostics: Diagnostics) -> None:
    """Warn of targets that can never be met."""
    accuracies = (targets.character_accuracy, targets.sequence_accuracy)
    if targets.convergence_epochs is not None and accuracies == (None, None):
        text = "can never be met without character_accuracy or sequence_accuracy, which say what to converge to"
        diagnostics.warning(("targets", "convergence_epochs"), text)
