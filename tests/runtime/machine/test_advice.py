"""Doctor's advice: what follows from a machine's facts."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.machine.advice import diagnose
from runtime.runners.registry import known_traits


def _machine(**changes: Any) -> dict[str, Any]:
    return {"cpu_flags": ["avx512_vnni", "avx512_bf16"], "packages": {"onnxruntime": "1"}, "gpus": []} | changes


def _found(machine: dict[str, Any], providers: tuple[str, ...] = ("CPUExecutionProvider",), *, driver: bool = False) -> str:
    found = diagnose(machine, providers, known_traits(), driver=driver)
    return " | ".join(f"{one.found}: {one.means} ({one.remedy})" for one in found)


def test_a_sound_machine_needs_no_remedy() -> None:
    findings = diagnose(_machine(), ("CPUExecutionProvider",), known_traits(), driver=False)
    assert [one.found for one in findings] == ["INT8 instructions: avx512_vnni", "BF16 instructions: avx512_bf16"]
    assert not any(one.remedy for one in findings)
    assert findings[1].means == "--runtime openvino:bf16 is worth measuring"


GTX = {"name": "GTX 1080", "capability": "SM61"}


@pytest.mark.parametrize(
    ("machine", "providers", "driver", "said"),
    [
        (_machine(cpu_flags=["avx2"]), (), False, "no INT8 instructions"),
        (_machine(cpu_flags=["avx2"]), (), False, "no BF16 instructions"),
        (_machine(packages={"onnxruntime": "1", "onnxruntime-gpu": "1"}), (), False, "both installed"),
        (_machine(packages={"openvino": "1"}), (), False, "openvino without nncf"),
        (_machine(), ("CUDAExecutionProvider",), False, "lists CUDAExecutionProvider, but there is no NVIDIA driver"),
        (_machine(), ("CPUExecutionProvider",), True, "an NVIDIA driver, but an ONNX Runtime without CUDA"),
        (_machine(packages={"tensorrt-rtx-cu13": "1"}, gpus=[GTX]), (), True, "GTX 1080 is SM61: TensorRT for RTX needs SM75"),
    ],
)
def test_what_stands_in_the_way_is_named(machine: dict[str, Any], providers: tuple[str, ...], driver: bool, said: str) -> None:
    assert said in _found(machine, providers, driver=driver)


def test_a_new_gpu_is_fine() -> None:
    machine = _machine(packages={"tensorrt-rtx-cu13": "1"}, gpus=[{"name": "RTX 4090", "capability": "SM89"}])
    assert "TensorRT" not in _found(machine, ("CUDAExecutionProvider",), driver=True)
