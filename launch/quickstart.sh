#!/usr/bin/env bash
# Sets up a virtual environment in .venv and runs the main job. Again: runs it at once.
#   bash launch/quickstart.sh [--data DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh requirements.txt
exec .venv/bin/satmip quickstart "$@"
