#!/bin/sh
# Builds the component with the componentize-py on the path, or with one in `.venv`, which is made if need be.
set -eu
cd "$(dirname "$0")"
if ! command -v componentize-py >/dev/null; then
    [ -x .venv/bin/componentize-py ] || { python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt; }
    PATH="$PWD/.venv/bin:$PATH"
fi
# The other world lets the plugin make requests.
world=$(PYTHONDONTWRITEBYTECODE=1 python3 -c 'from plugin import Transform
print("transformer-http" if any(need.capability == "http" for need in Transform.needs) else "transformer")')
componentize-py --quiet -d wit -w "$world" componentize plugin -o @FILE@.wasm
