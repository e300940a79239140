"""One contract for every registered runner, and the registry that holds them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from runtime.bench.plan import Target
from runtime.bundle.engines import EnginePrecision
from runtime.bundle.schema import Bundle
from runtime.check.logits import relative_error
from runtime.check.parity import TOLERANCES
from runtime.runners import registry
from runtime.runners.base import RunOptions, Session
from runtime.runners.registry import runner, runner_names
from vitnla.common.errors import InputError, MissingDependencyError

NAMES = ["openvino", "ort", "torch", pytest.param("torch-compile", marks=pytest.mark.slow), "trt", "trt-rtx"]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def session(name: str, tiny_bundle: Bundle) -> Session:
    if not runner(name).availability().ok:
        pytest.skip(f"{name}: {runner(name).availability().reason}")
    return runner(name).load(tiny_bundle, RunOptions(threads=1))


def test_the_contract_covers_every_registered_runner() -> None:
    assert {getattr(name, "values", (name,))[0] for name in NAMES} == set(runner_names())


def test_a_runner_that_cannot_run_explains_itself(name: str, tiny_bundle: Bundle) -> None:
    availability = runner(name).availability()
    assert runner(name).name == name
    if availability.ok:
        availability.require(name)
        return
    assert availability.reason
    assert availability.remedy
    assert "\n" not in availability.reason + availability.remedy
    with pytest.raises(MissingDependencyError, match=name) as caught:
        runner(name).load(tiny_bundle, RunOptions(threads=1))
    assert caught.value.hint


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_logits_equal_the_reference_at_any_batch_size(session: Session, tiny_bundle: Bundle, batch: int) -> None:
    images, logits = tiny_bundle.reference()
    found = session.run(images[:batch])
    assert (found.dtype, found.shape) == (np.float32, (batch, 10))
    assert relative_error(found, logits[:batch]) <= TOLERANCES["fp32"]


def test_results_are_not_overwritten_by_the_next_run(session: Session, tiny_bundle: Bundle) -> None:
    images, _ = tiny_bundle.reference()
    first = session.run(images[:2])
    kept = first.copy()
    session.run(images[2:4])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 1, 8, 8), np.float64),
        np.zeros((1, 1, 8, 8), np.uint8),
        np.zeros((1, 8, 8), np.float32),
        np.zeros((1, 3, 8, 8), np.float32),
        np.zeros((1, 1, 8, 9), np.float32),
        np.zeros((0, 1, 8, 8), np.float32),
    ],
    ids=lambda images: f"{images.dtype}{list(images.shape)}",
)
def test_other_images_are_refused(session: Session, name: str, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=rf"{name}: expected float32 images \[B, 1, 8, 8\], got {images.dtype}"):
        session.run(images)


def test_images_need_not_be_contiguous(session: Session, tiny_bundle: Bundle) -> None:
    images, logits = tiny_bundle.reference()
    assert relative_error(session.run(images[::-1]), logits[::-1]) <= TOLERANCES["fp32"]


def test_run_all_takes_every_batch(session: Session, tiny_bundle: Bundle) -> None:
    taken = []

    def batches() -> object:
        for _ in range(5):
            taken.append(1)
            yield tiny_bundle.reference()[0]

    session.run_all(batches())  # type: ignore[arg-type]
    assert len(taken) == 5


def test_facts_say_what_was_used(session: Session) -> None:
    facts = session.facts()
    assert {"version", "device", "precision", "threads"} <= set(facts)
    assert facts["threads"] == 1


def test_ort_reports_providers_and_fusions(tiny_bundle: Bundle) -> None:
    facts = runner("ort").load(tiny_bundle, RunOptions(threads=1)).facts()
    assert facts["providers"] == ["CPUExecutionProvider"]
    assert facts["fused_attention"] >= 0


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize(("listed", "message"), [(False, "has no"), (True, "asked for .*, got CPUExecutionProvider")])
def test_ort_never_falls_back(
    tiny_bundle: Bundle, provider: str, listed: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the build lacks the provider, nor where it is listed but does not become active."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    names = ["CUDAExecutionProvider", "TensorrtExecutionProvider"] if listed else []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])
    with pytest.raises(MissingDependencyError, match=message) as caught:
        runner("ort").load(tiny_bundle, RunOptions(threads=1, provider=provider))
    assert "onnxruntime-gpu" in caught.value.hint


def test_ort_says_when_both_wheels_hide_cuda(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("runtime.runners.ort.version", lambda distribution: "1")
    with pytest.raises(MissingDependencyError) as caught:
        runner("ort").load(tiny_bundle, RunOptions(threads=1, provider="cuda"))
    assert "both onnxruntime wheels" in caught.value.hint


def test_unknown_names_list_the_choices(tiny_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="unknown runtime 'onnx'") as caught:
        runner("onnx")
    assert "openvino, ort" in caught.value.hint
    with pytest.raises(InputError, match="unknown provider 'rocm'"):
        runner("ort").load(tiny_bundle, RunOptions(threads=1, provider="rocm"))


def test_third_parties_add_runners(fake_runners: list[str]) -> None:
    assert set(fake_runners) <= set(runner_names())
    assert runner("quick").name == "quick"


def test_a_name_registered_twice_raises(monkeypatch: pytest.MonkeyPatch, fake_runners: list[str]) -> None:
    monkeypatch.setattr(registry, "_BUILT_IN", {"quick": "runtime.runners.ort:OrtRunner"})
    with pytest.raises(ValueError, match="'quick' is registered twice"):
        runner_names()


def test_a_runner_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BUILT_IN", {"other": "no_such_package:Runner"})
    with pytest.raises(MissingDependencyError, match="no_such_package"):
        runner("other")


@pytest.mark.parametrize("text", ["ort@1", "openvino@3", "openvino:bf16@2", "trt:fp16@4"])
def test_a_target_may_have_threads_of_its_own(text: str) -> None:
    target = Target.parse(text)
    name, _, count = text.partition("@")
    assert (target.label, replace(target, threads=None)) == (text, Target.parse(name))
    assert (target.options(7, 2).threads, Target.parse(name).options(7, 2).threads) == (int(count), 7)


@pytest.mark.parametrize("count", ["", "0", "-1", "two"])
def test_threads_of_a_target_are_a_number(count: str) -> None:
    with pytest.raises(InputError, match=f"number of threads after 'ort@', got '{count}'"):
        Target.parse(f"ort@{count}")


class TestOpenVinoShapes:
    """The graph is compiled for one batch size; others still run, through a graph that takes all."""

    @pytest.fixture(autouse=True)
    def _needs_openvino(self) -> None:
        pytest.importorskip("openvino")

    @pytest.mark.parametrize("arithmetic", [None, "bf16"])
    def test_every_batch_size_gets_the_same_logits(self, tiny_bundle: Bundle, arithmetic: EnginePrecision | None) -> None:
        images, expected = tiny_bundle.reference()
        limit = 1e-5 if arithmetic is None else 3e-2
        with contextlib.closing(runner("openvino").load(tiny_bundle, RunOptions(1, batch=3, precision=arithmetic))) as session:
            assert session.facts()["batch"] == 3
            for size in (3, 2, 5):
                assert relative_error(session.run(images[:size]), expected[:size]) < limit
            session.run_all([images[:3], images[:2]])

    def test_a_target_names_what_floats_are_computed_in(self, tiny_bundle: Bundle) -> None:
        target = Target.parse("openvino:bf16")
        assert (target.label, target.precision_on(tiny_bundle)) == ("openvino:bf16", "bf16")
        int8 = Bundle(tiny_bundle.folder, tiny_bundle.manifest.model_copy(update={"precision": "int8"}))
        assert target.precision_on(int8) == "int8"
        with pytest.raises(InputError, match="unknown precision of openvino 'int8'"):
            Target.parse("openvino:int8")
