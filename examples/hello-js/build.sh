#!/bin/sh
# Builds hello-js.wasm under .fixtures/, unless another place is given: examples/hello-js/build.sh [OUT]
# StarlingMonkey exports wasi:http/incoming-handler by the number 0.2.10 and accepts no other; the host takes any 0.2.
. "$(dirname "$0")/../lib.sh"
out=${1:-$FIXTURES/$(cd "$HERE" && key hello.js hello.wit package-lock.json build.sh)/hello-js.wasm}
if [ $# -eq 0 ] && fresh "$out"; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wit "$work/wit" 0.2.10
cp "$HERE/hello.wit" "$work/wit/"
cp "$HERE/hello.js" "$work/"
modules=$(node_modules)
(cd "$work" && node "$modules/@bytecodealliance/componentize-js/src/cli.js" hello.js \
  --wit wit --world-name hello --out hello.wasm) >&2
publish "$work/hello.wasm" "$out"
