#!/usr/bin/env bash
# Two commands' worth of vitdeploy: exports the demo ViT dense, with SVD and with the automatic choice of decompositions, benches
# the three, and writes artifacts/report.html.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/install.sh report openvino
vitdeploy=.venv/bin/vitdeploy

"$vitdeploy" export --method none --force
"$vitdeploy" export --method svd --target-macs 0.65 --force
"$vitdeploy" export --method auto --target-macs 0.5 --force
rm -f artifacts/demo.jsonl # this run's results only; `bench` appends
"$vitdeploy" bench artifacts/demo-none artifacts/demo-svd-0.65 artifacts/demo-auto-0.5 --runtime ort --runtime openvino -b 1,16 \
  --duration 2 --results-file artifacts/demo.jsonl
"$vitdeploy" report artifacts/demo.jsonl -o artifacts/report.html
