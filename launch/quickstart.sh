#!/usr/bin/env bash
# Sets up a virtual environment in .venv and runs the main job. Again: runs it at once.
#   bash launch/quickstart.sh [--data DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh requirements.txt
# Large pages for the allocator: a CPU run is a fifth faster (glibc only; ignored elsewhere).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec .venv/bin/satmip quickstart "$@"
