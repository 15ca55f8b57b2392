#!/bin/sh
# Makes `sign`, which signs requests with botocore, under .fixtures/ (see sign.py).
. "$(dirname "$0")/../../examples/lib.sh"
out=$FIXTURES/$(cd "$HERE" && key sign.py requirements.txt build.sh)/sign
if fresh "$out"; then exit 0; fi
bin=$(venv "$HERE/requirements.txt")
mkdir -p "$(dirname "$out")"
cp "$HERE/sign.py" "$(dirname "$out")/sign.py"
printf '#!/bin/sh\nexec "%s/python" "%s/sign.py" "$@"\n' "$bin" "$(dirname "$out")" > "$out.new"
chmod +x "$out.new"
mv "$out.new" "$out"
echo "made $out"
