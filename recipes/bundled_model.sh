#!/usr/bin/env bash
# Trains the model that ships with the package and writes it to src/patchpad/data/bundled/model.
# Run from the repository root with the package installed; takes about half an hour on one CPU core.
set -euo pipefail
export OMP_NUM_THREADS=1
run=${1:-runs/bundled}
out=src/patchpad/data/bundled/model
text=src/patchpad/data/bundled

if [ -d "$run/checkpoints" ]; then
  patchpad train --resume "$run"
else
  patchpad train --config bundled-1m-fixed16-entropy --out "$run" \
    --data "$text/austen_train.jsonl.xz" --data.validation_paths "[$text/austen_validation.jsonl.xz]"
fi
patchpad release "$run" --out "$out.new" --dtype float16
patchpad calibrate "$out.new" --data "$text/austen_validation.jsonl.xz" --limit-bytes 0
mkdir -p "$out"
mv "$out.new"/* "$out"/
rmdir "$out.new"
