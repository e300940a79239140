"""Errors, atomic files, records and registries."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from vitnla.common.errors import InputError
from vitnla.common.files import atomic_folder, sha256_file, write_atomically
from vitnla.common.registry import LazyRegistry, Registry
from vitnla.common.schema import Record


class Point(Record):
    x: int
    y: int = 0


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "old and long")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_folder_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    destination = tmp_path / "bundle"
    with atomic_folder(destination) as scratch:
        (scratch / "file").write_text("old")

    def write_half() -> None:
        with atomic_folder(destination, replace=True) as scratch:
            (scratch / "file").write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert (destination / "file").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["bundle"]


def test_existing_folder_needs_replace(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").write_text("precious")
    with pytest.raises(InputError, match="already exists") as caught, atomic_folder(tmp_path / "bundle"):
        pass
    assert "--force" in caught.value.hint
    assert (tmp_path / "bundle" / "mine").read_text() == "precious"


def test_replaced_folder_holds_only_the_new_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "bundle", replace=True) as scratch:
            (scratch / name).touch()
    assert [item.name for item in (tmp_path / "bundle").iterdir()] == ["second"]
    assert len(list(tmp_path.iterdir())) == 1


def test_destination_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"), atomic_folder(tmp_path / "file", replace=True):
        pass


@pytest.mark.parametrize(
    ("text", "complaint"),
    [('{"x": "no"}', "x: .*got no"), ('{"x": 1, "z": 2}', "z: "), ("{", "Invalid JSON"), ("{}", "x: Field required")],
)
def test_bad_record_names_the_field(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "point.json"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        Point.read(path)


def test_record_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    path.write_text(Point(x=3, y=4).to_json())
    assert Point.read(path) == Point(x=3, y=4)


def test_registry_refuses_duplicates_and_lists_choices() -> None:
    registry: Registry[int] = Registry("thing")
    registry.add("one", 1)
    with pytest.raises(ValueError, match="twice"):
        registry.add("one", 2)
    with pytest.raises(InputError, match="unknown thing 'two'") as caught:
        registry["two"]
    assert "one" in caught.value.hint
    assert (list(registry), len(registry)) == (["one"], 1)


def test_a_lazy_registry_imports_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: LazyRegistry[int] = LazyRegistry("thing", {"one": "home_of_one", "two": "home_of_two"})
    (tmp_path / "home_of_one.py").write_text("from vitnla.common import registry\nregistry.KNOWN.add('one', 1)\n")
    (tmp_path / "home_of_two.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("vitnla.common.registry.KNOWN", registry, raising=False)
    assert (list(registry), len(registry), "home_of_one" in sys.modules) == (["one", "two"], 2, False)
    assert registry["one"] == registry["one"] == 1
    assert "home_of_two" not in sys.modules
    with pytest.raises(InputError, match="unknown thing 'three'") as caught:
        registry["three"]
    assert "one, two" in caught.value.hint
    with pytest.raises(InputError, match="unknown thing 'two'"):  # its module does not add it
        registry["two"]
    registry.add("three", 3)
    assert (registry["three"], list(registry), len(registry)) == (3, ["one", "two", "three"], 3)
