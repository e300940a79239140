#!/usr/bin/env bash
# torch exports the keys of an attention with two transposes and a detour through 3-D, and no optimiser removes either.
#
# Guess: keys go from (batch, tokens, heads, width) to (batch, heads, width, tokens) by one Transpose; if the exporter writes
#   two, onnxsim or ONNX Runtime at the highest level merge them.
# Instead: up to opset 22 the keys are transposed to heads, reshaped to 3-D by a shape that is computed at run time
#   (Shape, Slice, Concat: the batch is dynamic), transposed again, and reshaped back. A Reshape stands between the two
#   transposes, so nobody merges them: 5 transposes a block where 4 do, before and after onnxsim and ONNX Runtime. onnxsim
#   folds the shapes away, at two more Reshapes; ONNX Runtime keeps them.
#   From opset 23 on, one Attention node takes the place of all that.
# Why it matters for a ViT: on the CPU it costs about a percent; on a GPU the Shape nodes are what keeps a session from being
#   captured into a CUDA graph, and the pattern is not the one that attention fusions look for. Export at opset 23, or rewrite the keys.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 onnxsim==0.8.1
cd "$work"
"$work/venv/bin/python" - 2> errors.txt <<'EOF_PY' || { tail -n 20 errors.txt >&2; exit 1; }  # the exporter's own chatter goes there
import sys
import warnings

import onnx
import onnxruntime as ort
import onnxscript
import onnxsim
import torch

warnings.simplefilter("ignore")
ort.set_default_logger_severity(4)
print("torch", torch.__version__, "| onnxscript", onnxscript.__version__, "| onnx", onnx.__version__,
      "| onnxruntime", ort.__version__, "| onnxsim", onnxsim.__version__)
TOKENS, WIDTH, HEADS = 17, 48, 3


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).view(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(-1, TOKENS, WIDTH))


def export(opset):
    program = torch.onnx.export(
        Attention().eval(),
        (torch.zeros(2, TOKENS, WIDTH),),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    return program.model_proto


def optimised(model):
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimised.onnx"
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load("optimised.onnx")


def count(model, *ops):
    return sum(node.op_type in ops for node in model.graph.node)


def path_of_keys(model):
    """Return the operators from the product of queries and keys back to the product that makes the keys."""
    makers = {output: node for node in model.graph.node for output in node.output}
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    node = softmax
    while node.op_type not in ("MatMul", "FusedMatMul"):  # through sums and scalings to the product of queries and keys
        node = makers[node.input[0]]
    path, name = [node.op_type], node.input[1]
    while name in makers:
        node = makers[name]
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), "")
        path.append(f"{node.op_type}{perm}")
        if node.op_type in ("MatMul", "Gemm"):
            break
        name = next(entry for entry in node.input if entry in makers)
    return path


low, high = export(22), export(23)
simple, passed = onnxsim.simplify(low)
rows = {
    "opset 22": low,
    "opset 22, onnxsim": simple,
    "opset 22, ONNX Runtime": optimised(low),
    "opset 23": high,
    "opset 23, ONNX Runtime": optimised(high),
}
for name, model in rows.items():
    print(f"  {name:24} Transpose {count(model, 'Transpose')}, Reshape {count(model, 'Reshape')}, "
          f"Shape/Slice/Concat {count(model, 'Shape', 'Slice', 'Concat')}, Attention {count(model, 'Attention')}")
path = path_of_keys(rows["opset 22, ONNX Runtime"])
print("  the keys in ONNX Runtime's graph, backwards:", " <- ".join(path))
for name in ("opset 22", "opset 22, onnxsim", "opset 22, ONNX Runtime"):
    if count(rows[name], "Transpose") != 5:
        sys.exit(f"behaviour changed: {name} no longer has 5 transposes")
if not passed or min(count(rows[name], "Shape") for name in ("opset 22", "opset 22, ONNX Runtime")) < 1:
    sys.exit("behaviour changed: no shape is computed at run time any more")
if sum(step.startswith("Transpose") for step in path) != 2:
    sys.exit("behaviour changed: the keys are no longer transposed twice")
if count(high, "Attention") != 1 or count(high, "Transpose") != 4 or count(high, "Shape") != 0:
    sys.exit("behaviour changed: opset 23 is no longer one Attention node and four transposes")
print("as stated: two transposes of the keys survive every optimiser below opset 23")
EOF_PY
