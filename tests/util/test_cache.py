"""The score cache: never half an entry, never a foreign one, never in the way."""

from __future__ import annotations

import json
import os
import threading

import pytest

from lmms_topoprune._util.disk_cache import Cache, default_folder

KEY = ["model", {"samples": 3}, "topology", {"k": "5"}]
VALUE = {"scores": {"values": [0.1, 0.2]}, "stages": {}}


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_what_was_put_is_found(cache):
    assert cache.get(KEY, dict) is None
    cache.put(KEY, VALUE)
    assert cache.get(KEY, dict) == VALUE
    assert cache.get([*KEY[:3], {"k": "6"}], dict) is None


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "edited", "foreign", "another key", "not an object", "too deep"]
)
def test_a_damaged_entry_is_set_aside_and_computed_again(cache, damage, caplog):
    cache.put(KEY, VALUE)
    (path,) = cache.entries()
    text = path.read_text()
    entry = json.loads(text)
    path.write_text(
        {
            "truncated": text[: len(text) // 2],
            "empty": "",
            "edited": text.replace("0.2", "0.3"),
            "foreign": json.dumps({**entry, "schema": "other/1"}),
            "another key": json.dumps({**entry, "key": ["model"]}),
            "not an object": "[1]",
            "too deep": "[" * 100_000,
        }[damage]
    )
    assert cache.get(KEY, dict) is None and "set aside" in caplog.text
    assert cache.entries() == [] and len(list(cache.folder.glob("*.corrupt"))) == 1
    cache.put(KEY, VALUE)
    assert cache.get(KEY, dict) == VALUE


def test_twenty_writers_and_readers_see_whole_entries_only(cache):
    value = {"scores": list(range(20_000))}
    found, start = [], threading.Barrier(20)

    def work():
        start.wait()
        for _ in range(5):
            cache.put(KEY, value)
            found.append(cache.get(KEY, dict))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 100 and all(value == each for each in found)
    assert [p.suffix for p in cache.folder.iterdir()] == [".json"]


def test_the_entries_used_longest_ago_go_first(tmp_path):
    small = Cache(tmp_path, limit=1500)
    for i in range(4):
        small.put([i], "x" * 400)
        os.utime(small.entries()[-1], (i, i))
    small.get([1], str)
    small.put([4], "x" * 400)
    assert [i for i in range(5) if small.get([i], str)] == [1, 3, 4]
    assert sum(p.stat().st_size for p in small.entries()) <= 1500


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    Cache(tmp_path / "file" / "cache").put(KEY, VALUE)
    assert "scores are not cached" in caplog.text


def test_an_entry_that_may_not_be_read_is_computed_again_and_stays(cache, monkeypatch, caplog):
    """Somebody else's on a shared folder: not to be set aside."""
    cache.put(KEY, VALUE)

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        for name in ("read_bytes", "is_file", "is_dir"):
            patch.setattr(type(cache.folder), name, refuse)
        assert cache.get(KEY, dict) is None and cache.entries() == []
    assert "cannot be read: Permission denied" in caplog.text
    assert cache.get(KEY, dict) == VALUE


def test_a_full_disk_leaves_no_temporary_file(cache, monkeypatch, caplog):
    cache.put(KEY, VALUE)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache.put(["other"], VALUE)
    assert "No space left on device" in caplog.text
    assert [p.suffix for p in cache.folder.iterdir()] == [".json"]


def test_clearing_leaves_nothing(cache):
    cache.put(KEY, VALUE)
    (cache.folder / "x.corrupt").write_text("")
    (cache.folder / "notes.txt").write_text("not ours")
    assert cache.clear() == 2
    assert [p.name for p in cache.folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("asked", ["~nobody-of-that-name/x", None])
def test_without_a_home_nothing_is_kept(monkeypatch, caplog, asked):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TOPOPRUNE_CACHE", raising=False)
    if asked:
        monkeypatch.setenv("TOPOPRUNE_CACHE", asked)

    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert default_folder() is None and "Could not determine home directory" in caplog.text


def test_the_folder_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("TOPOPRUNE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv("TOPOPRUNE_CACHE", "off")
    assert default_folder() is None and Cache.default().get(KEY, dict) is None
    monkeypatch.delenv("TOPOPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_folder() == tmp_path / "xdg" / "topoprune"
