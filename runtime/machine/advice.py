"""Diagnosis of a machine's performance problems, with commands to fix them: pure functions of known facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtime.runners.traits import Traits
from vitnla.common.schema import Record

FIRST_RTX = 75
"""The first GPU architecture that TensorRT for RTX takes (Turing), as 10 major + minor."""
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


class Finding(Record):
    """One finding: the fact, its consequence, and the remedy, which may be empty."""

    found: str
    means: str
    remedy: str = ""


def diagnose(
    machine: Mapping[str, Any], providers: Sequence[str], runtimes: Mapping[str, Traits], *, driver: bool
) -> list[Finding]:
    """Return findings for a user whose models are slower than expected, or do not run.

    Args:
        machine: see `machine_facts`.
        providers: execution providers that the installed ONNX Runtime lists.
        runtimes: traits of each runtime by its name, see `known_traits`.
        driver: true if an NVIDIA driver was found.
    """
    packages: Mapping[str, str] = machine["packages"]
    return [
        *_instructions(machine["cpu_flags"], runtimes),
        *_packages(packages),
        *_quantizers(packages, runtimes),
        *_providers(packages, providers, driver=driver),
        *_gpus(machine["gpus"], packages),
    ]


def _instructions(flags: Sequence[str], runtimes: Mapping[str, Traits]) -> Iterator[Finding]:
    int8, bf16 = [one for one in _INT8 if one in flags], [one for one in _BF16 if one in flags]
    if int8:
        yield Finding(found=f"INT8 instructions: {', '.join(int8)}", means="int8 graphs are worth exporting: --precision int8")
    else:
        yield Finding(
            found="no INT8 instructions (VNNI, AMX)", means="int8 graphs may be slower than fp32 here",
            remedy="compare them: vitdeploy bench --controls",
        )  # fmt: skip
    if bf16:
        able = [f"{name}:bf16" for name, traits in runtimes.items() if traits.runs_graph and "bf16" in traits.run_precisions]
        means = f"--runtime {' or '.join(able)} is worth measuring" if able else "no runtime here is known to use them"
        yield Finding(found=f"BF16 instructions: {', '.join(bf16)}", means=means)
    else:
        yield Finding(found="no BF16 instructions", means="bf16 is computed in fp32 here, no faster")


def _packages(packages: Mapping[str, str]) -> Iterator[Finding]:
    if "onnxruntime" in packages and "onnxruntime-gpu" in packages:
        yield Finding(
            found="onnxruntime and onnxruntime-gpu are both installed", means="they overwrite each other's files; CUDA may be missing",
            remedy="pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu (or onnxruntime)",
        )  # fmt: skip


def _quantizers(packages: Mapping[str, str], runtimes: Mapping[str, Traits]) -> Iterator[Finding]:
    for name, traits in runtimes.items():
        installed = [package for package in traits.packages if package in packages]
        lacking = [package for package in traits.quantizer_packages if package not in packages]
        if installed and lacking:
            yield Finding(
                found=f"{installed[0]} without {' and '.join(lacking)}", means=f"int8 for {name} cannot be exported",
                remedy=f"pip install 'vitdeploy[{traits.extra}]'" if traits.extra else f"pip install {' '.join(lacking)}",
            )  # fmt: skip


def _providers(packages: Mapping[str, str], providers: Sequence[str], *, driver: bool) -> Iterator[Finding]:
    listed = [one for one in providers if one.startswith(("CUDA", "Tensorrt", "NvTensorRT"))]
    if listed and not driver:
        yield Finding(
            found=f"ONNX Runtime lists {', '.join(listed)}, but there is no NVIDIA driver", means="those providers cannot be loaded",
            remedy="install the driver, or use --provider cpu",
        )  # fmt: skip
    if driver and not listed and packages.keys() & {"onnxruntime", "onnxruntime-gpu"}:
        yield Finding(
            found="an NVIDIA driver, but an ONNX Runtime without CUDA", means="--provider cuda cannot run",
            remedy="pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        )  # fmt: skip


def _gpus(gpus: Sequence[Mapping[str, Any]], packages: Mapping[str, str]) -> Iterator[Finding]:
    for gpu in gpus:
        if int(str(gpu["capability"]).removeprefix("SM")) < FIRST_RTX and "tensorrt-rtx-cu13" in packages:
            yield Finding(
                found=f"{gpu['name']} is {gpu['capability']}", means=f"TensorRT for RTX needs SM{FIRST_RTX} or later",
                remedy="use --runtime ort --provider cuda",
            )  # fmt: skip
