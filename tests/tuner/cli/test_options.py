import argparse

from search_spaces import TrainingConfig
from tuner.cli.options import add_study_options


def test_default_output_folder_is_that_of_the_training_config():
    parser = argparse.ArgumentParser()
    add_study_options(parser)
    assert parser.parse_args([]).output_dir == TrainingConfig.output_dir
