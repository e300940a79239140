#!/usr/bin/env bash
# Makes .venv and installs vitdeploy with the extras named: ./scripts/install.sh [report] [openvino] [rtx] [gpu] [sources] [cluster] [triton] [dev]
# Does nothing where the same was installed before. Set PYTHON to choose the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."

extras=$(IFS=,; echo "$*")
venv=.venv
stamp="$venv/.installed-${extras//,/-}"
wanted=$(cat pyproject.toml constraints.txt | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: expected Python 3.11 or newer, got $("$python" --version)" >&2
  echo "hint:  set PYTHON=/path/to/python3.11" >&2
  exit 3
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

# With `gpu`, an empty package stands in for the CPU wheel of ONNX Runtime: see onnxruntime-gpu-shim/pyproject.toml.
shim=() constraints=constraints.txt
case ",$extras," in
  *,gpu,*)
    shim=(./scripts/onnxruntime-gpu-shim)
    constraints=$(mktemp) # the stand-in has a version of its own
    trap 'rm -f "$constraints"' EXIT
    grep -v '^onnxruntime==' constraints.txt > "$constraints"
    ;;
esac

echo "installing vitdeploy${extras:+ with $extras} into $venv (a few minutes the first time)" >&2
"$venv/bin/pip" install --quiet --disable-pip-version-check -c "$constraints" "${shim[@]}" -e ".${extras:+[$extras]}"
echo "$wanted" > "$stamp"
