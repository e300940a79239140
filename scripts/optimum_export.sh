#!/usr/bin/env bash
# Exports a transformers folder with optimum, in fp32, at its highest level for a CPU, and with its dynamic int8, for
# `compare_peers.py --optimum OUTPUT_FOLDER/*/*.onnx`:
#   ./scripts/optimum_export.sh MODEL_FOLDER OUTPUT_FOLDER [VENV]
# In a virtual environment of its own, since optimum-onnx pins an older transformers than vitdeploy's.
set -euo pipefail
[ $# -ge 2 ] || { echo "error: expected MODEL_FOLDER OUTPUT_FOLDER, got $# arguments" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
model=$1 output=$2 venv=${3:-$2/.venv}

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep '^torch' "$here/constraints.txt" > "$constraints" # the rest is optimum's own business
"$venv/bin/pip" install --quiet --disable-pip-version-check -c "$constraints" "optimum-onnx[onnxruntime]" pillow
"$venv/bin/optimum-cli" export onnx --task image-classification -m "$model" "$output/fp32"
"$venv/bin/optimum-cli" onnxruntime optimize -O3 --onnx_model "$output/fp32" -o "$output/O3"
"$venv/bin/optimum-cli" onnxruntime quantize --onnx_model "$output/fp32" --avx512_vnni -o "$output/int8-dynamic"
