#!/usr/bin/env bash
# The first minutes of this code on a GPU:  bash benchmarks/first_contact.sh [FOLDER]
#
# Versions, the tests that need a GPU, benchmarks/gpu.py --quick, compute-sanitizer over a captured step, a short
# training run. At most four minutes: each part has a limit, and what fails or hangs does not stop the rest. FOLDER
# (a new temporary one) gets what they print; the last thing printed here is a page about all of them, and where it is.
set -u
cd "$(dirname "$0")/.." || exit
out=${1:-$(mktemp -d)}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit
rm -f "$out"/{versions,tests,quick,sanitizer,training,summary}.txt "$out"/{quick.json,sample.png}
scratch=$(mktemp -d) || exit
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 MPLCONFIGDIR="$scratch"
SECONDS=0
ALL=230                                       # seconds for all parts
failed=0

# part NAME LOG LIMIT COMMAND...: run it; its output goes to the end of LOG and, on its own, to $scratch/part
part() {
    local name=$1 log=$out/$2 limit=$3 start=$SECONDS from left code
    shift 3
    left=$((ALL - SECONDS))
    limit=$((limit < left ? limit : left))
    echo "+ $name" >>"$log"
    from=$(wc -c <"$log")
    if ((limit >= 5)); then
        # an interrupt lets Python report what it has so far; the braces send what bash says of a killed one there too
        { env --default-signal=INT timeout -s INT -k 5 "$limit" "$@" >>"$log" 2>&1 </dev/null; } 2>>"$log"
        code=$?
    else
        echo 'no time was left for it' >>"$log"
        code=124
    fi
    tail -c +$((from + 1)) "$log" >"$scratch/part"
    if [ "$name" = tests ] && grep -qE '^=.* (skipped|no tests ran)' "$scratch/part"; then
        code="$code, but not all ran"
    fi
    [ "$code" = 0 ] || failed=1
    echo "== $name: exit $code, $((SECONDS - start)) s of $limit s" | tee -a "$out/summary.txt"
}

# show LINES [PATTERN]: onto the page, the first lines of the last part that match, or its last ones
show() {
    if [ $# -gt 1 ]; then
        grep -E -m "$1" -e "$2" "$scratch/part"
    else
        grep -v '^ *$' "$scratch/part" | tail -n "$1"
    fi | cut -c 1-110 >>"$out/summary.txt"
}

cat >"$scratch/versions.py" <<'END'
import platform, shutil, sys
from importlib.metadata import distributions
print('python', platform.python_version())
for wanted in (('numpy', 'torch', 'cupy'),
               ('pytest', 'threadpoolctl', 'pillow', 'tqdm', 'matplotlib', 'nvidia-cuda-nvrtc')):
    print(*sorted({f'{d.name} {d.version}' for d in distributions() if d.name.lower().startswith(wanted)}), sep=', ')
print('commands:', *filter(shutil.which, ['g++', 'compute-sanitizer', 'ncu']))
try:
    import cupy
    print('compute capability', cupy.cuda.Device().compute_capability)
    from cupy.cuda import nvrtc, runtime
    print('NVRTC', nvrtc.getVersion(), 'runtime', runtime.runtimeGetVersion(), 'driver', runtime.driverGetVersion())
except Exception as error:
    sys.exit(f'CuPy FAILED: {error!r}')
END
part versions versions.txt 10 bash -c '
    nvidia-smi --query-gpu=name,driver_version,memory.used --format=csv,noheader; code=$?
    nvidia-smi -L
    python3 "$0" && exit $code' "$scratch/versions.py"
show 10

# One test at a time to each worker, in the order of the files, which begin with the most telling ones. A worker has a
# CUDA context of its own, so that a fault spoils no other's.
part tests tests.txt 80 python3 -m pytest -m gpu -v -n 8 --dist load --maxschedchunk 1 -p no:cacheprovider -p no:benchmark \
    --tb=short -rfEs tests/engines/test_cuda.py tests/engines/test_launch.py tests/engines/test_gpu.py
show 1 '^=+ .*(passed|failed|skipped|error)'
if grep -qE '^=+ .*(passed|failed|skipped|error)' "$scratch/part"; then
    show 14 '^(FAILED|ERROR)'
    show 2 '^SKIPPED'
    show 14 '^(E  |_____)'
else                                           # it was ended before it could sum up
    for result in PASSED FAILED; do echo "$result: $(grep -c "\] $result" "$scratch/part")" >>"$out/summary.txt"; done
    show 10 '\] (FAILED|ERROR)|node down|Timeout'
    show 15
fi

# It may take what the tests have left over: what matters most, the account of the kernels, comes last
spare=$((ALL - SECONDS - 55))
part quick quick.txt $((spare < 120 ? spare : 120)) python3 benchmarks/gpu.py --quick --out "$out/quick.json"
grep -vE '^(  |Traceback| *$|\+)' "$scratch/part" >"$scratch/plain"
mv "$scratch/plain" "$scratch/part"
show 36

# Each array in an allocation of its own, so that memcheck knows where it ends
cat >"$scratch/steps.py" <<'END'
import sys
import cupy, numpy as np
from tinygan import data
from tinygan.data.minibatches import Minibatches
from tinygan.engines.cuda import CapturedGAN
from tinygan.recipes import RECIPES, make_gan
cupy.cuda.set_allocator(None)
recipe = RECIPES['dcgan']._replace(batch_size=16)
images = data.ImageSet(np.zeros((2 * recipe.batch_size, *recipe.shape), np.uint8))
captured = CapturedGAN(make_gan(recipe, 0, cupy), Minibatches(images, recipe), precision=sys.argv[1])
for number in 1, 2, 3:                        # kernel by kernel, captured, replayed
    print({name: round(float(value), 4) for name, value in captured.step(number).items()})
END
for check in 'memcheck tf32' 'racecheck tf32' 'memcheck bf16' 'racecheck bf16'; do
    read -r tool precision <<<"$check"
    part "$check" sanitizer.txt 25 compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
        python3 "$scratch/steps.py" "$precision"
    show 4 'Error|Invalid|Race|hazard|Warning'
    show 3
done

part train training.txt 30 python3 train_mnist.py --recipe fast --device gpu --data mnist --max-steps 200 --out "$scratch/run"
show 4
part sample training.txt 30 python3 -m tinygan sample "$scratch/run" --out "$out/sample.png"
show 2
part resume training.txt 30 python3 train_mnist.py --resume "$scratch/run" --device cpu --max-steps 205
show 3

echo
head -c 8800 "$out/summary.txt"
echo "== all: $SECONDS s; complete output in $out"
exit $failed
