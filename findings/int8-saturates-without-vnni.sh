#!/usr/bin/env bash
# The same int8 model, half the value: on x86 without VNNI, ONNX Runtime and OpenVINO saturate sums of two products.
#
# Guess: an int8 product is exact integer arithmetic, the same on every processor and in every engine; and signed int8
#   activations avoid the well-known trouble of uint8 by int8.
# Instead: without VNNI (AVX2 and early AVX-512) pairs of products are added in 16 bits with saturation. At the ends of the
#   ranges 64 becomes 32.4, in ONNX Runtime and in OpenVINO to the same digits, and for int8 activations too, since both
#   shift them to uint8 first. ONNX Runtime's session.x64quantprecision=1 is exact. With VNNI all are exact.
#   (Both projects know it: reduce_range in ONNX Runtime's quantiser, overflow_fix in NNCF, set when the file is made.
#   This was run without VNNI only; on a processor with VNNI the script expects exact sums.)
# Why it matters for a ViT: int8 is calibrated and judged on a server with VNNI and deployed on an older or smaller one; the
#   file and the engine are the same, and the accuracy is not. Outliers after GELU and softmax reach the range's end.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
cd "$work"
"$work/venv/bin/python" - <<'EOF_PY'
import platform
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
    sys.exit("this finding is about x86 under Linux")
flags = Path("/proc/cpuinfo").read_text().split()
vnni = any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))
print("onnx", onnx.__version__, "| onnxruntime", ort.__version__, "| openvino", ov.__version__, "| VNNI:", vnni)
WIDTH, OUT = 64, 8
x = np.ones((4, WIDTH), np.float32)


def model_of(kind):
    """Return x @ ones by 8-bit codes: activations at the top of their range, weights 127."""
    zero = 0 if kind is np.uint8 else -128
    constants = {
        "xs": np.float32(1 / 255),
        "xz": kind(zero),
        "w": np.full((WIDTH, OUT), 127, np.int8),
        "ws": np.float32(1 / 127),
        "wz": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, OUT])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def runtime(raw, precise=False):
    options = ort.SessionOptions()
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return float(ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0][0, 0])


def vino(raw):
    core = ov.Core()
    return float(core.compile_model(core.read_model(raw), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": x})[0][0, 0])


print(f"a sum of {WIDTH} ones")
for kind in (np.uint8, np.int8):
    raw = model_of(kind)
    plain, precise, other = runtime(raw), runtime(raw, True), vino(raw)
    print(f"  {kind.__name__:5} activations: ONNX Runtime {plain:.4f}, with x64quantprecision=1 {precise:.4f}, OpenVINO {other:.4f}")
    if abs(precise - WIDTH) > 0.1:
        sys.exit("behaviour changed: session.x64quantprecision=1 is not exact")
    if vnni and max(abs(plain - WIDTH), abs(other - WIDTH)) > 0.1:
        sys.exit("behaviour changed: not exact although the processor has VNNI")
    if not vnni and (abs(plain - WIDTH) < 10 or abs(other - WIDTH) < 10):
        sys.exit("behaviour changed: no longer saturates without VNNI")
print("as stated:", "exact, since this processor has VNNI" if vnni else "about half the sum is lost")
EOF_PY
