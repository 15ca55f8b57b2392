#!/bin/sh
# Builds hello-c.wasm, beside this script unless another place is given: examples/hello-c/build.sh [OUT]
. "$(dirname "$0")/../lib.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
c_guest "$HERE/hello.c" "$HERE/hello.wit" "$work/hello.wasm"
publish "$work/hello.wasm" "${1:-$HERE/hello-c.wasm}"
