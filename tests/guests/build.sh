#!/bin/sh
# Builds the hostile components of this folder, beside this script unless another folder is given: build.sh [FOLDER]
. "$(dirname "$0")/../../examples/lib.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for source in "$HERE"/*.c; do
  name=$(basename "$source" .c)
  world=$HERE/$name.wit
  [ -e "$world" ] || world=$HERE/handler.wit
  case $name in
    huge-memory) c_guest "$source" "$world" "$work/$name.wasm" --initial-memory=4294901760 ;;
    *) c_guest "$source" "$world" "$work/$name.wasm" ;;
  esac
  publish "$work/$name.wasm" "${1:-$HERE}/$name.wasm"
done
built=$(HERE=$HERE/hostile && rust_guest hostile)
publish "$built" "${1:-$HERE}/hostile.wasm"
