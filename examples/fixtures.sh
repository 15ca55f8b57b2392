#!/bin/sh
# Makes every component the tests need: checks the committed ones against their digests, and builds the others, which
# are too large to commit, into .fixtures/<key of their sources>/. What is built already is kept.
# examples/fixtures.sh --reproduce also builds the committed ones anew and compares.
. "$(dirname "$0")/lib.sh"
case $#:${1:-} in
  0: | 1:--reproduce) ;;
  *) echo "usage: $0 [--reproduce]" >&2; exit 64 ;;
esac
# Two runs at once would install into the same folders.
exec 9> "$FIXTURES/.lock"
flock 9

committed() {
  find "$ROOT/examples" "$ROOT/tests/guests" -name '*.wasm.sha256' 2>/dev/null | sort
}

for digest in $(cd "$ROOT" && committed | sed "s|^$ROOT/||"); do
  (cd "$ROOT/$(dirname "$digest")" && sha256sum --quiet --check "$(basename "$digest")") ||
    { echo "$0: \`${digest%.sha256}\` is not what was committed: git checkout it, or run its build.sh" >&2; exit 65; }
done
"$HERE/hello-js/build.sh"
"$HERE/hello-py/build.sh"
"$ROOT/tests/signers/build.sh"
# What no run has wanted for a week was built from sources long changed.
find "$FIXTURES" -mindepth 2 -maxdepth 2 -name 'hello-*.wasm' -mtime +7 -delete

if [ "${1:-}" = --reproduce ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for name in whoami hello-c faults fetch; do
    "$HERE/$name/build.sh" "$work/$name.wasm"
    cmp "$work/$name.wasm" "$HERE/$name/$name.wasm"
  done
  mkdir "$work/guests"
  "$ROOT/tests/guests/build.sh" "$work/guests"
  for built in "$work"/guests/*.wasm; do cmp "$built" "$ROOT/tests/guests/$(basename "$built")"; done
fi
