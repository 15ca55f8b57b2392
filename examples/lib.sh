# Shared by the build scripts of the guests, which source it. Owns where tools and outputs live: all goes under
# .fixtures/ of the repository, or the folder COFFERDAM_FIXTURES names, and Cargo's target folder; never elsewhere.
set -eu
umask 022
export LC_ALL=C
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$HERE
until [ -e "$ROOT/rust-toolchain.toml" ]; do ROOT=$(dirname "$ROOT"); done
FIXTURES=${COFFERDAM_FIXTURES:-$ROOT/.fixtures}
TOOLS=$FIXTURES/tools
mkdir -p "$TOOLS"

# need COMMAND HINT: stops with what is missing and how to get it.
need() {
  command -v "$1" >/dev/null 2>&1 || { echo "$0: \`$1\` is missing: $2" >&2; exit 69; }
}

# key FILE...: 16 digits that change with the content of any of the files, or of this one.
key() {
  cat "$@" "$ROOT/examples/lib.sh" "$ROOT/examples/whoami/Cargo.lock" | sha256sum | cut -c1-16
}

# fresh OUT: whether it is there already. Its time is renewed, because the tests take the newest.
fresh() {
  if [ -e "$1" ]; then touch "$1" && echo "have $1"; else return 1; fi
}

# venv REQUIREMENTS: a Python environment with exactly what the file pins by digest; prints its bin folder.
venv() {
  need python3 "apt-get install python3 python3-venv"
  at=$TOOLS/python-$(sha256sum "$1" | cut -c1-16)
  if [ ! -e "$at/.complete" ]; then
    rm -rf "$at"
    python3 -m venv "$at" >&2 || { echo "$0: no venv: apt-get install python3-venv" >&2; exit 69; }
    "$at/bin/python" -m pip install --quiet --no-deps --require-hashes -r "$1" >&2
    touch "$at/.complete"
  fi
  echo "$at/bin"
}

# node_modules: the packages package-lock.json pins by digest; prints the folder. No package's own scripts are run.
# Not `npm ci`: it refuses a lock that does not list the optional binaries of every other platform.
node_modules() {
  need node "apt-get install nodejs npm, or nodejs.org (version 20 or later)"
  need npm "apt-get install npm, or nodejs.org"
  at=$TOOLS/node-$(sha256sum "$HERE/package-lock.json" | cut -c1-16)
  if [ ! -e "$at/.complete" ]; then
    rm -rf "$at"
    mkdir -p "$at"
    cp "$HERE/package.json" "$HERE/package-lock.json" "$at/"
    npm install --prefix "$at" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    touch "$at/.complete"
  fi
  echo "$at/node_modules"
}

# wit DIR [VERSION]: the interfaces of WASI 0.2.12, as published in the crate that whoami pins. With a version they are
# relabelled, for an engine that knows the same interfaces by an older number.
wit() {
  need cargo "https://rustup.rs"
  published=$(cd "$ROOT/examples/whoami" && cargo metadata --locked --format-version 1 | tr ',' '\n' |
    sed -n 's|.*"manifest_path":"\(.*/wasip2-2[^/]*\)/Cargo.toml".*|\1|p' | head -n 1)
  [ -d "$published/wit/deps" ] || { echo "$0: no WIT in the crate wasip2 at \`$published\`" >&2; exit 70; }
  mkdir -p "$1/deps"
  cp "$published"/wit/deps/*.wit "$1/deps/"
  chmod -R u+w "$1/deps"
  if [ $# -gt 1 ]; then sed -i "s/0\.2\.12/$2/g" "$1"/deps/*.wit; fi
}

# rust_guest NAME: builds the crate here for wasm32-wasip2 and prints the component. Paths of the machine stay out.
rust_guest() {
  need cargo "https://rustup.rs"
  need rustup "https://rustup.rs"
  (cd "$HERE" && rustup target list --installed) | grep -qx wasm32-wasip2 ||
    { echo "$0: the target is missing: (cd ${HERE#"$ROOT"/} && rustup target add wasm32-wasip2)" >&2; exit 69; }
  target=${CARGO_TARGET_DIR:-$ROOT/target/guests}
  remap="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo$(printf '\037')--remap-path-prefix=$ROOT=/cofferdam"
  (cd "$HERE" && CARGO_ENCODED_RUSTFLAGS=$remap \
    cargo build --quiet --locked --release --target wasm32-wasip2 --target-dir "$target" >&2)
  echo "$target/wasm32-wasip2/release/$1.wasm"
}

# c_guest SOURCE WIT OUT [FLAG...]: compiles one C file without libc and links it into a component of the world in WIT.
# The compiler is zig's, from PyPI; the linker is the one Rust brings for wasm32-wasip2.
c_guest() {
  need rustc "https://rustup.rs"
  source=$1 world=$2 component=$3
  shift 3
  linkers=$(echo "$(cd "$ROOT" && rustc --print sysroot)"/lib/rustlib/*/bin)
  [ -x "$linkers/wasm-component-ld" ] ||
    { echo "$0: no wasm-component-ld: rustup target add wasm32-wasip2" >&2; exit 69; }
  bin=$(venv "$ROOT/examples/hello-c/requirements.txt")
  build=$(mktemp -d)
  wit "$build/wit"
  cp "$world" "$build/wit/"
  ZIG_GLOBAL_CACHE_DIR="$TOOLS/zig-cache" ZIG_LOCAL_CACHE_DIR="$build/zig-cache" \
    "$bin/python" -m ziglang cc -target wasm32-freestanding -Oz -Wall -Wextra -c "$source" -o "$build/guest.o"
  PATH=$linkers/gcc-ld:$PATH "$linkers/wasm-component-ld" --component-type "$build/wit" \
    --no-entry --strip-all -z stack-size=16384 "$@" -o "$component" "$build/guest.o"
  rm -rf "$build"
}

# publish BUILT OUT: puts a built component in place at once; one that is committed gets its digest beside it.
publish() {
  mkdir -p "$(dirname "$2")"
  cp "$1" "$2.new.$$"
  chmod 0644 "$2.new.$$"
  mv "$2.new.$$" "$2"
  case $2 in
    "$ROOT"/examples/* | "$ROOT"/tests/*)
      (cd "$(dirname "$2")" && sha256sum "$(basename "$2")" > "$(basename "$2").sha256")
      ;;
  esac
  echo "built $2 ($(wc -c < "$2") bytes)"
}
