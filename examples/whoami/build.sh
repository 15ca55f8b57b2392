#!/bin/sh
# Builds whoami.wasm, beside this script unless another place is given: examples/whoami/build.sh [OUT]
. "$(dirname "$0")/../lib.sh"
built=$(rust_guest whoami)
publish "$built" "${1:-$HERE/whoami.wasm}"
