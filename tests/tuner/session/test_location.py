from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces import ConfigurationError
from tuner.session.location import StudyLocation

OUT = Path("training_output")

pytestmark = pytest.mark.usefixtures("in_tmp")


def place(**changes: Any) -> StudyLocation:
    return StudyLocation(**{"output_dir": OUT, "study_name": "khmer-ocr", "storage": None, "device": "cpu"} | changes)


def test_a_place_that_can_be_used_is_checked_without_a_trace(tmp_path: Path) -> None:
    place().check()
    place(storage="sqlite:///training_output/other.db").check()
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_kept_in_its_folder_unless_another_storage_is_named() -> None:
    assert place().storage_url == f"sqlite:///{OUT.absolute()}/study.db"
    assert place(storage="sqlite:////elsewhere/x.db").storage_url == "sqlite:////elsewhere/x.db"


def test_the_database_in_the_folder_is_checked_too() -> None:
    OUT.mkdir()
    (OUT / "study.db").write_text("no database, but long enough to be taken for one" * 100)
    with pytest.raises(ConfigurationError, match=r"study\.db is not a SQLite database"):
        place().check()


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        place(storage="sqlite://", study_name="a/b", device="tpu").check()
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["storage URL", "study name", "device"]


def test_a_folder_that_is_a_file_is_told_also_where_the_storage_is_wrong(tmp_path: Path) -> None:
    OUT.write_text("a file where a folder should be")
    with pytest.raises(ConfigurationError) as caught:
        place(storage="sqlite://").check()
    assert len(caught.value.problems) == 2
    assert "is a file" in caught.value.problems[1]
