#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that may have no network: builds convnet for the GPU that
# is there, runs the tests on it, the benchmarks beside PyTorch, the tuning of tiles,
# compute-sanitizer, and two training runs.
#
#   benchmarks/gpu_check.sh                     # all steps; what was done before is not repeated
#   benchmarks/gpu_check.sh --minutes 9         # ends in that time; call again to go on
#   benchmarks/gpu_check.sh build tests         # only these
#   benchmarks/gpu_check.sh --dry-run           # rehearses on the virtual GPU, with small sizes
#
# --out DIR      where results go (default build/gpu-check/results): a log for each step and JSON.
#                DIR.tgz holds all of it in one file
# --wheels DIR   wheels to install first, where there is no network: onednn-cpu-gomp and
#                onednn-devel-cpu-gomp 2023.2.0, and what else is missing
#
# Steps, in an order that makes the most of half an hour: what is worth most comes first, and
# nothing is measured before the build and a look at each kind of kernel.
#
#   build      for this GPU                                                     some 2 minutes
#   smoke      each family of tensor-core kernels, and what they assume of it   1
#   conv       each convolution and dense layer beside cuDNN                    6
#   step       AlexNet's training step beside PyTorch, eager and compiled       6
#   tests      all of them on the GPU                                           5
#   tune       tiles and splits of tensor-core kernels                          5
#   memcheck   compute-sanitizer, on the smaller cases of every kernel          10
#   fashion    a training run to the end                                        2
#   alexnet    40 steps of the paper's net, with a loss that must fall          2
#   racecheck, initcheck                                                        10 each
#
# (Minutes are guesses, until a GPU has been measured; times.txt says what they were.) Steps are
# made of parts. A part has a limit of its own, never above 8 minutes; with --minutes it begins only
# where its limit fits into what is left of the call, except for a call's first one, whose limit is
# cut. So no call lasts longer than that, but for the seconds that it takes to stop a part.
#
# Python must bring pip, CMake, ninja, scikit-build-core, pybind11, CuPy, pytest and hypothesis;
# PyTorch is compared with where it is installed. A step that fails is named at the end, and the
# others are run all the same. Exit codes: 0 all is done; 1 a step failed; 75 the time is up, and
# there is more to do.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

STEPS=(build smoke conv step tests tune memcheck fashion alexnet racecheck initcheck)
UNFINISHED=75
state=$PWD/build/gpu-check
out="" wheels="" minutes=0 device=cuda:0 dry=0 chosen=()
usage() { echo "gpu_check.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --out | --wheels | --minutes) [ $# -gt 1 ] || usage "$1: expected a value" ;;&
    --out) out=$(realpath -m "$2"); shift 2 ;;
    --wheels) wheels=$(realpath "$2"); shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --dry-run) dry=1 device=vgpu state=$PWD/build/gpu-check-dry; shift ;;
    -*) usage "unknown option $1" ;;
    *)
      [[ " ${STEPS[*]} " == *" $1 "* ]] || usage "expected one of ${STEPS[*]}, got $1"
      chosen+=("$1"); shift ;;
  esac
done
[[ $minutes =~ ^[0-9]+$ ]] || usage "--minutes: expected a whole number, got $minutes"
[ ${#chosen[@]} -gt 0 ] || chosen=("${STEPS[@]}")
[ -n "$out" ] || out=$state/results
mkdir -p "$state" "$out"
python=$state/venv/bin/python
begun=0  # parts, in this call

# Seconds that this call has left; many where it has no limit.
left() {
  if [ "$minutes" = 0 ]; then echo 1000000; else echo $((minutes * 60 - SECONDS)); fi
}

# part name limit command...: runs a command, unless it has succeeded before, for at most `limit`
# seconds; its output goes to the log of the step. Status 75: it is for the next call.
part() {
  local name=$1 limit=$2 log=$out/$step.log
  shift 2
  [ ! -e "$state/$name.done" ] || return 0
  if [ "$(left)" -lt "$limit" ]; then
    [ $begun = 0 ] || return $UNFINISHED
    limit=$(left)
  fi
  begun=$((begun + 1))
  printf '== %s [%s]\n$ %s\n' "$name" "$(date +%T)" "$*" >>"$log"
  local start=$SECONDS
  timeout --kill-after=10 "$limit" "$@" >>"$log" 2>&1
  local status=$?
  if [ $status = 124 ] || [ $status = 137 ]; then echo "stopped after $limit s" >>"$log"; fi
  printf '%-28s %4d s  status %d\n' "$name" $((SECONDS - start)) $status | tee -a "$out/times.txt"
  tail -n 3 "$log" | cut -c1-160
  [ $status != 0 ] || touch "$state/$name.done"
  return $status
}

# parts status...: what comes of a step that had these.
together() {
  local result=0 status
  for status in "$@"; do
    if [ "$status" = $UNFINISHED ]; then
      [ $result != 0 ] || result=$UNFINISHED
    elif [ "$status" != 0 ]; then
      result=1
    fi
  done
  return $result
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
  local cuda=on vgpu=off
  [ $dry = 0 ] || { cuda=off vgpu=on; }
  part build 480 env CONVNET_CUDA=$cuda CONVNET_VGPU=$vgpu CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" \
    "$python" -m pip install --no-build-isolation --no-deps . || return
  (cd "$state" && "$python" -P -m convnet doctor) | tee "$out/doctor.log"
}

# pytest_part name limit arguments...: tests on the device.
pytest_part() {
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" "$python" -P -m pytest -q -p no:cacheprovider --backend "${device%:0}" "$@"
}

smoke() {
  local files=(tests/kernels/test_{tensor_cores,tiles,wgmma,precision}.py) status=()
  [ $dry = 0 ] || files=(tests/kernels/test_{tensor_cores,tiles}.py)
  hopper; status+=($?)
  pytest_part smoke 180 "${files[@]}"; status+=($?)
  together "${status[@]}"
}

# What Hopper's kernels are built of, one by one: a mistake in one of these would make a kernel hang,
# and not say where. A rehearsal compiles it.
hopper() {
  local case status=()
  [ $dry = 1 ] || nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -q "^9\.0" || return 0
  part hopper-build 120 nvcc -std=c++17 -gencode arch=compute_90a,code=sm_90a -Isrc -o "$state/hopper" \
    tests/kernels/device/sm90.cu src/kernels/tensor_map.cu src/kernels/launch_limits.cu || return
  [ $dry = 0 ] || return 0
  for case in pixel_rows pixel_rows_swizzled pipeline wgmma_tf32 wgmma_bf16 wgmma_wide_rows; do
    part "hopper-$case" 20 bash -c "\"\$1\" $case | tee /dev/stderr | grep -q ^returned" - "$state/hopper"
    status+=($?)
  done
  together "${status[@]}"
}

tests() {
  if [ $dry = 1 ]; then
    pytest_part tests 300 tests/kernels/test_lrn.py tests/kernels/test_softmax.py
    return
  fi
  local status=()
  pytest_part tests-kernels 400 tests/kernels; status+=($?)
  pytest_part tests-rest 400 tests --ignore tests/kernels; status+=($?)
  together "${status[@]}"
}

# The smaller cases of every kernel, a file at a time: the tools make them tens of times slower.
sanitize() {
  local tool=$1 file name status=()
  shift
  if [ $dry = 1 ]; then echo "compute-sanitizer --tool $tool: nothing to rehearse"; return; fi
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed" | tee "$out/$tool.log"; return 1; }
  for file in tests/kernels/test_*.py; do
    name=$(basename "$file" .py)
    [ "$name" != test_winograd ] || continue  # the CPU's
    # CuPy's pool would hide what is out of bounds of one array but inside the pool.
    part "$tool-${name#test_}" 240 env CUPY_MEMORY_POOL=off compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" \
      "$python" -P -m pytest -q -x -p no:cacheprovider --backend cuda "$file" -k "not threads and not large"
    status+=($?)
  done
  together "${status[@]}"
}
memcheck() { sanitize memcheck --leak-check no; }
racecheck() { sanitize racecheck; }
initcheck() { sanitize initcheck; }

# conv_part name limit arguments...: rows of conv_throughput.py, kept as name.json.
conv_part() {
  local name=$1 limit=$2 size=(--batch 128 --rounds 10)
  shift 2
  [ $dry = 0 ] || size=(--shape "1,6,6,8,8,3,3" --rounds 1)
  part "$name" "$limit" "$python" benchmarks/conv_throughput.py --device "$device" "${size[@]}" "$@" \
    --json "$out/$name.json"
}

conv() {
  local precision status=()
  for precision in fp32 tf32 bf16; do
    conv_part "conv-$precision" 180 --precision $precision; status+=($?)
    [ $dry = 1 ] || { conv_part "dense-$precision" 120 --ops dense --precision $precision; status+=($?); }
  done
  conv_part conv-ffma 180 --precision ffma; status+=($?)
  [ $dry = 1 ] || { conv_part layers 180 --ops lrn,maxpool,lrn_maxpool; status+=($?); }
  together "${status[@]}"
}

# step_part name limit arguments...: training steps, kept as name.json.
step_part() {
  local name=$1 limit=$2 size=(--rounds 20)
  shift 2
  [ $dry = 0 ] || size=(--rounds 1 --batch 2)
  part "$name" "$limit" "$python" benchmarks/train_throughput.py --device "$device" "${size[@]}" "$@" \
    --json "$out/$name.json"
}

step() {
  if [ $dry = 1 ]; then
    step_part step-fashion-mnist 400 --precision tf32,bf16 && step_part step-compiled 400 --peers compile
    return
  fi
  local precision status=() net=(alexnet --image "224,224,3" --classes 1000)
  for precision in fp32 tf32 bf16; do
    step_part "step-alexnet-$precision" 240 "${net[@]}" --precision $precision; status+=($?)
  done
  step_part step-fashion-mnist 240 --precision fp32; status+=($?)
  step_part infer-alexnet 240 "${net[@]}" --precision fp32,tf32,bf16 --infer --peers eager; status+=($?)
  together "${status[@]}"
}

# It keeps what it has measured, so any time is good for something; its log says what to do with it.
tune() {
  local size=(--rounds 9) limit=480
  [ $dry = 0 ] || size=(--shape "1,6,6,16,16,3,3" --pad 1 --rounds 1 --precision tf32)
  if [ "$(left)" -lt $limit ]; then
    [ "$(left)" -ge 90 ] || return $UNFINISHED
    limit=$(left)
  fi
  local seconds=$((limit - 45))
  part tune "$limit" "$python" benchmarks/tune_tiles.py --device "$device" "${size[@]}" \
    --minutes "$((seconds / 60)).$(printf %02d $((seconds % 60 * 100 / 60)))" --json "$out/tiles.json" || return
  if [ $dry = 1 ]; then
    part tune-write 60 "$python" benchmarks/tune_tiles.py --write "$out/tiles.json" --least 1 --table "$state/table.inc"
  fi
}

fashion() {
  local size=(--device "$device")
  # An epoch takes far too long on the virtual GPU.
  [ $dry = 0 ] || size=(--device cpu --epochs 1 --data sample --set train.batch=700)
  rm -rf "$state/fashion"
  part fashion 300 "$python" -P -m convnet train fashion-mnist --run-dir "$state/fashion" "${size[@]}"
}

# The paper's net on made-up images: some steps of the real size, with a loss that must fall.
alexnet() {
  if [ $dry = 1 ]; then echo "alexnet: too large for the virtual GPU"; return; fi
  part alexnet 240 "$python" experiments/alexnet_steps.py --device "$device" --steps 40
}

failed=() waiting=()
for step in "${chosen[@]}"; do
  [ ! -e "$state/$step.finished" ] || continue
  echo "== $step [$(date +%T)]"
  "$step"
  case $? in
    0) touch "$state/$step.finished" ;;
    "$UNFINISHED") waiting+=("$step") ;;
    *) failed+=("$step") ;;
  esac
  [ -e "$state/build.done" ] || { echo "without a build there is nothing to check; log in $out"; exit 1; }
done
tar -czf "$out.tgz" -C "$(dirname "$out")" "$(basename "$out")"
[ ${#waiting[@]} = 0 ] || echo "the time is up; call again for: ${waiting[*]}"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}; logs in $out"; exit 1; }
[ ${#waiting[@]} = 0 ] || exit $UNFINISHED
echo "no step failed; results in $out and $out.tgz"
