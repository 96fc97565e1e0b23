#!/usr/bin/env bash
# Trains a model of 3.3M parameters on a CPU, then calibrates, measures and samples it.
#   bash recipes/train_laptop.sh TEXT RUN [STEPS]     TEXT: a file, glob or directory. A run that was stopped goes on.
set -euo pipefail
text=$1 run=$2 steps=${3:-4000}
if [ -d "$run/checkpoints" ]; then
  patchpad train --resume "$run"
else
  patchpad train --config small-cpu-fixed16-entropy --data "$text" --out "$run" --train.steps "$steps"
fi
patchpad calibrate "$run" --data "$text"
patchpad evaluate "$run" --data "$text"
patchpad generate "$run" --prompt "The " --max-new-bytes 300 --seed 1
patchpad plot "$run" --out "$run.svg"
