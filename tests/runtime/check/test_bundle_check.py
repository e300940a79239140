"""`vitdeploy verify`: hashes, and the self-check on every runtime present."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.cli.main import main
from runtime.bundle.schema import MANIFEST, MODEL, REFERENCE, Bundle
from runtime.check.bundle_check import Check, self_check, verification_targets
from runtime.runners.registry import runner_names
from vitnla.common.files import sha256_file


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "copy"))


def test_two_bundles_on_two_runtimes(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle
) -> None:
    words = ("verify", tiny_bundle.folder, tiny_low_rank_bundle.folder, "--runtime", "ort", "--runtime", "openvino", "--json")
    code, out, _ = run(capsys, *words)
    assert code == 0
    found = json.loads(out)
    assert [(check["bundle"], check["runtime"], check["verdict"]) for check in found["checks"]] == [
        (bundle, runtime, "met") for bundle in ("tiny-none", "tiny-svd") for runtime in ("ort", "openvino")
    ]
    assert all(0 <= check["max_rel"] <= check["tolerance"] == 1e-4 for check in found["checks"])
    assert [one["files"] for one in found["hashes"]] == [len(b.manifest.files) for b in (tiny_bundle, tiny_low_rank_bundle)]


def test_the_table_is_on_stdout(capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle) -> None:
    code, out, err = run(capsys, "verify", tiny_bundle.folder, "--runtime", "ort")
    assert (code, err) == (0, "")
    assert "files match their hashes" in out
    assert "met" in out


def test_by_default_every_runtime_is_tried(fake_runners: list[str]) -> None:
    assert [target.runtime for target in verification_targets(None)] == runner_names()
    assert set(fake_runners) < set(runner_names())


def test_absent_runtimes_are_skipped_with_their_reason(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    (target,) = (target for target in verification_targets(None) if target.runtime == "absent")
    found = self_check(tiny_bundle, target, threads=1, required=False)
    assert (found.verdict, found.max_rel) == ("skipped", None)
    assert found.reason is not None
    assert "there is no such device" in found.reason
    assert Check.model_validate_json(found.model_dump_json()) == found


def test_an_absent_runtime_asked_for_by_name_is_an_error(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle, fake_runners: list[str]
) -> None:
    code, _, err = run(capsys, "verify", tiny_bundle.folder, "--runtime", "ort", "--runtime", "absent")
    assert code == 3
    assert "there is no such device" in err


@pytest.mark.parametrize(("runtime", "reason"), [("refuses", "expected a better graph"), ("broken", "bad driver")])
def test_a_runtime_that_fails_fails_the_bundle(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle, fake_runners: list[str], runtime: str, reason: str
) -> None:
    code, out, err = run(capsys, "verify", tiny_bundle.folder, "--runtime", runtime)
    assert code == 1
    assert reason in " ".join(out.split())
    assert f"the self-check failed: tiny-none on {runtime}" in err


def test_another_answer_than_the_reference_fails(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    with np.load(folder / REFERENCE) as arrays:
        images, logits = arrays["images"], arrays["logits"]
    np.savez(folder / REFERENCE, images=images, logits=logits * np.float32(1.01))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][REFERENCE] = sha256_file(folder / REFERENCE)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    code, out, _ = run(capsys, "verify", folder, "--runtime", "ort")
    assert code == 1
    assert "not met" in out
    assert "1.0e-02" in out or "9.9e-03" in out


def test_a_damaged_file_is_bad_input(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    content = bytearray((folder / MODEL).read_bytes())
    content[-1] ^= 1
    (folder / MODEL).write_bytes(content)
    code, _, err = run(capsys, "verify", folder)
    assert code == 2
    assert f"file {MODEL} does not match its hash" in err


def test_an_unknown_runtime_and_no_bundle_are_bad_use(capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle) -> None:
    assert run(capsys, "verify", tiny_bundle.folder, "--runtime", "abacus")[0] == 2
    assert run(capsys, "verify")[0] == 2


def test_where_nothing_could_run_that_is_said(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle, fake_runners: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.check.bundle_check.runner_names", lambda: ["absent"])
    code, out, err = run(capsys, "verify", tiny_bundle.folder)
    assert code == 3
    assert "absent was skipped: " in out
    assert "no runtime is here" in err
