#!/usr/bin/env bash
# Claim C7: trains bytes, patches with and without scratchpads, and tokens alike on text in many languages, measures all of
# them on the same sentences of further languages, and ranks them. A run that was stopped goes on with the same command.
#   bash recipes/languages.sh TEXTS DATA OUT [STUDY] [SENTENCES]
# TEXTS: one text a language, for recipes/languages_corpus.py. DATA: the folder with ntrex128/ and lohelp_parallel/.
set -euo pipefail
texts=$1 data=$2 out=$3 study=${4:-configs/studies/languages.yaml} sentences=${5:-200}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
if [ ! -f "$out/corpus/validation.jsonl.xz" ]; then
  rm -rf "$out/corpus.part"
  python "$here/languages_corpus.py" "$texts" "$out/corpus.part"
  mv "$out/corpus.part" "$out/corpus"
fi
patchpad study "$study" --out "$out/study" \
  --data "$out/corpus/train.jsonl.xz" --validation-data "$out/corpus/validation.jsonl.xz"
evaluations=()
for arm in fixed1-never fixed16-never fixed16-entropy spacebyte-never spacebyte-entropy bpe; do
  patchpad evaluate "$out/study/runs/$arm-seed0" --suite languages-after-help \
    --data "$data" --limit "$sentences" --out "$out/evaluations/$arm"
  evaluations+=("$out/evaluations/$arm")
done
patchpad compare "${evaluations[@]}" --html "$out/compare.html"
python "$here/languages_page.py" "${evaluations[@]}" --out "$out/ranks"
