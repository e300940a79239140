#!/usr/bin/env bash
# One command for a CUDA machine: ./scripts/gpu_suite.sh --name NAME writes results/gpu-NAME.json. See docs/gpu.md.
# Uses .venv, or the interpreter that PYTHON names.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
command -v "$python" > /dev/null || { echo "error: no $python; run ./scripts/install.sh gpu, or set PYTHON" >&2; exit 3; }
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$here/scripts/gpu_suite.py" "$@"
