#!/usr/bin/env bash
# The demonstration from nothing: makes what is missing, then everything else is `cellloop demo` (see its --help).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

make_environments
exec .venv/bin/cellloop demo "$@"
