import shutil

import pytest

from search_spaces import ConfigurationError
from studies import load_study, load_study_for_changes, request_stop, stop_token


def test_each_request_has_a_new_token(start):
    study, folder = start()
    reader, _ = load_study(folder.path)
    assert stop_token(reader) == stop_token(study) == ""
    tokens = []
    for _ in range(2):
        request_stop(load_study_for_changes(folder.path)[0])
        tokens.append(stop_token(reader))
        assert stop_token(study) == tokens[-1]
    assert len({"", *tokens}) == 3


def test_request_concerns_only_its_study(start, tmp_path):
    url = f"sqlite:///{tmp_path}/shared.db"
    one, _ = start(path=tmp_path / "one", name="one", url=url)
    two, _ = start(path=tmp_path / "two", name="two", url=url)
    request_stop(one)
    assert stop_token(one) != ""
    assert stop_token(two) == ""


def test_load_study_for_changes_requires_the_study_of_the_folder(start, tmp_path):
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        load_study_for_changes(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()

    url = f"sqlite:///{tmp_path}/shared.db"
    _, folder = start(path=tmp_path / "one", url=url)
    shutil.copytree(folder.path, tmp_path / "two")
    owner = tmp_path / "two" / ".study" / "owner.json"
    original = folder.owner()
    owner.write_text(owner.read_text().replace(original.folder_id, "another"))
    with pytest.raises(ConfigurationError, match=r"belongs to the output folder .*/one, not to .*/two"):
        load_study_for_changes(tmp_path / "two")
    (tmp_path / "shared.db").unlink()
    with pytest.raises(ConfigurationError, match="there is no study database"):
        load_study_for_changes(folder.path)
    assert not (tmp_path / "shared.db").exists()
