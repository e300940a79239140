#!/usr/bin/env bash
# A classifier quantised by NNCF answers wrongly in OpenVINO once the batch is fixed, and rightly while it is dynamic.
#
# Guess: fixing a dynamic batch to the size in use changes speed, not answers; everybody recommends it.
# Instead: for the head of DINOv2 (class token and mean of the patches, concatenated) OpenVINO's CPU code generator joins
#   Concat, SmoothQuant's Mul and the quantisation into one Subgraph for the static shape, and the logits are 20 % and more
#   off, with other top-1 answers. SNIPPETS_MODE=DISABLE is right, and so are the dynamic batch and ONNX Runtime.
# Why it matters for a ViT: NNCF quantises the head unless told otherwise, calibration runs with the dynamic model, and the
#   deployed static one is another model. Leave the head in float, or compare both shapes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 nncf==3.4.0
cd "$work"
"$work/venv/bin/python" - <<'EOF_PY'
import logging
import sys

import nncf
import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

nncf.set_log_level(logging.ERROR)
print("nncf", nncf.__version__, "| openvino", ov.__version__, "| onnxruntime", ort.__version__)
TOKENS, WIDTH, CLASSES, BATCH = 17, 384, 1000, 4
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


constants = {
    "gamma": (normal(WIDTH) * 0.2 + 1) * np.exp(normal(WIDTH) * 0.5),
    "beta": normal(WIDTH) * 0.1,
    "first": np.array(0),
    "one": np.array([1]),
    "end": np.array([TOKENS]),
    "W": normal(2 * WIDTH, CLASSES) / np.float32(np.sqrt(2 * WIDTH)),
    "bias": normal(CLASSES) * 0.1,
}
nodes = [
    helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], epsilon=1e-6),
    helper.make_node("Gather", ["n", "first"], ["cls"], axis=1),
    helper.make_node("Slice", ["n", "one", "end", "one"], ["patches"]),
    helper.make_node("ReduceMean", ["patches", "one"], ["mean"], keepdims=0),
    helper.make_node("Concat", ["cls", "mean"], ["features"], axis=1),
    helper.make_node("MatMul", ["features", "W"], ["product"]),
    helper.make_node("Add", ["product", "bias"], ["y"]),
]
graph = helper.make_graph(
    nodes,
    "head",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, WIDTH])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
    [numpy_helper.from_array(value, name) for name, value in constants.items()],
)
dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
onnx.checker.check_model(dense, full_check=True)

samples = [normal(1, TOKENS, WIDTH) * np.exp(normal(WIDTH) * 0.7) for _ in range(32)]
int8 = nncf.quantize(
    dense,
    nncf.Dataset([{"x": sample} for sample in samples]),
    preset=nncf.QuantizationPreset.MIXED,
    model_type=nncf.ModelType.TRANSFORMER,
    subset_size=len(samples),
)
x = np.concatenate(samples[:BATCH])


def in_runtime(model):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def in_openvino(static, snippets=True):
    core = ov.Core()
    model = core.read_model(int8.SerializeToString())
    if static:
        model.reshape([BATCH, TOKENS, WIDTH])
    config = {"INFERENCE_PRECISION_HINT": "f32"} | ({} if snippets else {"SNIPPETS_MODE": "DISABLE"})
    return core.compile_model(model, "CPU", config)({"x": x})[0]


truth = in_runtime(dense)
rows = {
    "ONNX Runtime": in_runtime(int8),
    "OpenVINO, dynamic batch": in_openvino(False),
    "OpenVINO, static": in_openvino(True),
    "OpenVINO, static, SNIPPETS_MODE=DISABLE": in_openvino(True, snippets=False),
}
errors = {}
for name, logits in rows.items():
    errors[name] = float(np.linalg.norm(logits - truth) / np.linalg.norm(truth))
    same = int((logits.argmax(1) == truth.argmax(1)).sum())
    print(f"  int8 in {name:40} error of the logits {errors[name]:.3f}, top-1 as fp32 {same} of {BATCH}")
wrong = errors.pop("OpenVINO, static")
if max(errors.values()) > 0.06:
    sys.exit("unexpected: int8 is bad outside the static shape too")
if wrong < 0.15:
    sys.exit("behaviour changed: the static shape answers as the dynamic one does")
print("as stated: the same int8 file is right with a dynamic batch and wrong with a static one")
EOF_PY
