#!/usr/bin/env bash
# Runs the tests with the newest release of every dependency and says what changed against constraints.txt:
#   ./scripts/newest.sh            further arguments go to pytest
# torch and torchvision stay pinned: they come in one build per machine. Uses a virtual environment of its own, .venv-newest.
set -uo pipefail
cd "$(dirname "$0")/.."
venv=.venv-newest
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -E '^(torch|torchvision)==' constraints.txt > "$pins"

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv" || exit 3
echo "installing the newest of everything into $venv" >&2
"$venv/bin/pip" install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -c "$pins" \
  -e '.[dev,report,openvino,rtx,cluster,triton]' || { echo "error: the newest releases do not install together" >&2; exit 1; }

echo "newer than constraints.txt:"
"$venv/bin/python" - constraints.txt <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

moved = 0
for line in open(sys.argv[1], encoding="utf-8"):
    name, pinned, tested = line.partition("#")[0].strip().partition("==")
    if not pinned:
        continue
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "not installed"
    if found.partition("+")[0] != tested:
        moved += 1
        print(f"  {name}: tested {tested}, newest {found}")
print(f"  {moved} of them" if moved else "  nothing")
PYTHON

broken=0
for check in "ruff check ." "mypy" "pytest $*"; do
  echo "== $check" >&2
  # shellcheck disable=SC2086  # the words of the command
  "$venv/bin/"$check || { echo "breaks with the newest: $check"; broken=1; }
done
exit $broken
