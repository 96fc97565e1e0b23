#!/usr/bin/env bash
# Training that loses nothing, in small: four processes train the preset `tiny-fixed16-entropy` on a mixture of Parquet and
# JSONL.gz, are killed, and go on as two. The model is released, measured and sampled. Takes one to two minutes on 2 cores.
#   bash recipes/scale_demo.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv/bin ] && PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
run=$folder/run
echo "== Texts: four novels as Parquet, Python's own modules as JSONL.gz"
python - "$folder" <<'PYTHON'
import gzip, json, lzma, sys, sysconfig
from importlib.resources import files
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet

folder = Path(sys.argv[1])
novels = lzma.decompress((files("patchpad.data") / "bundled" / "austen_train.jsonl.xz").read_bytes()).decode()
texts = [json.loads(line)["text"] for line in novels.splitlines()]
*trained, held_out = [text[:400_000] for text in texts]
parquet.write_table(arrow.table({"text": trained}), folder / "novels.parquet")
(folder / "held_out.txt").write_text(held_out[:20_000], encoding="utf-8")
modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
with gzip.open(folder / "code.jsonl.gz", "wt", encoding="utf-8") as lines:
    for module in modules:
        lines.write(json.dumps({"text": module.read_text(encoding="utf-8")}) + "\n")
print(f"{len(trained)} novels, {len(modules)} modules")
PYTHON
sources="{novels: {paths: [$folder/novels.parquet], weight: 2, validation_paths: [$folder/held_out.txt]}, code: {paths: [$folder/code.jsonl.gz], weight: 1}}"

echo "== Four processes"
torchrun --standalone --nproc-per-node 4 -m patchpad train --config tiny-fixed16-entropy --device cpu --out "$run" \
  --data.sources "$sources" --train.steps 150 --train.batch_rows 6 --train.checkpoint_every 25 --train.validate_every 50 \
  2> "$folder/first.log" &
launcher=$!
until [ -d "$run/checkpoints/step-50" ]; do
  kill -0 $launcher || { cat "$folder/first.log"; exit 1; }
  sleep 0.2
done

echo "== One of them is killed"
for child in $(cat /proc/$launcher/task/*/children); do  # Linux alone has these files
  if grep -qa patchpad "/proc/$child/cmdline"; then victim=$child; fi
done
kill -9 "$victim"
if wait $launcher; then echo "the run went on without one of its processes" >&2; exit 1; fi
grep -A 1 '^patchpad: ' "$folder/first.log"

echo "== Two processes go on"
torchrun --standalone --nproc-per-node 2 -m patchpad train --resume "$run" 2> "$folder/second.log" || { cat "$folder/second.log"; exit 1; }
grep "resuming" "$folder/second.log"

echo "== Released, measured, sampled"
patchpad release "$run" --out "$folder/model" --dtype float16
patchpad calibrate "$folder/model" --data "$folder/held_out.txt"
patchpad evaluate "$folder/model" --data "$folder/held_out.txt" --scratchpad-threshold inf,1.5,-inf
patchpad generate "$folder/model" --prompt "It was" --max-new-bytes 80 --seed 1
patchpad plot "$run" --out "$folder/run.svg"
echo "All of it is in $folder"
