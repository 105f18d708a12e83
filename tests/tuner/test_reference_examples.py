"""The two integration examples of the API reference, unchanged except for the import line and trailing blanks."""

import re
import subprocess
import sys

import pytest

from tuner import HyperparameterTuner
from tuner.data.generation.dataset import generate_dataset

CUSTOM_EXPERIMENT = '''\
#!/usr/bin/env python3
"""Custom hyperparameter tuning script."""

import yaml
from tuner import HyperparameterTuner

def main():
    # Create custom configuration
    custom_config = {
        'experiments': {
            'my_experiment': {
                'experiment_name': 'my_experiment',
                'model': {'name': 'medium'},
                'training': {
                    'batch_size': 48,
                    'learning_rate': 0.0015,
                    'num_epochs': 35
                },
                'optimizer': {'type': 'adamw'},
                'scheduler': {'type': 'cosine', 'warmup_epochs': 2}
            }
        },
        'targets': {
            'character_accuracy': 0.85,
            'sequence_accuracy': 0.70
        }
    }

    # Save configuration
    with open('custom_config.yaml', 'w') as f:
        yaml.dump(custom_config, f)

    # Run experiments
    tuner = HyperparameterTuner('custom_config.yaml')
    results = tuner.run_experiments(['my_experiment'])

    print(f"Experiment completed: {results['best_result']['best_val_char_accuracy']:.4f}")

if __name__ == "__main__":
    main()
'''

RESULTS_ANALYSIS = """\
import json
from pathlib import Path

def load_latest_results():
    \"\"\"Load the most recent hyperparameter tuning results.\"\"\"
    results_dir = Path('.')
    result_files = list(results_dir.glob('hyperparameter_tuning_results_*.json'))

    if not result_files:
        return None

    latest_file = max(result_files, key=lambda f: f.stat().st_mtime)

    with open(latest_file) as f:
        return json.load(f)

def get_best_hyperparameters():
    \"\"\"Get hyperparameters from the best performing experiment.\"\"\"
    results = load_latest_results()
    if results and results['best_result']:
        return results['best_result']['hyperparameters']
    return None
"""


@pytest.fixture
def folder_with_data(in_tmp):
    """A working directory that contains only a small dataset at the default path."""
    generate_dataset("generated_data", samples=20, test_samples=1)
    return in_tmp


def run_custom_experiment(folder):
    script = folder / "custom_experiment.py"
    script.write_text(CUSTOM_EXPERIMENT, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = re.fullmatch(r"Experiment completed: (\d\.\d{4})\n", done.stdout)
    assert printed
    return float(printed[1])


def analysis_functions():
    names = {}
    exec(RESULTS_ANALYSIS, names)
    return names


def test_examples_run_as_written(folder_with_data):
    assert analysis_functions()["load_latest_results"]() is None
    accuracy = run_custom_experiment(folder_with_data)
    results = analysis_functions()["load_latest_results"]()
    assert results["best_result"]["best_val_char_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert analysis_functions()["get_best_hyperparameters"]() == {
        "model_name": "medium",
        "batch_size": 48,
        "learning_rate": 0.0015,
        "weight_decay": 0.0001,
        "loss_type": "crossentropy",
        "scheduler_type": "cosine",
        "optimizer_type": "adamw",
    }


@pytest.mark.slow
def test_examples_run_in_the_folder_of_a_default_run(folder_with_data):
    HyperparameterTuner().run_experiments()
    run_custom_experiment(folder_with_data)
    names = [entry["experiment_name"] for entry in analysis_functions()["load_latest_results"]()["all_results"]]
    assert names == ["conservative_small", "baseline_optimized", "high_learning_rate", "my_experiment"]
