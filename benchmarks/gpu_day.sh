#!/usr/bin/env bash
# Everything that wants measuring on the day a GPU is at hand, in under 9 minutes. Nothing is fetched from a network.
#
#   bash benchmarks/gpu_day.sh                    all parts, in this order:
#   tests       the tests marked `gpu`, finite gradients first
#   parity      pass, gradients, steps and training against a CPU and against the reference, in fp32 and bf16
#   training    100m, 350m, 1b, as `patchpad train` makes them: bytes/s, MFU, kernels, waits for the device
#   generation  1b at batch 1, 8 and 64, with captured graphs and without
#   savings     1b: 16-byte patches with scratchpads against a trunk call at every byte
#   memory      peak of training of each preset, beside what `patchpad cost` says
#   bash benchmarks/gpu_day.sh training savings   some of them
#
# Compiling takes longer than measuring. So what is timed starts at once in the background, compiles while tests and parity
# run, and waits; then one process after the other is let through (a card below 100 GiB has no room for that: LIMIT=1200).
# Each part writes its results as it goes (at most eight files in OUT) and has a time limit; one that fails or is cut off
# does not stop the next. The last file, gpu-day_*.md, is the report. To keep the results, copy OUT to benchmarks/results,
# set HAS_RUN_ON_A_GPU in src/patchpad/device.py and run recipes/speed_page.py.
#
# Variables:
#   COMMIT   of these files, where git does not know it: $(git describe --always --abbrev=10 --dirty --exclude='*')
#   OUT      folder of the results (build/gpu_day)
#   LIMIT    seconds for everything (520)
#   MOST     seconds for one command at most, where its own limit is longer (600)
#   PYTHON   a Python with torch, numpy, yaml, safetensors and jaxtyping; for `tests` also pytest and hypothesis (python3)
#   WHEELS   a folder of wheels for what that Python lacks, made where there is a network with
#            pip download --no-deps --only-binary=:all: -d WHEELS NAME ...
#   SIZE     tiny: a dry run of every part at tiny sizes, not compiled, on the device that DEVICE names (cuda)
set -u
cd "$(dirname "$0")/.." || exit 2

OUT=${OUT:-build/gpu_day} LIMIT=${LIMIT:-520} MOST=${MOST:-600} PYTHON=${PYTHON:-python3} SIZE=${SIZE:-} DEVICE=${DEVICE:-cuda} WHEELS=${WHEELS:-}
ALL_PARTS="tests parity training generation savings memory"
PARTS=${*:-$ALL_PARTS}
READY_BY=$((LIMIT * 45 / 100)) # seconds until which all may get ready before the first is timed
LEFT_FOR_REPORT=15
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) && scratch=$(mktemp -d) || exit 2
LOG=$OUT/log.txt
export PYTHONPATH=$PWD/src JAXTYPING_DISABLE=1 PYTHONUNBUFFERED=1 TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-4}
declare -A process=()

say() { echo "gpu_day: $*" | tee -a "$LOG"; }

# What is still in the background ends with this script: each command leads a group of processes of its own.
finish() {
  for pid in "${process[@]}"; do kill -- "-$pid" 2> /dev/null; done
  rm -rf "$scratch"
}
trap finish EXIT

room() { echo $((LIMIT - SECONDS - LEFT_FOR_REPORT)); }

# within SECONDS: a limit within what is left of all
within() { printf '%s\n' "$1" "$MOST" "$(room)" | sort -n | head -1; }

# start NAME SECONDS WORD...: begins a command, within its own limit and what is left of all
start() {
  local name=$1 limit=$2
  shift 2
  [ "$(room)" -lt 5 ] && return
  limit=$(within "$limit")
  timeout --kill-after=5 "$limit" "$PYTHON" "$@" --device "$DEVICE" --out "$OUT" > "$scratch/$name.log" 2>&1 &
  process[$name]=$!
}

# conclude NAME: waits for a command and says how it ended
conclude() {
  local name=$1 began=$SECONDS status
  if [ -z "${process[$name]:-}" ]; then
    say "$name: not run, no time is left"
    return
  fi
  wait "${process[$name]}"
  status=$?
  unset "process[$name]"
  tee -a "$LOG" < "$scratch/$name.log"
  case $status in
    0) say "$name: done after $((SECONDS - began)) s" ;;
    124 | 137 | 143) say "$name: cut off after $((SECONDS - began)) s; what it had found is kept" ;;
    *) say "$name: failed with status $status after $((SECONDS - began)) s" ;;
  esac
}

run() { start "$@" && conclude "$1"; }

# prepare NAME WORD...: begins a command that waits at its gate; it is started later where the card has no room for many
prepare() {
  local name=$1
  shift
  waiting+=("$name")
  command[$name]=$*
  [ -n "$side_by_side" ] && MOST=$LIMIT start "$name" "$LIMIT" "$@" --gate "$scratch/$name.gate"
}

# through NAME SECONDS: lets a command through its gate and waits for it
through() {
  local name=$1 limit=$2 pid=${process[$1]:-}
  if [ -z "$pid" ]; then
    # shellcheck disable=SC2086  # the command's words
    run "$name" "$limit" ${command[$name]}
    return
  fi
  touch "$scratch/$name.gate"
  limit=$(within "$limit")
  timeout $((limit > 1 ? limit : 1)) tail --pid="$pid" --sleep-interval=0.2 -f /dev/null || kill -- "-$pid" 2> /dev/null
  conclude "$name"
}

# Waits until all that were prepared stand at their gates or have ended, but not for ever.
await_all() {
  local name
  for name in "${waiting[@]}"; do
    while [ -n "${process[$name]:-}" ] && kill -0 "${process[$name]}" 2> /dev/null && [ "$SECONDS" -lt "$READY_BY" ] \
      && [ ! -e "$scratch/$name.gate.ready" ]; do
      sleep 0.2
    done
  done
}

missing() { "$PYTHON" -c 'import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if not u.find_spec(n)])' "$@"; }

if [ -n "$WHEELS" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$scratch/site" "$WHEELS"/*.whl \
    2>&1 | tee -a "$LOG"
  export PYTHONPATH=$PYTHONPATH:$scratch/site
fi
if ! lacking=$(missing torch numpy yaml safetensors jaxtyping); then
  say "$PYTHON is no Python that runs; name one: PYTHON=... bash benchmarks/gpu_day.sh"
  exit 2
elif [ -n "$lacking" ]; then
  say "$PYTHON lacks: $lacking; name a folder of wheels: WHEELS=... bash benchmarks/gpu_day.sh"
  exit 2
fi
lacking=$(missing pytest hypothesis)
[ -n "$lacking" ] && say "the tests are not run, since $PYTHON lacks: $lacking" && PARTS=${PARTS//tests/}
spread="-n 4" && [ -n "$(missing xdist)" ] && spread=

side_by_side=yes
if [ "$DEVICE" = cuda ] && [ "$SIZE" != tiny ]; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1 | tee -a "$LOG"
  mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2> /dev/null | head -1)
  [ "${mib:-0}" -lt 100000 ] && side_by_side=
fi
if [ "$SIZE" = tiny ]; then
  presets=tiny big=tiny batches="1 2" small="--repeats 1 --rows 1" compile= parity="--positions 40 --training-steps 1"
  savings="--size tiny --prefill-bytes 48 --run-bytes 16 --repeats 1"
else
  presets="100m 350m 1b" big=1b batches="1 8 64" small= compile=--compile parity=--compile
  savings="--size 1b --run-bytes 64 --repeats 3 --compile"
fi

declare -A command=()
waiting=()
for part in $PARTS; do
  case $part in
    training)
      trainings=()
      for preset in $presets; do trainings+=("$preset fixed16-entropy"); done
      trainings+=("${presets%% *} fixed1-never") # of the larger presets there is no time for both arms
      for training in "${trainings[@]}"; do
        prepare "training-${training/ /-}" benchmarks/presets_gpu.py --parts training --presets ${training% *} \
          --arms ${training#* } $compile $small
      done
      ;;
    generation)
      prepare generation benchmarks/presets_gpu.py --parts generation --presets $big --arms fixed16-entropy \
        --batches $batches $compile $small
      ;;
    savings) prepare savings benchmarks/savings.py --day --batches $batches $savings ;;
    tests | parity | memory) ;;
    *)
      say "$part is not a part; allowed: $ALL_PARTS"
      exit 2
      ;;
  esac
done

for part in $PARTS; do
  case $part in
    tests)
      run tests-of-finite-gradients 60 benchmarks/gpu_tests.py -k finite
      run other-tests 80 benchmarks/gpu_tests.py -k "not finite" $spread
      ;;
    parity) run parity 80 benchmarks/gpu_parity.py $parity ;;
    training)
      await_all
      for training in "${trainings[@]}"; do through "training-${training/ /-}" 100; done
      ;;
    generation | savings)
      await_all
      through $part 90
      ;;
    memory)
      run memory 80 benchmarks/presets_gpu.py --parts memory --presets $presets \
        --arms fixed16-entropy fixed16-never fixed1-never $small
      ;;
  esac
done
timeout --kill-after=5 30 "$PYTHON" benchmarks/gpu_report.py "$OUT" > "$scratch/report.log" 2>&1
tee -a "$LOG" < "$scratch/report.log"
say "$SECONDS s in all; the results are in $OUT"
