"""Opening a bundle: whole or refused, with the file named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runtime.bundle.schema import MANIFEST, MODEL, REFERENCE, Bundle, open_bundle
from vitnla.common.errors import InputError


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "copy"))


def test_a_whole_bundle_opens(tiny_bundle: Bundle) -> None:
    images, logits = tiny_bundle.reference()
    assert images.shape == (8, 1, 8, 8)
    assert logits.shape == (8, 10)
    assert tiny_bundle.model_bytes() == (tiny_bundle.folder / MODEL).stat().st_size
    assert tiny_bundle.engine_records() == ()
    assert tiny_bundle.dense_predictions().shape == (tiny_bundle.manifest.accuracy.images,)


@pytest.mark.parametrize("name", [MODEL, REFERENCE, "checkpoint/model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"file {name} is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("name", [MODEL, REFERENCE, "checkpoint/model.safetensors"])
def test_one_flipped_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"file {name} does not match its hash"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "expected schema version 1, got 99"),
        ({"precision": "fp3"}, "precision"),
        ({"suprise": 1}, "suprise"),
    ],
)
def test_a_manifest_of_another_schema_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        open_bundle(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "\0"])
def test_a_manifest_that_is_no_record_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=r"not a readable manifest|expected schema version"):
        open_bundle(folder)


def test_other_folders_are_no_bundles(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="is not a bundle"):
            open_bundle(path)
