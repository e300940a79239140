#!/usr/bin/env bash
# ONNX Runtime refuses to load a valid int8 linear layer of opset 21 or later; with optimisation off it loads and is right.
#
# Guess: an int8 model in the standard's QuantizeLinear and DequantizeLinear loads at any opset from 13 to 26, as the
#   operators are unchanged but for an attribute output_dtype (opset 21) that may say what the zero point says already.
# Instead: on x86 the session turns int8 activations into uint8. It rewrites the zero point and not output_dtype, and its own
#   type check then fails: "output_dtype INT8 does not match y_zero_point type UINT8". It happens to every model that has
#   the attribute; and to models without it too, if the layer has a bias, its input is (batch, tokens, width) and the shape
#   is static: there ONNX Runtime's own fusion (MatMul and Add to Gemm) writes the attribute first. Opset 20 is fine,
#   and so are level "basic" and the session entry session.qdqisint8allowed=1. (onnxruntime issue 25526 has the attribute's case.)
# Why it matters for a ViT: every linear of every block is that layer. NVIDIA Model Optimizer 0.47 on a ViT of opset 23
#   wrote such a file. Symmetric int8 at opset 21 and later, as TensorRT wants it, is not portable to ONNX Runtime's default.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
"$work/venv/bin/python" - <<'EOF_PY'
import platform
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ort.set_default_logger_severity(4)
print("onnx", onnx.__version__, "| onnxruntime", ort.__version__, "|", platform.machine())
if platform.machine() not in ("x86_64", "AMD64"):
    sys.exit("this finding is about x86")
rng = np.random.default_rng(0)
WIDTH = 16
x = rng.standard_normal((2, 5, WIDTH)).astype(np.float32)
constants = {
    "xs": np.float32(0.03),
    "ws": np.float32(0.01),
    "zero": np.int8(0),
    "w": rng.integers(-60, 61, (WIDTH, WIDTH)).astype(np.int8),
    "b": rng.standard_normal(WIDTH).astype(np.float32),
}


def linear(opset, attribute, bias, batch=2):
    extra = {"output_dtype": TensorProto.INT8} if attribute else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "zero"], ["xq"], **extra),
        helper.make_node("DequantizeLinear", ["xq", "xs", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "zero"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["product" if bias else "y"]),
    ] + ([helper.make_node("Add", ["product", "b"], ["y"])] if bias else [])
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5, WIDTH])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if bias or n != "b"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def outcome(model, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, entries=()):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    for name, value in entries:
        options.add_session_config_entry(name, value)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the type is private to the package's extension module
        return "refused: " + " ".join(str(error).split())[-100:]
    gap = float(np.abs(session.run(None, {"x": x})[0] - ReferenceEvaluator(model).run(None, {"x": x})[0]).max())
    return "right" if gap < 1e-4 else f"wrong by {gap:.2g}"


Level = ort.GraphOptimizationLevel
plain = linear(21, False, True)
cases = [
    ("opset 20, with bias", outcome(linear(20, False, True)), False),
    ("opset 21, with bias", outcome(plain), True),
    ("opset 23, with bias", outcome(linear(23, False, True)), True),
    ("opset 21, with bias, dynamic batch", outcome(linear(21, False, True, "batch")), None),
    ("opset 21, no bias", outcome(linear(21, False, False)), False),
    ("opset 21, no bias, output_dtype=INT8", outcome(linear(21, True, False)), True),
    ("opset 21, with bias, level basic", outcome(plain, Level.ORT_ENABLE_BASIC), False),
    ("opset 21, with bias, qdqisint8allowed=1", outcome(plain, entries=[("session.qdqisint8allowed", "1")]), False),
]
for name, said, _ in cases:
    print(f"  {name:40} {said}")
for name, said, refused in cases:
    if refused is True and "output_dtype INT8 does not match" not in said:
        sys.exit(f"behaviour changed: {name} is no longer refused")
    if refused is False and said != "right":
        sys.exit(f"behaviour changed: {name} is no longer right")
print("as stated: valid int8 linears of opset 21 and later are refused by the default session")
EOF_PY
