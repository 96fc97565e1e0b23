#!/usr/bin/env bash
# Trains a preset on one GPU. Says first what it takes. A run that was stopped goes on.
#   bash recipes/train_gpu.sh TEXT RUN [PRESET] [--section.field VALUE ...]
set -euo pipefail
text=$1 run=$2 preset=${3:-100m-fixed16-entropy}
shift $(($# < 3 ? $# : 3))
if [ -d "$run/checkpoints" ]; then
  exec patchpad train --resume "$run"
fi
patchpad cost --config "$preset"
exec patchpad train --config "$preset" --data "$text" --out "$run" --device cuda "$@"
