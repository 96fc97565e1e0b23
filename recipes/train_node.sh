#!/usr/bin/env bash
# Trains a preset on all GPUs of one machine, or with RANKS processes. A run that was stopped goes on.
#   bash recipes/train_node.sh TEXT RUN [PRESET] [--section.field VALUE ...]
# Without a GPU: RANKS=2 bash recipes/train_node.sh TEXT RUN tiny-fixed16-entropy --train.device cpu
set -euo pipefail
text=$1 run=$2 preset=${3:-1b-fixed16-entropy}
shift $(($# < 3 ? $# : 3))
launch=(torchrun --standalone --nproc-per-node "${RANKS:-gpu}" -m patchpad train)
if [ -d "$run/checkpoints" ]; then
  exec "${launch[@]}" --resume "$run"
fi
exec "${launch[@]}" --config "$preset" --data "$text" --out "$run" "$@"
