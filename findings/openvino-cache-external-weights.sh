#!/usr/bin/env bash
# OpenVINO's model cache answers with the old weights when only the external weights file has changed.
#
# Guess: with CACHE_DIR set, a model whose weights changed is compiled again. The cache is described as keyed by the model.
# Instead: compile_model("m.onnx") looks at the .onnx file alone. Weights saved as external data (a file beside it, as
#   every model above 2 GiB has to have) are no part of the key. Retrained weights of the same shapes give a
#   byte-identical .onnx, so a deployment that copies what differs (rsync, layers, git) renews the data file only; then
#   the blob of the first weights is loaded, and the answer is the first model's. No error, no warning.
#   compile_model(read_model("m.onnx")) hashes the weights too and is right.
# Why it matters for a ViT: a fine-tuned or newly decomposed checkpoint is put over the old one under the same name; the
#   service restarts, starts fast, and goes on answering as before.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 openvino==2026.4.1
cd "$work"
"$work/venv/bin/python" - <<'EOF_PY'
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__, "| openvino", ov.__version__)
X = np.random.default_rng(9).standard_normal((1, 64)).astype(np.float32)


def save(seed):
    """Deploy y = x @ W of one seed, the weights in a file of their own; return W and the .onnx file's bytes."""
    weights = np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    built = Path(f"build-{seed}")
    built.mkdir()
    os.chdir(built)
    onnx.save_model(model, "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    os.chdir("..")
    for file in built.iterdir():  # deploy: only files that differ are copied
        if not Path(file.name).exists() or Path(file.name).read_bytes() != file.read_bytes():
            shutil.copy(file, file.name)
    return weights, (built / "m.onnx").read_bytes()


def deviation(how, weights):
    """Compile in a new Core, as a restarted process would; return the largest deviation from x @ W and the cache's part."""
    core = ov.Core()
    config = {"CACHE_DIR": f"cache-{how}", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model("m.onnx" if how == "path" else core.read_model("m.onnx"), "CPU", config)
    return float(np.abs(compiled(X)[0] - X @ weights).max()), bool(compiled.get_property("LOADED_FROM_CACHE"))


seen = {}
files = []
for seed in (1, 2):
    weights, blob = save(seed)
    files.append(blob)
    for how in ("path", "model"):
        seen[how, seed] = deviation(how, weights)
        print(f"weights {seed}, compile_model({how}): deviation {seen[how, seed][0]:.2g}, from cache: {seen[how, seed][1]}")
print("the two .onnx files are the same bytes:", files[0] == files[1])
if not (seen["path", 1][0] < 1e-3 and seen["model", 1][0] < 1e-3 and seen["model", 2][0] < 1e-3):
    sys.exit("unexpected: a fresh compile is wrong")
if seen["path", 2][0] < 1 or not seen["path", 2][1]:
    sys.exit("behaviour changed: compile_model(path) no longer answers with the old external weights")
print("as stated: by path, the second model answers with the first one's weights")
EOF_PY
