#!/bin/sh
# Builds the component with the componentize-py on the path, or with one in `.venv`, which is made if need be.
set -eu
cd "$(dirname "$0")"
if ! command -v componentize-py >/dev/null; then
    [ -x .venv/bin/componentize-py ] || { python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt; }
    PATH="$PWD/.venv/bin:$PATH"
fi
componentize-py --quiet -d wit -w transformer componentize plugin -o @FILE@.wasm
