#!/bin/sh
# Builds faults.wasm, beside this script unless another place is given: examples/faults/build.sh [OUT]
. "$(dirname "$0")/../lib.sh"
built=$(rust_guest faults)
publish "$built" "${1:-$HERE/faults.wasm}"
