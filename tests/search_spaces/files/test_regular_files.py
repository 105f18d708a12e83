import gc
import json
import os
import socket

import pytest

from search_spaces.files.regular_files import parse_json, read_bytes, regular_file


@pytest.fixture
def special(tmp_path):
    """Return the path of a pipe, a device, a folder and a socket, keyed by kind."""
    paths = {kind: tmp_path / kind for kind in ("pipe", "device", "folder", "socket")}
    os.mkfifo(paths["pipe"])
    paths["device"].symlink_to("/dev/zero")  # endless
    paths["folder"].mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(paths["socket"]))
        yield paths


@pytest.mark.parametrize("mode", ["rb", "ab", "r+b"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_file_that_is_not_regular_is_rejected_without_blocking(kind, mode, special):
    gc.collect()  # closes the files of earlier tests, which would be missing after the call
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match=r"it is (a folder|not a regular file)|No such device|Is a directory") as caught:
        open(special[kind], mode, opener=regular_file)
    assert caught.value.filename == str(special[kind])
    assert len(os.listdir("/dev/fd")) == before


def test_huge_file_is_not_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(300 * 10**9)
    with pytest.raises(OSError, match="the file has 300,000,000,000 bytes; expected at most 2,000,000,000"):
        read_bytes(path)
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="the file has 5 bytes; expected at most 4"):
        read_bytes(path, 4)


def test_new_file_has_the_permissions_of_the_umask(tmp_path):
    with open(tmp_path / "new", "ab", opener=regular_file), open(tmp_path / "plain", "ab"):
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff", b"{", b"1" * 5000, b""])
def test_invalid_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_is_read():
    assert parse_json(json.dumps({"a": [1, "ក"]}).encode()) == {"a": [1, "ក"]}
