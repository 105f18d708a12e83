import json

import pytest

from search_spaces import ConfigurationError
from studies import OutputFolder, default_storage_url


@pytest.fixture
def folder(tmp_path):
    return OutputFolder(tmp_path / "deep" / "out")


def test_claim_creates_the_folder_and_is_idempotent(folder):
    folder.claim("khmer-ocr", default_storage_url(folder.path))
    first = folder.owner()
    folder.claim("khmer-ocr", default_storage_url(folder.path))
    assert folder.owner() == first
    assert (first.study, first.storage) == ("khmer-ocr", "sqlite:///{output_dir}/study.db")
    assert folder.storage_url(first) == default_storage_url(folder.path)


def test_folder_of_another_study_is_refused(folder):
    url = default_storage_url(folder.path)
    folder.claim("khmer-ocr", url)
    with pytest.raises(ConfigurationError) as caught:
        folder.claim("other", url)
    assert str(caught.value) == (
        f"output folder {folder.path}: it belongs to the study 'khmer-ocr', not to 'other'; "
        "choose another --output-dir, or use --study 'khmer-ocr' to continue that study"
    )


def test_another_storage_is_refused(folder, tmp_path):
    folder.claim("khmer-ocr", default_storage_url(folder.path))
    with pytest.raises(ConfigurationError, match=r"stored in sqlite:////.*out/study.db; pass that URL as --storage"):
        folder.check("khmer-ocr", default_storage_url(tmp_path))


def test_moved_folder_belongs_to_the_same_study(folder, tmp_path):
    folder.claim("khmer-ocr", default_storage_url(folder.path))
    moved = OutputFolder(folder.path.rename(tmp_path / "moved"))
    owner = moved.owner()
    assert owner is not None
    assert moved.storage_url(owner) == default_storage_url(moved.path)
    moved.check("khmer-ocr", default_storage_url(moved.path))


def test_password_is_not_stored_and_may_change(folder):
    folder.claim("khmer-ocr", "postgresql+psycopg://user:secret@host/db")
    assert "secret" not in (folder.internal / "owner.json").read_text()
    folder.check("khmer-ocr", "postgresql+psycopg://user:changed@host/db")


def test_damaged_owner_file_is_refused(folder):
    folder.claim("khmer-ocr", default_storage_url(folder.path))
    (folder.internal / "owner.json").write_text(json.dumps({"study": "x"}))
    with pytest.raises(ConfigurationError, match=r"owner.json: cannot be read .* restore the file"):
        folder.check("khmer-ocr", default_storage_url(folder.path))


@pytest.mark.parametrize("name", ["../../x", "", "a/b", "."])
def test_invalid_study_name_creates_nothing(folder, name):
    with pytest.raises(ConfigurationError, match=r"^study name: found "):
        folder.claim(name, default_storage_url(folder.path))
    assert not folder.path.parent.exists()


def test_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    folder = OutputFolder(tmp_path / "out" / "deeper")
    with pytest.raises(ConfigurationError, match=r"/out is a file; choose another --output-dir"):
        folder.claim("khmer-ocr", default_storage_url(folder.path))


def test_too_long_folder_name_is_refused(tmp_path):
    folder = OutputFolder(tmp_path / ("x" * 300))
    with pytest.raises(ConfigurationError, match=r"at most 255 bytes; choose another --output-dir"):
        folder.claim("khmer-ocr", default_storage_url(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".study", ".STUDY"])
def test_trial_name_that_is_no_folder_name_is_refused(folder, name):
    with pytest.raises(ConfigurationError, match=r"cannot be a folder"):
        folder.trial_dir(name)


@pytest.mark.parametrize("name", ["conservative_small", "ខ្មែរ", "search_0007", "v1.2 b"])
def test_trial_folder_has_the_trial_name(folder, name):
    assert folder.trial_dir(name) == folder.path / name
