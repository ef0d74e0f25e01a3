"""Files: whole or absent."""

import os

import pytest

from bnnlib import UserError
from bnnlib.files import check_writable, read_json, sha256, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a" / "file", "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and os.listdir(path.parent) == ["file"]


def test_written_files_may_be_read_by_others(tmp_path):
    path = write_json(tmp_path / "x.json", {"a": [1, 2]})
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert read_json(path) == {"a": [1, 2]} and path.read_text().endswith("\n")


def test_damaged_and_missing_json_are_named(tmp_path):
    with pytest.raises(UserError, match="no file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"half.json is damaged"):
        read_json(tmp_path / "half.json")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / "file" / "below")
    check_writable(tmp_path / "new")
    assert os.listdir(tmp_path / "new") == []


def test_sha256(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
