#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that may have no network: builds convnet for the GPU that
# is there, runs the tests on it, compute-sanitizer, the benchmarks beside PyTorch, and two training
# runs.
#
#   benchmarks/gpu_check.sh                     # all steps; those done before are not repeated
#   benchmarks/gpu_check.sh --minutes 9         # begins no step after so long; call again to go on
#   benchmarks/gpu_check.sh build tests         # only these
#   benchmarks/gpu_check.sh --dry-run           # rehearses in the emulator, with small sizes
#
# --out DIR      where results go (default build/gpu-check/results): logs and JSON, few files
# --wheels DIR   wheels to install first, where there is no network: onednn-cpu-gomp and
#                onednn-devel-cpu-gomp 2023.2.0, and what else is missing
#
# Python must bring pip, CMake, ninja, scikit-build-core, pybind11, CuPy, pytest and hypothesis;
# PyTorch is compared with where it is installed. A step that fails is named at the end, and the
# others are run all the same.
set -uo pipefail
cd "$(dirname "$0")/.."

STEPS=(build tests memcheck racecheck initcheck conv step fashion alexnet)
state=$PWD/build/gpu-check
out=$state/results wheels="" minutes=0 device=cuda:0 dry=0 chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$(realpath -m "$2"); shift 2 ;;
    --wheels) wheels=$(realpath "$2"); shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --dry-run) dry=1 device=emulator state=$PWD/build/gpu-check-dry; shift ;;
    -*) echo "gpu_check.sh: unknown option $1" >&2; exit 2 ;;
    *)
      [[ " ${STEPS[*]} " == *" $1 "* ]] || { echo "gpu_check.sh: expected one of ${STEPS[*]}, got $1" >&2; exit 2; }
      chosen+=("$1"); shift ;;
  esac
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${STEPS[@]}")
[ $dry = 0 ] || out=$state/results
mkdir -p "$state" "$out"
python=$state/venv/bin/python
started=$SECONDS

# name limit command...: runs a command, keeping its output in a log; at most `limit` seconds.
logged() {
  local log=$out/$1.log limit=$2
  shift 2
  echo "\$ $*" >>"$log"
  timeout --kill-after=10 "$limit" "$@" >>"$log" 2>&1
  local status=$?
  tail -n 3 "$log" | cut -c1-160
  return $status
}

build() {
  if [ ! -d "$state/venv" ]; then
    python3 -m venv "$state/venv" || return
    # What this Python has, be it a system's or itself a virtual environment's, is seen in there too.
    python3 -c 'import site; print(*site.getsitepackages(), sep="\n")' \
      >"$("$python" -c 'import site; print(site.getsitepackages()[0])')/parent.pth" || return
  fi
  if [ -n "$wheels" ]; then
    "$python" -m pip install -q --no-index --no-deps "$wheels"/*.whl || return
  fi
  local cuda=on emulator=off
  [ $dry = 0 ] || { cuda=off emulator=on; }
  logged build 540 env CONVNET_CUDA=$cuda CONVNET_EMULATOR=$emulator CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" \
    "$python" -m pip install --no-build-isolation --no-deps . || return
  (cd "$state" && "$python" -P -m convnet doctor) | tee "$out/doctor.log"
}

tests() {
  local what=(tests)
  [ $dry = 0 ] || what=(tests/kernels/test_lrn.py tests/kernels/test_softmax.py)
  logged tests 560 "$python" -P -m pytest -q -p no:cacheprovider --backend "${device%:0}" "${what[@]}"
}

# The smaller cases of every kernel: the tools make them tens of times slower.
sanitize() {
  local tool=$1
  shift
  if [ $dry = 1 ]; then echo "compute-sanitizer --tool $tool: nothing to rehearse"; return; fi
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed" | tee "$out/$tool.log"; return 1; }
  # CuPy's pool would hide what is out of bounds of one array but inside the pool.
  logged "$tool" 570 env CUPY_MEMORY_POOL=off compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" \
    "$python" -P -m pytest -q -x -p no:cacheprovider --backend cuda tests/kernels -k "not threads and not large"
}
memcheck() { sanitize memcheck --leak-check no; }
racecheck() { sanitize racecheck; }
initcheck() { sanitize initcheck; }

conv() {
  local size=(--batch 128 --rounds 10 --math fp32,ffma,tf32,bf16)
  [ $dry = 0 ] || size=(--shape 1,6,6,8,8,3,3 --rounds 1 --math fp32,ffma,tf32,bf16)
  logged conv 300 "$python" benchmarks/conv_throughput.py --device "$device" "${size[@]}" --json "$out/conv.json" || return
  [ $dry = 1 ] || logged conv 200 "$python" benchmarks/conv_throughput.py --device "$device" "${size[@]}" \
    --ops lrn,maxpool,lrn_maxpool,dense --json "$out/layers.json"
}

step() {
  local size=(--rounds 20)
  [ $dry = 0 ] || size=(--rounds 1 --batch 2)
  logged step 120 "$python" benchmarks/train_throughput.py --device "$device" "${size[@]}" --json "$out/step-fashion-mnist.json" || return
  [ $dry = 1 ] || logged step 300 "$python" benchmarks/train_throughput.py alexnet --device "$device" "${size[@]}" \
    --picture 224,224,3 --classes 1000 --json "$out/step-alexnet.json"
}

fashion() {
  local size=()
  [ $dry = 0 ] || size=(--epochs 1 --data sample --set train.batch=700)
  rm -rf "$state/fashion"
  logged fashion 560 "$python" -P -m convnet train fashion-mnist --device "$device" --run-dir "$state/fashion" "${size[@]}"
}

# The paper's net on made-up pictures: some steps of the real size, with a loss that must fall.
alexnet() {
  local size=(--steps 40)
  [ $dry = 0 ] || { echo "alexnet: too large for the emulator"; return 0; }
  logged alexnet 300 "$python" experiments/alexnet_steps.py --device "$device" "${size[@]}"
}

failed=()
for name in "${chosen[@]}"; do
  [ ! -e "$state/$name.done" ] || continue
  if [ "$minutes" != 0 ] && [ $((SECONDS - started)) -gt $((minutes * 60)) ]; then
    echo "out of time before $name: call again to go on"
    break
  fi
  echo "== $name [$(date +%T)]"
  rm -f "$out/$name.log"
  if "$name"; then touch "$state/$name.done"; else failed+=("$name"); fi
  [ -e "$state/build.done" ] || { echo "without a build there is nothing to check; log in $out"; exit 1; }
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}; logs in $out"; exit 1; }
echo "no step failed; results in $out"
