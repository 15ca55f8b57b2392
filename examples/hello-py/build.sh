#!/bin/sh
# Builds hello-py.wasm under .fixtures/, unless another place is given: examples/hello-py/build.sh [OUT]
. "$(dirname "$0")/../lib.sh"
out=${1:-$FIXTURES/$(cd "$HERE" && key app.py hello.wit requirements.txt build.sh)/hello-py.wasm}
if [ $# -eq 0 ] && fresh "$out"; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wit "$work/wit"
cp "$HERE/hello.wit" "$work/wit/"
cp "$HERE/app.py" "$work/"
bin=$(venv "$HERE/requirements.txt")
(cd "$work" && "$bin/componentize-py" --wit-path wit --world hello componentize app --output hello.wasm) >&2
publish "$work/hello.wasm" "$out"
