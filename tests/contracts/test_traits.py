"""What each runner says that it can do, against what it and its quantiser can: one contract for all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from export.precision.runtimes.registry import known_quantizers, quantizer
from runtime.runners.base import EngineRunner, GraphRunner
from runtime.runners.registry import known_traits, runner, runner_names
from runtime.runners.runtime_precision import QUANTIZED, RuntimePrecision, parse_precision
from vitnla.common.errors import InputError, MissingDependencyError

NAMES = runner_names()


def test_every_runner_says_what_it_can_do() -> None:
    assert sorted(known_traits()) == NAMES
    assert list(known_traits())[:2] == ["ort", "openvino"]  # the first is what others are held against


@pytest.mark.parametrize("name", NAMES)
def test_a_runner_has_the_methods_that_its_traits_promise(name: str) -> None:
    made = runner(name)
    assert isinstance(made, GraphRunner) == bool(made.traits.timed_precisions)
    assert isinstance(made, EngineRunner) == made.traits.runs_engines
    assert not (made.traits.runs_graph and made.traits.runs_engines)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_quantised_has_a_quantiser(name: str) -> None:
    traits = known_traits()[name]
    quantised = [precision for precision in traits.export_precisions if precision in QUANTIZED]
    assert (name in known_quantizers()) == bool(quantised)
    for precision in quantised:
        made = quantizer(name)
        schemes = made.schemes or ("asymmetric",)
        assert "asymmetric" in schemes  # the default of --int8-activations
        for scheme in schemes:
            text = made.describe(RuntimePrecision(name, precision), scheme)
            assert text
            assert "\n" not in text


@pytest.mark.parametrize("name", [name for name, traits in known_traits().items() if traits.tunable])
def test_tune_finds_all_that_it_needs(name: str) -> None:
    """It compares fp32, int8 and every precision of the run time, and counts time by any of them."""
    traits = known_traits()[name]
    assert {"fp32", "int8"} <= set(traits.export_precisions)
    assert {"fp32", "int8", *traits.run_precisions} <= set(traits.timed_precisions)
    assert traits.packages


def test_a_runtime_and_a_precision_are_one_value() -> None:
    assert RuntimePrecision.parse("openvino:bf16") == RuntimePrecision("openvino", "bf16")
    assert RuntimePrecision.parse("ort") == RuntimePrecision()
    assert len({RuntimePrecision.parse("ort"), RuntimePrecision("ort"), RuntimePrecision("ort", "int8")}) == 2
    for name, traits in known_traits().items():
        for precision in traits.export_precisions:
            target = RuntimePrecision(name, precision)
            assert RuntimePrecision.parse(target.label) == target
            assert target.quantized == (precision in QUANTIZED)
    with pytest.raises(InputError, match="unknown precision 'fp7'"):
        RuntimePrecision.parse("ort:fp7")
    with pytest.raises(InputError, match="unknown runtime 'onnx'"):
        RuntimePrecision.parse("onnx:int8")
    with pytest.raises(InputError, match="unknown precision ''"):
        parse_precision("")


def test_the_version_is_that_of_the_distribution() -> None:
    import onnxruntime

    assert RuntimePrecision("ort", "int8").version() == onnxruntime.__version__
    with pytest.raises(MissingDependencyError, match="runtime 'fixed-delay' has no version"):
        RuntimePrecision("fixed-delay").version()


def test_listing_runtimes_loads_none_of_their_libraries() -> None:
    code = (
        "from runtime.runners.registry import known_traits\nassert len(known_traits()) >= 6\nimport sys\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
