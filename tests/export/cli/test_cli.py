"""The command line as a user types it: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from export.cli.main import main
from export.cli.output import integers
from vitnla.common.errors import InputError

COMMANDS = (
    "export", "tune", "info", "verify", "bench", "parity", "evaluate", "package", "train", "distill", "study", "report", "doctor",
    "methods",
)  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, in this process."""
    with pytest.raises(SystemExit) as stopped:
        main([*words])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "--json" in out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("export", "--method", "magic"), "unknown method 'magic'"),
        (("export", "--method", "svd", "--rank", "0"), "expected at least 1, got 0"),
        (("export", "--method", "svd", "--rank", "10000", "--calibration-images", "16"), "expected a rank from 1 to"),
        (("export", "--method", "svd", "--rank", "8", "--energy", "0.5"), "rank and energy"),
        (("export", "--method", "none", "--rank", "8"), "method 'none' has no setting 'rank'"),
        (("export", "--method", "svd", "--set", "rank_multiple"), "--set: expected NAME=VALUE, got 'rank_multiple'"),
        (("export", "--method", "svd", "--set", "colour=red"), "method 'svd' has no setting 'colour'"),
        (("export", "--method", "svd", "--set", "rank-multiple=zero"), "rank_multiple: "),
        (("export", "--method", "auto", "--latency-batch", "4"), "--latency-batch needs --target-latency"),
        (("export", "--model", "resnet50"), "unknown model 'resnet50'"),
        (("export", "--data", "imagenet21k"), "unknown data 'imagenet21k'"),
        (("export", "--data", "fashion-mnist:/no/such/folder"), "no folder at /no/such/folder"),
        (("export", "--opset", "7"), "opset"),
        (("export", "--precision", "fp4"), "precision"),
        (("bench", "--runtime", "abacus"), "unknown runtime 'abacus'"),
        (("bench", "/no/such/bundle"), "is not a bundle"),
        (("bench", "-b", "one"), "batch size: expected whole numbers"),
        (("parity", "/no/such/bundle"), "is not a bundle"),
        (("report", "/no/such/results.jsonl"), "cannot read /no/such/results.jsonl"),
        (("train", "--data", "demo", "--preset", "huge"), "unknown preset 'huge'"),
        (("train", "--data", "demo", "--lr", "-1"), "lr: "),
        (("train", "--data", "demo"), "unknown split of data 'demo' 'train'"),
    ],
)
def test_bad_input_is_one_line_with_a_hint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert complaint in error
    assert "hint:  " in err
    assert "Traceback" not in err
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_unknown_option_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "export", "--colour")[0] == 2
    assert run(capsys, "frobnicate")[0] == 2


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="unknown method"):
        main(["export", "--method", "magic", "--debug"])


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.pipeline.export_model", interrupted)
    code, _, err = run(capsys, "export")
    assert code == 130
    assert "interrupted" in err


def test_methods_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods", "--json")
    assert code == 0
    found = {method["name"]: method for method in json.loads(out)["methods"]}
    assert {"none", "svd"} <= set(found)
    assert all(method["kind"] in {"online", "deployable", "trained"} and method["summary"] for method in found.values())


def test_doctor_as_json_explains_what_cannot_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    runtimes = json.loads(out)["runtimes"]
    assert {"torch", "torch-compile", "ort", "openvino", "trt", "trt-rtx"} <= set(runtimes)
    assert runtimes["ort"]["ok"]
    assert all(answer["reason"] and answer["remedy"] for answer in runtimes.values() if not answer["ok"])
    assert len(json.loads(out)["findings"]) >= 2
    assert [one["name"] for one in json.loads(out)["model_libraries"]] == ["torchvision", "timm", "transformers"]


def test_an_unforeseen_error_has_a_code_of_its_own_and_says_how_to_report_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("shapes of\nanother world")

    monkeypatch.setattr("runtime.machine.facts.machine_facts", fail)
    code, out, err = run(capsys, "doctor", "--json")
    assert (code, out) == (70, "")
    assert err.splitlines()[0] == "error: unforeseen: RuntimeError: shapes of another world"
    assert f"vitdeploy {version('vitdeploy')}" in err
    assert "(vitdeploy doctor --json)" in err
    assert "--debug" in err
    assert "Traceback" not in err
    code, _, err = run(capsys, "doctor", "--debug")
    assert code == 70
    assert "Traceback" in err


def test_integers() -> None:
    assert integers("1,16,1", "batch size") == (1, 16)
    with pytest.raises(InputError, match="at least 1, got 0"):
        integers("0,2", "batch size")


def test_doctor_keeps_the_brackets_of_a_remedy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.machine.facts._versions", lambda: {"openvino": "1"})  # and so without nncf
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "vitdeploy[openvino]" in "".join(out.split())


@pytest.mark.slow
def test_export_bench_parity_and_report_work_as_typed(tmp_path: Path) -> None:
    """The demo, from nothing to a report, in fresh processes and an empty folder."""

    def vitdeploy(*words: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-c", "from export.cli.main import main; main()", *words, "--json"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    exported = vitdeploy(
        "export", "--method", "svd", "--target-macs", "0.8", "--calibration-images", "100", "--eval-images", "200"
    )
    assert set(exported) == {
        "bundle", "method", "macs", "parameters", "accuracy", "parity", "engines", "distillation",
        "precision", "runtime", "quantization", "losses",
    }  # fmt: skip
    assert (exported["precision"], exported["quantization"]) == ("fp32", None)
    assert exported["distillation"] is None
    assert 0.7 < exported["macs"]["ratio"] <= 0.8  # type: ignore[index]
    assert (tmp_path / str(exported["bundle"]) / "manifest.json").is_file()
    benched = vitdeploy("bench", "--runtime", "ort", "-b", "1", "--duration", "0.3", "--rounds", "3", "--eval-images", "200")
    cells = benched["cells"]
    assert isinstance(cells, list)
    assert {cell["bundle"] for cell in cells} == {"demo-none", "demo-svd-0.8"}
    assert all(cell["images_per_s"] > 0 and cell["peak_rss_mb"] > 0 for cell in cells)
    assert all(cell["top1"] > 0.8 for cell in cells)
    parity = vitdeploy("parity", "artifacts/demo-svd-0.8", "--eval-images", "200")
    assert [row["verdict"] for row in parity["rows"]] == ["met"]  # type: ignore[attr-defined]
    vitdeploy("report", "artifacts/results.jsonl", "-o", "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_runtime_without_a_gpu_exits_with_three(tmp_path: Path) -> None:
    from runtime.runners.registry import runner

    if runner("trt").availability().ok:
        pytest.skip("TensorRT runs here")
    done = subprocess.run(
        [sys.executable, "-c", "from export.cli.main import main; main()", "bench", "--runtime", "trt", "--data", "none"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "GPU" in done.stderr
    assert "install" in done.stderr
