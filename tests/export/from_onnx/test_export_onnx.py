"""`vitdeploy export --model onnx:FILE`, from the command line to the bundle on its runtimes; and everything that can be wrong with a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.cli.evaluation import load_evaluation
from export.cli.main import main
from runtime.apps.settings import settings_of
from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle, open_bundle
from runtime.check.logits import relative_error
from runtime.check.parity import check_parity
from runtime.runners.base import RunOptions
from runtime.runners.registry import runner
from tests.helpers.onnx_graphs import CHANNELS, CLASSES, SIZE, write_data, write_graph
from vitnla.common.errors import InputError
from vitnla.sources.load import load_model

ROOT = Path(__file__).parents[3]
NORMAL = ["--mean", "0.5,0.4,0.6", "--std", "0.25,0.3,0.2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"npz:{write_data(tmp_path_factory.mktemp('data') / 'data.npz')}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("model") / "theirs.onnx", "ours", "torchscript")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("model") / "fixed.onnx", "vit", "torchscript", batch=3)


def run(*words: object) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def exported(file: Path, data: str, output: Path, *words: object) -> Bundle:
    assert run("export", "--model", f"onnx:{file}", "--data", data, *NORMAL, "-o", output, *words) == 0
    return open_bundle(output)


@pytest.mark.parametrize(
    ("words", "reference", "pairs"),
    [
        (("--method", "none"), "original-onnx", 0),
        (("--rank", 5), "rewritten-onnx", 8),
        (("--target-macs", 0.6, "--set", "rank_multiple=1"), "rewritten-onnx", None),
        (("--method", "cholesky", "--set", "keep=0.5"), "rewritten-onnx", 0),
    ],
)
def test_the_bundle_says_what_it_is(
    file: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], reference: str, pairs: int | None
) -> None:  # fmt: skip
    bundle = exported(file, data, tmp_path / "out", *words, "--json")
    said, manifest = json.loads(capsys.readouterr().out), bundle.manifest
    assert said["parity"]["reference"] == manifest.reference == reference
    assert (manifest.source, manifest.model, manifest.precision) == (f"onnx:{file}", None, "fp32")
    assert manifest.parity.met
    assert manifest.input.shape == ("batch", CHANNELS, SIZE, SIZE)
    assert (manifest.input.name, manifest.output.name, bundle.fixed_batch) == ("pixels", "scores", None)
    assert manifest.macs.model == sum(row.macs for row in manifest.layers)
    assert manifest.parameters.model == sum(row.parameters for row in manifest.layers)
    assert len(manifest.layers) == 8
    low_rank = sum(row.rank is not None for row in manifest.layers)
    assert manifest.graph.low_rank_pairs == low_rank == (low_rank if pairs is None else pairs)
    assert manifest.accuracy.images == 21
    assert not (bundle.folder / "checkpoint").exists()
    about = {entry.key: entry.value for entry in onnx.load(bundle.model_path).metadata_props}
    assert json.loads(about["vitdeploy.preprocessing"])["std"] == [0.25, 0.3, 0.2]
    assert len(json.loads(about["vitdeploy.ranks"])) == low_rank


def with_softmax(file: Path, path: Path) -> Path:
    """The same graph with a Softmax over the classes at its end."""
    model = onnx.load(file)
    graph = model.graph
    graph.node.append(onnx.helper.make_node("Softmax", [graph.output[0].name], ["shares"], axis=-1))
    graph.output[0].name = "shares"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("words", [("--method", "none"), ("--target-macs", 0.6, "--set", "rank_multiple=1")])
def test_a_graph_that_ends_in_softmax_gives_probabilities(
    file: Path, data: str, tmp_path: Path, words: tuple[object, ...]
) -> None:
    """What is counted and measured is that of the same graph without its Softmax; its answers are never put through another."""
    logits = exported(file, data, tmp_path / "logits", *words)
    shares = exported(with_softmax(file, tmp_path / "softmax.onnx"), data, tmp_path / "shares", *words)
    assert (logits.manifest.answers, shares.manifest.answers) == ("logits", "probabilities")
    assert (logits.gives_probabilities, shares.gives_probabilities) == (False, True)
    assert [row.rank for row in shares.manifest.layers] == [row.rank for row in logits.manifest.layers]
    (one,), (other,) = logits.manifest.losses, shares.manifest.losses
    assert other.typical_margin == pytest.approx(one.typical_margin, rel=1e-4)
    assert other.logit_error == pytest.approx(one.logit_error, rel=1e-3, abs=1e-6)
    rows = [check_parity(bundle, Target("ort"), threads=1, evaluation=load_evaluation(data)) for bundle in (logits, shares)]
    assert rows[1].calibration_error == pytest.approx(rows[0].calibration_error, abs=1e-5)
    assert settings_of(shares).answers == "probabilities"


def test_weights_that_are_graph_inputs_are_not_kept_when_replaced(file: Path, data: str, tmp_path: Path) -> None:
    """As `keep_initializers_as_inputs` writes them: the bundle is that of the same file without it."""
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, tmp_path / "inputs.onnx")
    words = ("--target-macs", 0.6, "--set", "rank_multiple=1")
    plain, kept = (exported(one, data, tmp_path / one.stem, *words) for one in (file, tmp_path / "inputs.onnx"))
    found, wanted = (onnx.load(bundle.model_path).graph for bundle in (kept, plain))
    assert [value.name for value in found.input] == ["pixels"]
    assert sorted(tensor.name for tensor in found.initializer) == sorted(tensor.name for tensor in wanted.initializer)
    assert abs(kept.model_bytes() - plain.model_bytes()) < 100  # the metadata name another file


def test_data_of_another_number_of_classes(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path / "data.npz", classes=CLASSES + 2)
    bundle = exported(file, f"npz:{tmp_path / 'data.npz'}", tmp_path / "out", "--method", "none", "--json")
    printed = capsys.readouterr()
    said = json.loads(printed.out)["accuracy"]
    assert bundle.manifest.parity.met
    assert (said["top1"], said["dense_top1"]) == (None, None)
    assert said["not_measured"].startswith(f"the model has {CLASSES} classes, but data 'npz' has {CLASSES + 2}")
    assert "top-1 not measured on" in printed.err
    assert bundle.manifest.labels[0] == "class 0"


def test_runtimes_and_a_second_export_take_the_bundle(file: Path, data: str, tmp_path: Path) -> None:
    """Parity with agreement on ONNX Runtime; and its own metadata are preprocessing and labels enough for the next export."""
    bundle = exported(file, data, tmp_path / "first", "--rank", 5)
    row = check_parity(bundle, Target("ort"), threads=1, evaluation=load_evaluation(data))
    assert (row.verdict, row.images, row.error) == ("met", 21, None)
    assert row.agreement == pytest.approx(bundle.manifest.accuracy.agreement)
    again = ["export", "--model", f"onnx:{bundle.model_path}", "--data", data, "--method", "none", "-o", tmp_path / "second"]
    assert run(*again) == 0
    second = open_bundle(tmp_path / "second")
    assert second.manifest.preprocessing == bundle.manifest.preprocessing
    for left, right in zip(second.reference(), bundle.reference(), strict=True):
        assert relative_error(left, right) < 1e-6
    with pytest.raises(InputError, match="there is no torch model to run"):
        runner("torch").load(bundle, RunOptions(1))
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_model(str(bundle.folder))
    with pytest.raises(InputError, match="not a model in torch"):
        load_model(f"onnx:{file}")


def test_a_fixed_batch_runs_at_that_batch_alone(
    fixed: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """21 test images and 8 reference images do not divide by it all the way: what is left over is filled up."""
    bundle = exported(fixed, data, tmp_path / "out", "--set", "rank_multiple=1")
    assert bundle.fixed_batch == 3
    assert bundle.manifest.parity.batches == (3,)
    row = check_parity(bundle, Target("ort"), threads=1, evaluation=load_evaluation(data))
    assert (row.verdict, row.images, row.agreement) == ("met", 21, pytest.approx(bundle.manifest.accuracy.agreement))
    session = runner("ort").load(bundle, RunOptions(1))
    assert session.run(bundle.reference()[0][:3]).shape == (3, CLASSES)
    with pytest.raises(InputError, match="runs at batch 3 only, got 2 images"):
        session.run(bundle.reference()[0][:2])
    assert (
        run("bench", bundle.folder, "--runtime", "ort", "-b", 1, "--duration", 0.1, "--results-file", tmp_path / "r.jsonl") == 2
    )
    assert "batch 3 only" in capsys.readouterr().err
    assert (
        run("export", "--model", f"onnx:{fixed}", "--data", data, *NORMAL, "--calibration-images", 2, "-o", tmp_path / "b") == 2
    )
    assert "at least 3 calibration images, got 2" in capsys.readouterr().err


def test_a_batch_that_is_dynamic_in_name_only_is_refused(
    fixed: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def rename(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "n"

    path = spoilt(fixed, tmp_path / "named.onnx", rename)
    assert run("export", "--model", f"onnx:{path}", "--data", data, *NORMAL, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "the graph cannot run images [1, 3, 8, 8]" in error
    assert "that the batch is really dynamic" in error


def test_without_torch(file: Path, data: str, tmp_path: Path) -> None:
    """Neither export nor parity may import it: here it cannot be imported at all."""
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ImportError('torch was asked for: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from export.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    common = ["export", "--model", f"onnx:{file}", "--data", data, *NORMAL]
    svd, cholesky = tmp_path / "svd", tmp_path / "cholesky"
    for words in (
        [*common, "--set", "rank_multiple=1", "-o", str(svd)],
        [*common, "--method", "cholesky", "--set", "keep=0.5", "-o", str(cholesky)],
        ["parity", str(svd), "--runtime", "ort", "--data", data],
    ):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
    assert open_bundle(svd).manifest.macs.ratio < open_bundle(cholesky).manifest.macs.ratio < 1


def spoilt(file: Path, path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(file)
    change(model)
    onnx.save(model, path)
    return path


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1]))


def two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(model.graph.node[-2].output[0], onnx.TensorProto.FLOAT, ["a", "b"])
    )


def old_opset(model: onnx.ModelProto) -> None:
    while model.graph.node:
        model.graph.node.pop()
    model.graph.node.append(onnx.helper.make_node("Identity", ["pixels"], ["scores"]))
    model.opset_import[0].version = 11


def not_a_number(model: onnx.ModelProto) -> None:
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))


def quantised(model: onnx.ModelProto) -> None:
    made = [onnx.helper.make_node("QuantizeLinear", ["pixels", "s"], ["q"])]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "s"))
    model.graph.node.extend(made)


def foreign(model: onnx.ModelProto) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(onnx.helper.make_node("FastGelu", ["pixels"], ["f"], domain="com.microsoft"))


def channels_last(model: onnx.ModelProto) -> None:
    del model.graph.node[:]
    model.graph.node.append(onnx.helper.make_node("Identity", ["pixels"], ["scores"]))
    for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (SIZE, SIZE, CHANNELS), strict=True):
        axis.dim_value = size
    model.graph.output[0].type.CopyFrom(model.graph.input[0].type)


def no_linear(model: onnx.ModelProto) -> None:
    del model.graph.node[:]
    model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", ["pixels"], ["g"]))
    model.graph.node.append(onnx.helper.make_node("Flatten", ["g"], ["scores"]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = CHANNELS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (two_inputs, "expected one input, got 2: pixels, mask"),
        (two_outputs, "expected one output, got 2: scores, "),
        (old_opset, "expected opset 13 or newer, got 11"),
        (not_a_number, "got NaN in"),
        (quantised, "got a quantised graph (QuantizeLinear"),
        (foreign, "got 'com.microsoft.FastGelu'"),
        (channels_last, "expected square images [B, C, H, W] as input 'pixels'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    file: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[onnx.ModelProto], object], said: str
) -> None:  # fmt: skip
    path = spoilt(file, tmp_path / "bad.onnx", change)
    assert run("export", "--model", f"onnx:{path}", "--data", data, *NORMAL, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "hint:" in error
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_missing_file_is_refused(file: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:5000])
    onnx.save(onnx.load(file), tmp_path / "big.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    exported(tmp_path / "big.onnx", data, tmp_path / "whole", "--rank", 5)
    (tmp_path / "weights.bin").unlink()
    for name, said in (("cut", "is not a readable ONNX model"), ("big", "weights.bin"), ("none", "no file at")):
        assert run("export", "--model", f"onnx:{tmp_path / name}.onnx", "--data", data, *NORMAL, "-o", tmp_path / "out") == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "pca"), "method 'pca' does not work on onnx:FILE: cholesky, none, svd do"),
        ((*NORMAL, "--rank", 16), "block 0 qkv ('/blocks.0/attn/qkv/MatMul'): expected a rank from 1 to 15, got 16"),
        ((*NORMAL, "--target-macs", 0.01), "target MACs: expected a ratio from"),
        ((), "does not say how its images are prepared"),
        (("--mean", "0.5,0.5,0.5"), "expected --mean and --std together"),
        (("--mean", "0.5", "--std", "0.5"), "makes 1 x 8² images, but"),
        (("--mean", "a,b", "--std", "0.5"), "expected numbers separated by commas"),
        (("--mean", "0.5,0.5,0.5", "--std", "0.5,0,0.5"), "values of std that are not 0"),
        ((*NORMAL, "--opset", 18), "--opset: not available for onnx:FILE"),
        (
            (*NORMAL, "--batch", "1:8:8", "--latency-runtime", "openvino"),
            "--batch and --latency-runtime: not available for onnx:FILE",
        ),
        ((*NORMAL, "--interpolation", "area"), "interpolation"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_one_line(
    file: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], said: str
) -> None:  # fmt: skip
    assert run("export", "--model", f"onnx:{file}", "--data", data, "-o", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_preprocessing_and_labels_from_files(file: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = tmp_path / "preprocessing.json"
    described.write_text(json.dumps({"image_size": SIZE, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}))
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(f"thing {index}" for index in range(CLASSES)))
    words = [
        "export",
        "--model",
        f"onnx:{file}",
        "--data",
        data,
        "--method",
        "none",
        "--preprocessing",
        described,
        "--labels",
        names,
    ]
    assert run(*words, "-o", tmp_path / "out") == 0
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.labels[1] == "thing 1"
    assert manifest.preprocessing["interpolation"] == "bicubic"
    names.write_text("thing 0\nthing 1")
    assert run(*words, "-o", tmp_path / "b") == 2
    assert f"has {CLASSES} classes, but {names} names 2" in capsys.readouterr().err
    described.write_text(json.dumps({"image_size": 2 * SIZE, "mean": [0.5] * 3, "std": [0.2] * 3}))
    assert run(*words, "-o", tmp_path / "b") == 2
    assert "makes 3 x 16² images, but" in capsys.readouterr().err
    assert run("export", "--method", "none", "--labels", names, "-o", tmp_path / "b") == 2
    assert f"{names}: expected 10 class names, one for each output, got 2" in capsys.readouterr().err
    for option in (("--image-size", 8), ("--model-args", "global_pool=avg"), ("--weights-key", "model")):
        assert run(*words, *option, "-o", tmp_path / "b") == 2
        assert f"{option[0]}: not available for onnx:FILE" in capsys.readouterr().err


def test_a_graph_without_linears_is_refused(file: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spoilt(file, tmp_path / "pool.onnx", no_linear)
    names = tmp_path / "labels.txt"
    names.write_text("a\nb\nc")
    few = tmp_path / "few.npz"
    with np.load(data.removeprefix("npz:")) as arrays:
        np.savez(few, images=arrays["images"], labels=arrays["labels"] % 3, splits=arrays["splits"])
    words = ["export", "--model", f"onnx:{path}", "--data", f"npz:{few}", *NORMAL, "--labels", names, "-o", tmp_path / "out"]
    assert run(*words) == 2
    assert "found no linear of an encoder" in capsys.readouterr().err
