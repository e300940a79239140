#!/usr/bin/env bash
# Plugin execution providers of ONNX Runtime register without error where they can do nothing, and asking for one by name
# then runs on the CPU provider with a warning.
#
# Guess: register_execution_provider_library fails on a machine without a device for it, or lists the CPU: OpenVINO runs on
#   any x86. After registration the provider is in get_available_providers(), and providers=["..."] selects it.
# Instead: both calls succeed. WebGPU without an adapter lists no device. OpenVINO's lists none on an AMD processor, though
#   the openvino package (same engine) computes on it; a processor of Intel was not at hand. A registered provider is not in
#   get_available_providers(), and providers=[name] gives a session of CPUExecutionProvider, after a Python warning.
#   Selection works only by add_provider_for_devices, which refuses an empty list.
# Why it matters for a ViT: code written for the old packages (onnxruntime-openvino, onnxruntime-gpu) keeps running after
#   the move to plugins, and benches ONNX Runtime's CPU provider under another name. Read session.get_providers() back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 onnxruntime-ep-openvino==1.8.1 onnxruntime-ep-webgpu==0.4.0 openvino==2026.4.1
cd "$work"
"$work/venv/bin/python" - 2> errors.txt <<'EOF_PY' || { tail -n 20 errors.txt >&2; exit 1; }  # the plugins' own logs go there
import sys
import warnings
from importlib.metadata import version

import numpy as np
import onnxruntime as ort
import onnxruntime_ep_openvino
import onnxruntime_ep_webgpu
import openvino as ov
from onnx import TensorProto, helper

print("onnxruntime", ort.__version__, "| onnxruntime-ep-openvino", version("onnxruntime-ep-openvino"),
      "| onnxruntime-ep-webgpu", version("onnxruntime-ep-webgpu"), "| openvino", ov.__version__)
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
x = np.array([-1, 0, 1, 2], np.float32)
core = ov.Core()
answer = core.compile_model(core.read_model(raw), "CPU")({"x": x})[0]
vendor = next(d.device.vendor for d in ort.get_ep_devices() if d.ep_name == "CPUExecutionProvider")
print(f"  processor: {vendor}; the openvino package computes on it: {bool((answer == np.maximum(x, 0)).all())}")


def expect(condition, text):
    if not condition:
        sys.exit("behaviour changed: " + text)


for plugin in (onnxruntime_ep_openvino, onnxruntime_ep_webgpu):
    name = plugin.get_ep_name()
    ort.register_execution_provider_library(name, plugin.get_library_path())
    devices = [d for d in ort.get_ep_devices() if d.ep_name == name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        used = ort.InferenceSession(raw, providers=[name]).get_providers()
    print(f"  {name}: registered; devices {[str(d.device.type).split('.')[-1] for d in devices]}; "
          f"in get_available_providers(): {name in ort.get_available_providers()}; "
          f"providers=[name] runs on {used}, warnings: {len(caught)}")
    expect(name not in ort.get_available_providers(), f"{name} is in get_available_providers()")
    expect(used == ["CPUExecutionProvider"], f"providers=[name] selects {used}")
    if plugin is onnxruntime_ep_openvino and "intel" not in vendor.lower():
        expect(not devices, "OpenVINO's provider lists a device on another vendor's processor")
    if not devices:
        try:
            ort.SessionOptions().add_provider_for_devices(devices, {})
            expect(False, "an empty list of devices is accepted")
        except Exception as error:  # the type is private to the package's extension module
            print("    add_provider_for_devices([]):", " ".join(str(error).split())[-60:])
print("as stated")
EOF_PY
