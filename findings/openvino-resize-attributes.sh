#!/usr/bin/env bash
# OpenVINO reads ONNX Resize without three of its attributes, and says nothing: another picture, or another shape.
#
# Guess: a Resize with antialias=1 and keep_aspect_ratio_policy (opset 18) is carried out, or refused as unsupported.
# Instead: the model loads and runs. antialias is ignored (equal to antialias=0 bit by bit) in linear and cubic mode,
#   exclude_outside is ignored, and keep_aspect_ratio_policy="not_smaller" is ignored too, so that the output has the
#   stretched shape. ONNX Runtime and onnx.reference agree with each other on all of them.
#   (openvino issue 35893 reports the cubic antialias.)
# Why it matters for a ViT: these attributes are the preprocessing, when it is put into the graph: "shorter side to 224,
#   bicubic, antialias" as Pillow and torchvision do it. The model sees aliased or squeezed images and loses accuracy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
cd "$work"
"$work/venv/bin/python" - <<'EOF_PY'
import sys

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "| onnxruntime", ort.__version__, "| openvino", ov.__version__)
IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 3, 60, 40)).astype(np.float32)


def answers(out_shape=(21, 17), **attributes):
    """Return the resized image by onnx.reference, ONNX Runtime and OpenVINO. The target is 21 x 17."""
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "", "size"], ["y"], axes=[2, 3], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, *out_shape])],
        [numpy_helper.from_array(np.array([21, 17], np.int64), "size")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    raw = model.SerializeToString()
    core = ov.Core()
    compiled = core.compile_model(core.read_model(raw), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return (
        ReferenceEvaluator(model).run(None, {"x": IMAGE})[0],
        ort.InferenceSession(raw, providers=["CPUExecutionProvider"]).run(None, {"x": IMAGE})[0],
        compiled({"x": IMAGE})[0],
    )


def expect(condition, text):
    if not condition:
        sys.exit("behaviour changed: " + text)


print("largest difference in grey levels of 255: ONNX Runtime to reference, OpenVINO to reference, OpenVINO to itself without")
for mode in ("linear", "cubic"):
    for name in ("antialias", "exclude_outside"):
        if (mode, name) == ("linear", "exclude_outside"):
            continue
        reference, runtime, vino = answers(mode=mode, **{name: 1})
        plain = answers(mode=mode)[2]
        a, b, c = (float(np.abs(x - y).max()) for x, y in ((runtime, reference), (vino, reference), (vino, plain)))
        print(f"  {mode:6} {name}=1: {a:.2g}, {b:.3g}, {c:g}")
        expect(a < 1e-2, "ONNX Runtime no longer agrees with onnx.reference")
        expect(b > 1 and c == 0, f"OpenVINO no longer ignores {name} in mode {mode}")
reference, runtime, vino = answers((26, 17), mode="linear", keep_aspect_ratio_policy="not_smaller")
print("  keep_aspect_ratio_policy=not_smaller, 60 x 40 to 21 x 17:", reference.shape, runtime.shape, vino.shape)
expect(reference.shape == runtime.shape == (1, 3, 26, 17), "the shape by ONNX Runtime or onnx.reference")
expect(vino.shape == (1, 3, 21, 17), "OpenVINO no longer ignores keep_aspect_ratio_policy")
print("as stated: OpenVINO ignores antialias, exclude_outside and keep_aspect_ratio_policy")
EOF_PY
