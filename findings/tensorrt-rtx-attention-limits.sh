#!/usr/bin/env bash
# TensorRT for RTX: which opset-23 Attention it compiles; one head at batch 1 is refused in 4-D and accepted in 3-D form.
#
# Guess: Attention in fp16 compiles for every head count, and the 3-D form is the same thing as the 4-D form with a reshape.
# Instead: batch x heads of 1 is refused ("not supported by a dedicated kernel") in the 4-D form, whatever width, mask or
#   capability; with batch 2, two heads, or written in the 3-D form, it compiles. fp32 and widths above 256 are refused
#   likewise; softcap and values narrower than keys are refused by the parser already. Widths 20, 36 and 44
#   compile for SM89, into engines three times as large as 24, 40 and 48 do. No GPU is needed to see any of this.
# Why it matters for a ViT: attention pooling, a head pruned down to one, and blocks with narrower values than keys are
#   what decomposition and pruning make. The first two have the 3-D form as a way out, the last must stay matrix products;
#   and head widths are best cut to multiples of 8.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 tensorrt-rtx-cu13==1.7.1.116
cd "$work"
"$work/venv/bin/python" - 2> errors.txt <<'EOF_PY' || { grep -v "^Internal Error" errors.txt >&2; exit 1; }  # as the library prints each refusal too
import sys

import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "| tensorrt_rtx", trt.__version__)
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


class Quiet(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors = []

    def log(self, severity, message):
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)


def outcome(q=(1, 6, 197, 64), v=None, kind=HALF, capability="SM89", **attributes):
    """Return the engine's size in bytes, or who refused and why."""
    v = v or q
    shapes = {"q": q, "k": q, "v": v}
    graph = helper.make_graph(
        [helper.make_node("Attention", list(shapes), ["y"], **attributes)],
        "attention",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", kind, (*q[:-1], v[-1]))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    logger = Quiet()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        text = " ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        known = ("Key and Value must have the same shape", "softcap is not supported")
        return "parser: " + next((phrase for phrase in known if phrase in text), " ".join(text.split())[:110])
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    engine = builder.build_serialized_network(network, config)
    if engine is not None:
        return int(engine.nbytes)
    known = "not supported by a dedicated kernel"
    return "builder: " + (known if any(known in text for text in logger.errors) else " ".join(logger.errors)[:110])


FINE, BUILDER, PARSER = "compiles", "builder:", "parser:"
seen = {}
for name, expected, options in (
    ("6 heads of 64", FINE, {}),
    ("1 head, batch 1", BUILDER, {"q": (1, 1, 197, 64)}),
    ("1 head, batch 1, SM120", BUILDER, {"q": (1, 1, 197, 64), "capability": "SM120"}),
    ("1 head, batch 1, SM75", BUILDER, {"q": (1, 1, 197, 64), "capability": "SM75"}),
    ("1 head of 32, batch 1", BUILDER, {"q": (1, 1, 197, 32)}),
    ("1 head, batch 2", FINE, {"q": (2, 1, 197, 64)}),
    ("2 heads, batch 1", FINE, {"q": (1, 2, 197, 64)}),
    ("1 head, batch 1, 3-D form", FINE, {"q": (1, 197, 64), "q_num_heads": 1, "kv_num_heads": 1}),
    ("fp32", BUILDER, {"kind": FLOAT}),
    ("width 256", FINE, {"q": (1, 6, 197, 256)}),
    ("width 264", BUILDER, {"q": (1, 6, 197, 264)}),
    ("values of 48, keys of 64", PARSER, {"v": (1, 6, 197, 48)}),
    ("softcap", PARSER, {"softcap": 30.0}),
    ("width 24", FINE, {"q": (1, 6, 197, 24)}),
    ("width 40", FINE, {"q": (1, 6, 197, 40)}),
    ("width 48", FINE, {"q": (1, 6, 197, 48)}),
    ("width 20", FINE, {"q": (1, 6, 197, 20)}),
    ("width 36", FINE, {"q": (1, 6, 197, 36)}),
    ("width 44", FINE, {"q": (1, 6, 197, 44)}),
):
    seen[name] = found = outcome(**options)
    print(f"  {name:28} {f'compiles, {found} bytes' if isinstance(found, int) else found}")
    if isinstance(found, int) != (expected is FINE) or (expected is not FINE and not found.startswith(expected)):
        sys.exit(f"behaviour changed: {name}: expected {expected}")
if min(seen[f"width {n}"] for n in (20, 36, 44)) < 2 * max(seen[f"width {n}"] for n in (24, 40, 48)):
    sys.exit("behaviour changed: widths that are no multiple of 8 no longer make larger engines")
print("as stated")
EOF_PY
