import os
import sqlite3
from contextlib import closing

import pytest
import sqlalchemy

from search_spaces import ConfigurationError
from studies import check_storage_url, default_storage_url, mask_password, open_storage, storage_error_text
from studies.storage.url import sqlite_path, without_password


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:", "an in-memory database is lost"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "an in-memory database is lost"),
        ("postgresql+psycopg2://u@h/d", "'psycopg2' is missing; install it: pip install psycopg2"),
        ("postgresql+psycopg://u@h/d#x", "cannot be parsed; use .*, with a percent-encoded password"),
        ("postgresql+psycopg://u@h/d?x=1", "an option after '\\?' is unknown.*; use only .*connect_timeout"),
        ("sqlite:////tmp", "/tmp is a folder.*sqlite:////tmp/study.db"),
    ],
)
def test_invalid_url_is_refused_with_reason_and_remedy(url, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_storage_url(url)
    assert str(caught.value).startswith("storage URL: found ")
    assert "secret" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_file_of_another_program_is_refused_and_unchanged(tmp_path):
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
def test_database_is_created_in_a_folder_with_special_characters(folder, tmp_path):
    path = tmp_path / folder
    path.mkdir()
    url = default_storage_url(path)
    check_storage_url(url)
    open_storage(url)
    assert sorted(os.listdir(path)) == [".study", "study.db"]
    assert sqlite_path(url) == path / "study.db"
    check_storage_url(url)


def test_only_the_output_folder_may_be_missing(tmp_path):
    path = tmp_path / "new"
    check_storage_url(default_storage_url(path), output_dir=path)
    with pytest.raises(ConfigurationError, match=r"does not exist"):
        check_storage_url(default_storage_url(path), output_dir=tmp_path / "other")
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:se@cr:et@host/db", "postgresql://***"),
        ("postgresql+psycopg://host/db?user=u&password=secret", "postgresql+psycopg://host/db?user=u"),
        ("postgresql+psycopg:///db?host=/run/postgresql", "postgresql+psycopg:///db?host=%2Frun%2Fpostgresql"),
        ("postgresql://u:secret@[::1]:5/db?hostaddr=::1", "postgresql://u:***@[::1]:5/db?hostaddr=%3A%3A1"),
        ("cannot connect to postgresql://u:secret@h/d now", "***"),
        ("mysql://user@host/db", "***"),
        ("sqlite:////tmp/a:b@c/study.db", "sqlite:////tmp/a:b@c/study.db"),
    ],
)
def test_passwords_are_not_shown(url, masked):
    assert mask_password(url) == masked


def test_passwords_are_not_stored():
    stored = without_password("postgresql+psycopg://user:secret@host/db?sslpassword=secret&connect_timeout=5")
    assert stored == "postgresql+psycopg://user@host/db?connect_timeout=5"


def test_connection_options_are_stored():
    url = "postgresql+psycopg:///db?host=%2Frun%2Fpostgresql&options=-csearch_path%3Dmine&sslmode=require&user=me"
    check_storage_url(url)
    assert without_password(url) == url


def test_secrets_in_driver_messages_are_masked():
    url = "postgresql+psycopg://user:s%40cret@host/db?oauth_client_secret=hidden"
    error = sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception(f"bad: s@cret, hidden, {url}"))
    assert storage_error_text(error, url).startswith("postgresql+psycopg://user:***@host/db: bad: ***, ***, ***; ")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me@h/%E1%9E%81%E1%9F%92%E1%9E%98%E1%9F%82%E1%9E%9A%20OCR",
        "postgresql+psycopg://first.last@h:5433/ocr?sslmode=require&application_name=my%20study",
    ],
)
def test_user_and_database_names_are_accepted_and_stored(url):
    check_storage_url(url)
    assert sqlalchemy.make_url(without_password(url)) == sqlalchemy.make_url(url)
    assert sqlalchemy.make_url(mask_password(url)) == sqlalchemy.make_url(url)


def test_repeated_secret_options_are_masked():
    url = "postgresql+psycopg://u@h/d?password=canary1&password=canary2"
    assert "canary" not in storage_error_text(sqlalchemy.exc.SQLAlchemyError("bad: canary1, canary2"), url)
