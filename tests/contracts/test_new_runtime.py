"""A runtime of a third party: its runner, its quantiser and their registration, all in this file, and nothing else of vitdeploy is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from export.bundle.plan import ExportOptions
from export.compare.controls import wanted_controls
from export.engine.build import engine_precisions
from export.latency import measure
from export.latency.target import latency_targets, parse_latency_target, quantizes_scores
from export.precision.calibration import Calibration
from export.precision.linears import encoder_linears, name_nodes
from export.precision.request import Lowering, plan_lowering
from export.precision.runtimes.base import OnStep, Quantizer
from export.tune.candidates import Candidate
from export.tune.request import TuneRequest, default_targets, int8_forms, tunable_runtimes
from runtime.bench.plan import BenchPlan, Target
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle, Precision, Quantization
from runtime.machine.facts import machine_facts
from runtime.runners.availability import Availability
from runtime.runners.base import Images, Logits, RunOptions, Session
from runtime.runners.registry import runner_names
from runtime.runners.runtime_precision import RuntimePrecision
from runtime.runners.traits import Traits
from tests.helpers.exports import export_decomposition
from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.data.dataset import Dataset
from vitnla.methods import Decomposition
from vitnla.model.config import ViTConfig
from vitnla.sources.source_model import SourceModel

ROOT = Path(__file__).parents[2]


class ToySession(Session):
    """The graph in onnx's reference evaluator."""

    def __init__(self, runner: str, bundle: Bundle, options: RunOptions) -> None:
        super().__init__(runner, bundle)
        from onnx.reference import ReferenceEvaluator

        self._graph, self._input = ReferenceEvaluator(str(bundle.model_path)), bundle.manifest.input.name
        self._precision = options.precision or bundle.manifest.precision

    def _infer(self, images: Images) -> Logits:
        return np.asarray(self._graph.run(None, {self._input: images})[0], np.float32)

    def facts(self) -> dict[str, Any]:
        return {"version": onnx.__version__, "device": "cpu", "precision": self._precision, "threads": 1}


class ToyRunner:
    name = "toy"
    traits = Traits(
        packages=("toy-runtime",), export_precisions=("fp32", "int8"), run_precisions=("fp32", "bf16"),
        timed_precisions=("fp32", "bf16", "int8"), runs_graph=True, tunable=True,
    )  # fmt: skip

    def availability(self) -> Availability:
        return Availability(True)

    def imports(self) -> None:
        import onnx.reference  # noqa: F401

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        return ToySession(self.name, bundle, options)

    def open_graph(
        self, graph: bytes, feed: Mapping[str, NDArray[np.float32]], precision: Precision, threads: int
    ) -> Callable[[], object]:
        from onnx.reference import ReferenceEvaluator

        model = ReferenceEvaluator(onnx.load_from_string(graph))
        return lambda: model.run(None, dict(feed))


class ToyQuantizer(Quantizer):
    """Rounds every linear's weight to 8 bits, by a scale that may be a power of two."""

    schemes = ("by-power-of-two", "asymmetric")
    quantizes_scores = True

    def describe(self, target: RuntimePrecision, activations: str) -> str:
        return f"weights rounded to 8 bits, {activations}"

    def quantize(
        self, path: Path, target: RuntimePrecision, activations: str, config: ViTConfig, calibration: Calibration, on_step: OnStep
    ) -> Quantization:
        model = onnx.load(path)
        name_nodes(model)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        linears = encoder_linears(model, config)
        for node in linears:
            tensor = weights[node.input[1]]
            array = onnx.numpy_helper.to_array(tensor)
            scale = np.abs(array).max() / 127
            if activations == "by-power-of-two":
                scale = 2.0 ** np.ceil(np.log2(scale))
            tensor.CopyFrom(onnx.numpy_helper.from_array((np.rint(array / scale) * scale).astype(np.float32), tensor.name))
        onnx.save(model, path)
        return Quantization(
            runtime=target.runtime, tool="toy", images=len(calibration.images), quantized=len(linears),
            scheme=self.describe(target, activations), activations=activations,
        )  # fmt: skip


class ToyWithoutTraits:
    name = "toy-without-traits"


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a package would be, for this process and for the workers that bench starts."""
    folder = tmp_path / "site" / "toy_runtime-3.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-runtime\nVersion: 3.1\n")
    (folder / "entry_points.txt").write_text(
        f"[vitdeploy.runners]\ntoy = {__name__}:ToyRunner\n\n[vitdeploy.quantizers]\ntoy = {__name__}:ToyQuantizer\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder.parent), str(ROOT), *inherited]))


def test_bench_measures_on_it_in_both_of_its_precisions(tiny_bundle: Bundle) -> None:
    assert "toy" in runner_names()
    targets = tuple(map(Target.parse, ("toy", "toy:bf16@1")))
    assert [target.label for target in targets] == ["toy", "toy:bf16@1"]
    plan = BenchPlan((tiny_bundle,), targets, (2,), threads=1, seconds=0.02, min_count=3, rounds=1, timeout_s=60)
    cells = run_bench(plan)
    assert [(cell.runtime, cell.precision, cell.error) for cell in cells] == [("toy", "fp32", None), ("toy:bf16@1", "bf16", None)]
    assert all(cell.images_per_s for cell in cells)
    with pytest.raises(InputError, match="unknown precision of toy 'fp8'"):
        Target.parse("toy:fp8")
    with pytest.raises(InputError, match="runtime 'ort' takes no precision") as caught:
        Target.parse("ort:fp8")
    assert "toy" in caught.value.hint


def test_bundles_are_exported_for_it(tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path) -> None:
    options = {"precision": "int8", "runtime": "toy", "int8_activations": "by-power-of-two"}
    assert ExportOptions(**options).lowering() == Lowering(RuntimePrecision("toy", "int8"), "by-power-of-two")  # type: ignore[arg-type]
    dense = Decomposition(tiny_source.model, ())
    bundle = export_decomposition(tiny_source, dense, tiny_data, tmp_path / "int8", "none", **options)
    made = bundle.manifest.quantization
    assert made is not None
    assert (made.runtime, made.tool, made.activations) == ("toy", "toy", "by-power-of-two")
    assert made.images > 0
    images, _ = bundle.reference()
    assert Target("toy").open(bundle, 1, len(images)).run(images).shape == (len(images), 10)
    with pytest.raises(InputError, match="'toy' computes in fp32, int8 here, not in fp16"):
        plan_lowering("fp16", "toy", 20)
    with pytest.raises(InputError, match="by-power-of-two activations are a choice of int8 for toy, got int8 for ort"):
        plan_lowering("int8", "ort", 20, "by-power-of-two")
    assert engine_precisions("toy", "int8") == ()


def test_operators_are_timed_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse_latency_target("toy:int8")
    assert {"toy", "toy:bf16", "toy:int8"} <= {known.label for known in latency_targets()}
    assert quantizes_scores(target)
    assert not quantizes_scores(RuntimePrecision("toy"))
    monkeypatch.setattr(measure, "ROUNDS", 1)
    monkeypatch.setattr(measure, "ROUND_S", 0.0)
    shape = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=8, depth=1, heads=2)
    model = measure.measure_latency(shape, parse_latency_target("toy"), 1, 1)
    assert model.runtime == "toy 3.1"
    assert model.mlp_ns(shape.blocks[0], shape.dim, shape.tokens) > 0


def test_tune_may_choose_it(tmp_path: Path) -> None:
    assert tunable_runtimes() == ("ort", "openvino", "toy")
    assert [target.label for target in default_targets()][-2:] == ["toy", "toy:bf16"]
    request = TuneRequest("demo", "demo", 1.0, 0.8, (Target("toy"),), 4, 1, 50, 50, 32, 60.0, 0.3, tmp_path, "tune")
    request.check()
    assert request.lowerings == int8_forms("toy")
    assert [form.activations for form in request.lowerings] == ["by-power-of-two", "asymmetric"]
    assert Candidate(0.6, request.lowerings[0]).name == "auto-0.6-int8-toy-by-power-of-two"


def test_controls_and_facts_know_it(tiny_low_rank_bundle: Bundle) -> None:
    assert "int8" in {one.precision for one in wanted_controls([tiny_low_rank_bundle], ["toy"]) if one.runtime == "toy"}
    assert machine_facts()["packages"]["toy-runtime"] == "3.1"


def test_a_runner_without_traits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site/toy_runtime-3.1.dist-info/entry_points.txt").write_text(
        f"[vitdeploy.runners]\ntoy = {__name__}:ToyWithoutTraits\n"
    )
    with pytest.raises(MissingDependencyError, match=r"runtime 'toy': expected .* to have `traits`"):
        RuntimePrecision.parse("toy")
    assert tunable_runtimes() == ("ort", "openvino")
