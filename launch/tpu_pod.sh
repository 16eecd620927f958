#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice: the same command on each; JAX finds the other hosts.
#   TPU=my-slice ZONE=us-east5-a [PROJECT=my-project] \
#     bash launch/tpu_pod.sh --config configs/fmow.py:satmips,s16 \
#       --workdir gs://my-bucket/runs/fmow --config.data.dir=gs://my-bucket/data/fmow
# Once per slice, set up every host (gcloud compute tpus tpu-vm ssh ... --worker=all --command=...):
# a checkout in ~/satmip_jax with `pip install -e ".[tpu,gcs]"` in its .venv. The service account of
# the slice must be able to read and write the bucket.
# Ctrl-C ends only the display of the log. `TPU=... ZONE=... bash launch/tpu_pod.sh stop` ends the
# training, which saves first. The same command again resumes from the newest checkpoint.
# WANDB=PROJECT sends metrics to Weights & Biases, too: install the extra wandb as well, and log in
# once on host 0 (`.venv/bin/wandb login`).
set -euo pipefail
: "${TPU:?name of the slice}" "${ZONE:?its zone}"
if [ "${1:-}" = stop ]; then
  remote="pkill -TERM -f '[s]atmip train'"
else
  # The log goes to a file, so the training survives the end of the ssh connection.
  remote="cd ~/satmip_jax && { nohup .venv/bin/satmip train$(printf ' %q' "$@" ${WANDB:+--wandb "$WANDB"})"
  remote+=' >train.log 2>&1 </dev/null & } && tail --pid=$! -n +1 -F train.log; wait $!'
fi
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
  --worker=all --command="$remote"
