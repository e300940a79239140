"""`vitdeploy info`: what is printed of a bundle, and that it needs no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from export.cli.main import main
from export.engine.build import build_engines, plan_engines
from export.graph.metadata import read_metadata
from runtime.bundle.schema import MODEL, Bundle, open_bundle
from runtime.report.terminal.bundle_info import bundle_info_tables
from runtime.runners.trt.library import RTX
from tests.helpers.bundles import copy_bundle

ROOT = Path(__file__).parents[3]


def printed(bundle: Bundle, width: int = 160) -> str:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(bundle_info_tables(bundle))
    return capture.get()


def test_the_tables_say_all_that_matters(tiny_low_rank_bundle: Bundle) -> None:
    manifest = tiny_low_rank_bundle.manifest
    text = printed(tiny_low_rank_bundle)
    for words in (
        "svd (", "rank=4", "fp32", f"{manifest.macs.model:,} of {manifest.macs.dense:,}", "images: float32 [batch, 1, 8, 8]",
        "logits: float32 [batch, 10]", "mean 0.3", "a, b, c, d, e and 5 more", "met: ", f"torch {manifest.tools['torch']}",
        "opset 20", "5 low-rank pairs",
    ):  # fmt: skip
        assert words in text, words
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("0.", "1."))]
    assert [row[0] for row in rows] == [f"{block}.{name}" for block in (0, 1) for name in ("qkv", "proj", "fc1", "fc2")]
    assert rows[0][1:4] == ["4", "of", "16"]
    assert rows[1][1] == "dense"
    assert "Engine" not in text


def test_a_long_setting_is_named_but_not_printed(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "copy", method_config={"latency_model": list(range(100)), "unset": None})
    assert "none (latency_model=…)" in printed(bundle)


def test_a_narrowed_linear_shows_what_it_was(tiny_low_rank_bundle: Bundle, tmp_path: Path) -> None:
    first, *others = tiny_low_rank_bundle.manifest.layers
    narrow = first.model_copy(update={"rank": None, "shape": (24, 16), "dense_shape": (48, 16)})
    bundle = copy_bundle(tiny_low_rank_bundle, tmp_path / "copy", layers=(narrow, *others))
    assert "24 × 16 (was 48 × 16)" in printed(bundle)


def test_a_narrow_terminal_loses_columns_but_no_number(tiny_low_rank_bundle: Bundle) -> None:
    lines = printed(tiny_low_rank_bundle, width=50).splitlines()
    assert max(map(len, lines)) <= 50


@pytest.mark.skipif(not RTX.installed, reason="TensorRT for RTX is not installed")
def test_engines_are_listed_with_what_they_were_built_for(tiny_low_rank_bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_low_rank_bundle.folder, tmp_path / "bundle"))
    plan = plan_engines("trt-rtx", ("SM89",), ("fp32",), "1:4:8")
    assert plan is not None
    build_engines(folder, plan)
    text = printed(open_bundle(folder), width=200)
    assert "engines/trt-rtx-SM89-fp32.engine" in text
    assert "1:4:8" in text


def test_json_on_stdout_without_torch(tiny_low_rank_bundle: Bundle) -> None:
    code = (
        "import sys\nfrom export.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)), code, file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, "info", str(tiny_low_rank_bundle.folder), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() in {"[] 0", "[] None"}
    found = json.loads(done.stdout)
    assert found["method"] == "svd"
    assert found["macs"]["ratio"] == pytest.approx(tiny_low_rank_bundle.manifest.macs.ratio)
    assert found["model_bytes"] == tiny_low_rank_bundle.model_bytes()
    assert found["engines"] == []
    assert len(found["layers"]) == 8


def test_a_folder_that_is_no_bundle_is_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(tmp_path)])
    assert stopped.value.code == 2
    assert "is not a bundle" in capsys.readouterr().err


def test_the_graph_itself_knows_the_widths(tiny_low_rank_bundle: Bundle) -> None:
    widths = json.loads(read_metadata(onnx.load(tiny_low_rank_bundle.folder / MODEL))["vitdeploy.widths"])
    assert widths["0.qkv"] == [48, 16]
    assert widths["1.fc2"] == [16, 32]
    assert len(widths) == 8
