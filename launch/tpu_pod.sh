#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice: the same command on each, JAX finds the others.
#   TPU=my-slice ZONE=us-east5-a [PROJECT=my-project] \
#     bash launch/tpu_pod.sh --config configs/fmow.py:satmips,s16 --workdir /share/runs/fmow \
#       --config.data.dir=/share/data/fmow
# Once per slice, on every host (gcloud compute tpus tpu-vm ssh ... --worker=all --command=...): a
# checkout in ~/satmip_jax with `pip install -e ".[tpu]"` in its .venv, and a folder that all hosts
# share: Filestore, or a bucket with hierarchical namespace mounted by gcsfuse.
# Ctrl-C only ends the watching, and `TPU=... ZONE=... bash launch/tpu_pod.sh stop` the training: it
# saves first. The same command again goes on from the newest checkpoint.
set -euo pipefail
: "${TPU:?name of the slice}" "${ZONE:?its zone}"
if [ "${1:-}" = stop ]; then
  remote="pkill -TERM -f '[s]atmip train'"
else
  # the log is a file, so that the training does not end with the connection that watches it
  remote="cd ~/satmip_jax && { nohup .venv/bin/satmip train$(printf ' %q' "$@")"
  remote+=' >train.log 2>&1 </dev/null & } && tail --pid=$! -n +1 -F train.log; wait $!'
fi
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
  --worker=all --command="$remote"
