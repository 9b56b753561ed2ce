#!/usr/bin/env bash
# Generates the Python code and the reference of protos/, and the synchronous client.
# Usage: scripts/generate.sh [OUTPUT_ROOT]
#
# The tools are pinned and live in an environment of their own, because generated code must run with older protobuf
# libraries than the newest tools need: grpcio-tools 1.76.0 emits gencode 6.31.1, which protobuf 6.31.1 to 7 accept.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
tools=.tools
if [ ! -x "$tools/bin/protoc-gen-mypy" ]; then
  "${PYTHON:-python3}" -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check \
    grpcio-tools==1.76.0 mypy-protobuf==3.6.0 'protobuf==6.31.1' 'setuptools<81' unasync==0.6.0 ruff==0.14.0
fi
export PATH="$PWD/$tools/bin:$PATH"
mkdir -p "$out/client" "$out/server"
"$tools/bin/python" -m grpc_tools.protoc -I protos \
  --python_out="$out/client" --mypy_out="quiet:$out/client" \
  --grpc_python_out="$out/client" --mypy_grpc_out="quiet:$out/client" \
  protos/modelhost/v1/*.proto
"$tools/bin/python" -m grpc_tools.protoc -I protos \
  --python_out="$out/server" --mypy_out="quiet:$out/server" \
  protos/modelhost_server/compat/*.proto
descriptors=$(mktemp)
trap 'rm -f "$descriptors"' EXIT
"$tools/bin/python" -m grpc_tools.protoc -I protos \
  --include_source_info --descriptor_set_out="$descriptors" protos/modelhost/v1/*.proto
"$tools/bin/python" scripts/generate_docs.py "$descriptors" "$out/docs/api.md"
# Files without a service yield empty stubs.
for stub in "$out"/client/modelhost/v1/*_pb2_grpc.py; do
  if ! grep -q '^class .*Stub' "$stub"; then rm -f "$stub" "${stub}i"; fi
done
if [ -f client/modelhost/_async.py ]; then "$tools/bin/python" scripts/generate_sync.py "$out"; fi
