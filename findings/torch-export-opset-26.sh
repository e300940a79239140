#!/usr/bin/env bash
# torch.onnx.export asked for opset 26 returns a file that says opset 18 and holds an Attention, which opset 18 has not.
#
# Guess: an opset that the exporter cannot reach is refused, or the file is written at the nearest one that it can.
# Instead: from 23 on scaled_dot_product_attention becomes one Attention node. Up to 25 the file has the opset asked for. At
#   26 the last conversion fails inside ("No Adapter ... for Attention"); that is logged, the call returns as if all were
#   well, and the file keeps the exporter's inner opset 18 around a node that came with 23. onnx.checker and ONNX Runtime
#   both reject it. Without attention in the model, 26 is fine.
# Why it matters for a ViT: "the newest opset" is a natural choice; export succeeds, and it fails on the target. And a tool
#   that trusts the file's opset (version converters, simplifiers) is misled. Read opset_import back after every export.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2
cd "$work"
"$work/venv/bin/python" - 2> errors.txt <<'EOF_PY' || { tail -n 20 errors.txt >&2; exit 1; }  # the exporter's own chatter goes there
import logging
import sys
import warnings

import onnx
import onnxruntime as ort
import onnxscript
import torch

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
ort.set_default_logger_severity(4)
print("torch", torch.__version__, "| onnxscript", onnxscript.__version__, "| onnx", onnx.__version__, "| onnxruntime", ort.__version__)


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.Linear(48, 3 * 48)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(2, 17, 3, 3, 16).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return mixed.transpose(1, 2).reshape(2, 17, 48)


def outcome(module, opset):
    """Export; return the file's opset, whether it holds an Attention, and what checker and runtime say."""
    program = torch.onnx.export(module.eval(), (torch.zeros(2, 17, 48),), dynamo=True, opset_version=opset, verbose=False)
    model = program.model_proto
    said = []
    for name, action in (
        ("checker", lambda: onnx.checker.check_model(model)),
        ("ONNX Runtime", lambda: ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])),
    ):
        try:
            action()
            said.append(f"{name} accepts")
        except Exception as error:  # both raise types of their own extension modules
            said.append(f"{name} rejects ({' '.join(str(error).split())[:90]})")
    version = next(entry.version for entry in model.opset_import if entry.domain == "")
    return version, any(node.op_type == "Attention" for node in model.graph.node), said


seen = {}
for name, module, opset in (("attention", Attention(), 22), ("attention", Attention(), 23), ("attention", Attention(), 25),
                            ("attention", Attention(), 26), ("linear", torch.nn.Linear(48, 48), 26)):
    seen[name, opset] = version, fused, said = outcome(module, opset)
    print(f"  {name}, asked for {opset}: file says {version}, Attention node: {fused}; {'; '.join(said)}")
for key in (("attention", 22), ("attention", 23), ("attention", 25), ("linear", 26)):
    if seen[key][0] != key[1] or any("rejects" in text for text in seen[key][2]):
        sys.exit(f"unexpected: {key} does not export to a valid file of that opset")
version, fused, said = seen["attention", 26]
if not (version == 18 and fused and all("rejects" in text for text in said)):
    sys.exit("behaviour changed: asked for opset 26, the exporter no longer writes an invalid file of opset 18")
print("as stated: asked for opset 26, the export succeeds with an invalid file of opset 18")
EOF_PY
