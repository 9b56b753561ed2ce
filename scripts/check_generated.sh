#!/usr/bin/env bash
# Fails when the generated code that is checked in is not what the generators make of the sources.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/generate.sh "$fresh"
stale=0
while IFS= read -r file; do
  if ! diff -q "$fresh/$file" "$file" >/dev/null 2>&1; then
    echo "stale: $file"
    stale=1
  fi
done < <(cd "$fresh" && find client server docs -type f)
while IFS= read -r file; do
  if [ ! -e "$fresh/$file" ]; then
    echo "no longer generated: $file"
    stale=1
  fi
done < <(find client server -name '*_pb2*.py*' -not -path '*/__pycache__/*')
if [ $stale -ne 0 ]; then
  echo "Generated code is stale; run: make generate" >&2
  exit 1
fi
echo "Generated code is up to date."
