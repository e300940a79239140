#!/usr/bin/env bash
# Installs what the tests need, then runs ruff, mypy and pytest. Further arguments go to pytest: ./scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/install.sh dev report openvino rtx cluster triton
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/pytest "$@"
