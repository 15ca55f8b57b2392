#!/bin/sh
# Builds fetch.wasm, beside this script unless another place is given: examples/fetch/build.sh [OUT]
. "$(dirname "$0")/../lib.sh"
built=$(rust_guest fetch)
publish "$built" "${1:-$HERE/fetch.wasm}"
