"""The cache folder: whole entries or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitnla.common.cache import cache_key, cache_root, find_entry, new_entry


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path / "cache"))


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("VITDEPLOY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "vitdeploy"


def test_an_entry_is_found_until_it_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    assert find_entry("numbers", "a") is None
    with new_entry("numbers", "a") as folder:
        (folder / "x").write_text("1")
    found = find_entry("numbers", "a")
    assert found is not None
    assert (found / "x").read_text() == "1"
    assert not caplog.records
    (found / "x").write_text("2")
    assert find_entry("numbers", "a") is None
    (found / "sha256.json").write_text("{")
    assert find_entry("numbers", "a") is None
    assert ["damaged" in caplog.messages[0], "cannot be read" in caplog.messages[1]] == [True, True]


def test_an_interrupted_entry_leaves_the_old_one() -> None:
    with new_entry("numbers", "a") as folder:
        (folder / "x").write_text("1")

    def interrupted() -> None:
        with new_entry("numbers", "a") as folder:
            (folder / "x").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    found = find_entry("numbers", "a")
    assert found is not None
    assert (found / "x").read_text() == "1"


def test_keys_keep_their_parts_apart() -> None:
    assert cache_key("ab", "c") != cache_key("a", "bc")
