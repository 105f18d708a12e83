import json
import os

import pytest

from search_spaces.diagnostics.disk import write_json, write_text


def test_written_json_can_be_parsed_and_has_unescaped_letters(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"name": "ខ្មែរ", "value": 0.5, "none": None})
    assert "ខ្មែរ" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "ខ្មែរ", "value": 0.5, "none": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), object()])
def test_value_that_json_does_not_support_leaves_the_old_file_unchanged(tmp_path, value):
    path = tmp_path / "results.json"
    write_json(path, {"value": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"value": value})
    assert json.loads(path.read_text()) == {"value": 1}
    assert os.listdir(tmp_path) == ["results.json"]


def test_failed_write_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_text(target, "text")
    assert os.listdir(tmp_path) == ["taken"]


def test_file_has_the_permissions_of_a_new_file(tmp_path):
    write_text(tmp_path / "ours", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
