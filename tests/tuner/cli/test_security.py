"""Symbolic links out of the output folder: commands refuse them and do not follow them."""

import os
import shutil

import pytest


@pytest.fixture
def outside(tmp_path):
    """A folder outside the output folder, with files named as in a study."""
    path = tmp_path / "outside"
    (path / "checkpoints").mkdir(parents=True)
    for name in ("precious", "metrics.jsonl", "study.db", "checkpoints/last.pt", "checkpoints/best.pt"):
        (path / name).write_text("precious")
    return path


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("ខ្មែរ", ""),
        ("ខ្មែរ/checkpoints", "checkpoints"),
        ("ខ្មែរ/metrics.jsonl", "metrics.jsonl"),
        ("ខ្មែរ/logs", "logs"),
        ("artifacts", ""),
        ("study.db", "study.db"),
        ("study.db", "new.db"),
        (".study", ""),
    ],
)
def test_link_out_of_the_output_folder_is_refused_until_it_is_removed(
    link, target, cli, run_study, outside, working_dir, tree
):
    link_path = working_dir / "out" / link
    link_path.parent.mkdir(parents=True)
    link_path.symlink_to(outside / target)
    before = tree(outside)
    run = ("run", "--config", run_study.config, "--output-dir", "out", "--experiments", "ខ្មែរ")
    refused = cli.error(*run)
    expected = f"{link_path} is a symbolic link to {outside / target}".rstrip("/")
    expected += ", outside this folder; remove the link"
    if link.startswith("ខ្មែរ"):  # no trial has written it
        expected = f"{working_dir / 'out' / 'ខ្មែរ'}: no trial of this study wrote the files there"
    assert expected in refused
    assert tree(outside) == before
    link_path.unlink()
    cli.ok(*run)
    assert tree(outside) == before


def test_checkpoints_behind_a_link_are_not_deleted(cli, copy_of_the_study, outside, run_study):
    checkpoints = copy_of_the_study / "ខ្មែរ" / "checkpoints"
    shutil.rmtree(checkpoints)
    checkpoints.symlink_to(outside / "checkpoints")
    done = cli("resume", "--output-dir", copy_of_the_study)
    assert done.code in (0, 1)
    assert sorted(os.listdir(outside / "checkpoints")) == ["best.pt", "last.pt"]
