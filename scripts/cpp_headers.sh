#!/usr/bin/env bash
# Unpacks the headers that the C++ example needs into DIR, from packages of Debian 13, and installs nothing. Any Debian machine can do it.
#   ./scripts/cpp_headers.sh DIR && CMAKE_PREFIX_PATH=DIR/usr .venv/bin/pytest tests/runtime/apps/test_targets.py
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
if [ -f "$folder/usr/include/onnxruntime/onnxruntime_cxx_api.h" ]; then
  exit 0
fi

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$') || {
  echo "error: expected apt to know a mirror of Debian, got none" >&2
  exit 3
}
apt=$(mktemp -d) # lists of its own: the machine's stay as they are
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$apt/sources.list"
options=(-q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$apt/lists"
  -o Dir::Cache="$apt" -o APT::Sandbox::User=)
apt-get "${options[@]}" update >&2
(cd "$apt" && apt-get "${options[@]}" download libonnxruntime-dev libstb-dev nlohmann-json3-dev >&2)
for package in "$apt"/*.deb; do
  dpkg-deb -x "$package" "$folder"
done
