from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from search_spaces import ConfigurationError
from studies import check_storage_url, default_storage_url, mask_password, open_storage
from studies.storage.url import sqlite_path, without_password


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "keeps nothing.*sqlite:///study.db"),
        ("sqlite:///", "keeps nothing"),
        ("sqlite:", "keeps nothing"),
        ("sqlite:///:memory:", "keeps nothing"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "keeps nothing"),
        ("sqlite:/x/study.db", "three slashes.*write sqlite:///x/study.db"),
        ("sqlite://study.db", "three slashes.*write sqlite:///study.db"),
        ("sqlite//study.db", "three slashes"),
        ("sqlite:///study.db?timeout=3", "'\\?'.*%3F"),
        ("sqlite+aiosqlite:///study.db", "'sqlite\\+aiosqlite' is not known"),
        ("study.db", "no scheme; write sqlite:////.*study.db"),
        ("", "no scheme"),
        ("mysql://u@h/d", "'mysql' is not known; write sqlite:///PATH or postgresql"),
        ("redis://h", "'redis' is not known"),
        ("postgres://u@h/d", "spelt postgresql"),
        ("postgresql+psycopg2://u@h/d", "'psycopg2' is missing; install it: pip install psycopg2"),
        ("://x", "cannot be read as a URL"),
        ("sqlite:////no/such/folder/study.db", "/no/such/folder does not exist"),
        ("sqlite:////tmp", "/tmp is a folder.*sqlite:////tmp/study.db"),
    ],
)
def test_a_bad_url_is_refused_with_place_reason_and_remedy(
    url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=told) as caught:
        check_storage_url(url)
    assert str(caught.value).startswith("storage URL: found ")
    assert "secret" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("These are my notes, and not a database at all. " * 30)
    foreign = tmp_path / "bookmarks.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = text.read_bytes(), foreign.read_bytes()
    with pytest.raises(ConfigurationError, match=r"notes.db is not a SQLite database"):
        check_storage_url(f"sqlite:///{text}")
    with pytest.raises(ConfigurationError, match=r"bookmarks.db is a database of another program"):
        check_storage_url(f"sqlite:///{foreign}")
    assert (text.read_bytes(), foreign.read_bytes()) == before


@pytest.mark.parametrize(
    "folder", ["plain", "with space", "ខ្មែរ", "100%", "a%20b", "what?", "{braces}", "hash#tag", "at@colon:"]
)
def test_a_folder_of_any_name_keeps_its_database(folder: str, tmp_path: Path) -> None:
    path = tmp_path / folder
    path.mkdir()
    url = default_storage_url(path)
    check_storage_url(url)
    open_storage(url)
    assert sorted(os.listdir(path)) == [".study", "study.db"]
    assert sqlite_path(url) == path / "study.db"
    check_storage_url(url)


def test_only_the_output_folder_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "new"
    check_storage_url(default_storage_url(path), output_dir=path)
    with pytest.raises(ConfigurationError, match=r"does not exist"):
        check_storage_url(default_storage_url(path), output_dir=tmp_path / "other")
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:se@cr:et@host/db", "postgresql://user:***@host/db"),
        (
            "postgresql+psycopg://host/db?user=u&password=secret",
            "postgresql+psycopg://host/db?user=u&password=***",
        ),
        ("cannot connect to postgresql://u:secret@h/d now", "cannot connect to postgresql://u:***@h/d now"),
        ("sqlite:////tmp/a:b@c/study.db", "sqlite:////tmp/a:b@c/study.db"),
    ],
)
def test_passwords_are_not_shown(url: str, masked: str) -> None:
    assert mask_password(url) == masked


def test_passwords_are_not_kept() -> None:
    kept = without_password("postgresql+psycopg://user:secret@host/db?sslpassword=secret&connect_timeout=5")
    assert kept == "postgresql+psycopg://user@host/db?connect_timeout=5"
