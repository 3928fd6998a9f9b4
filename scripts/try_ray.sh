#!/bin/sh
# Tries the Ray launcher for real, in an environment of its own: its plugin wants cloudpickle<3 and
# joblib, which scikit-learn needs, wants a newer one from release 1.6 on.
#
#   scripts/try_ray.sh [FOLDER]       default outputs/try_ray; takes a few minutes and 6 GB
#   PYTHON=python3.12 scripts/try_ray.sh
#
# Makes FOLDER/venv with gradbench and the extra `ray`, runs a small sweep over the digits with
# Ray's workers and once more one job after the other, each with a store of its own, and compares
# the merged rows byte for byte. What is there already is not installed again.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-outputs/try_ray}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
bin=$folder/venv/bin

if [ ! -f "$folder/ready" ]; then
    "${PYTHON:-python3}" -m venv "$folder/venv"
    # releases that Ray and its plugin allow are chosen by pip, all others are those of the tests
    grep -v -E '^(cloudpickle|joblib|python-dateutil)==' "$here/constraints.txt" >"$folder/constraints.txt"
    "$bin/python" -m pip install -q -c "$folder/constraints.txt" -e "$here[ray]"
    touch "$folder/ready"
fi
"$bin/python" -m pip list 2>/dev/null | grep -i -E '^(ray|hydra|cloudpickle|joblib|torch) ?' || true

cd "$folder"
rm -rf ray serial
export OMP_NUM_THREADS=1 GRADBENCH_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
sweep() {
    out=$1
    shift
    "$bin/gradbench" sweep experiment=quickstart training.epochs=2 limit=200 \
        evaluation.replicates=100 'challenges=[gaussian_noise]' level=1,3 \
        "out=$out/run" "store=$out/store" "$@"
}
sweep serial
sweep ray launcher=ray hydra.launcher.ray.init.num_cpus=2
cmp serial/run/results.csv ray/run/results.csv
products() { (cd "$1/store" && find . -name product.json | sort); }
[ "$(products serial)" = "$(products ray)" ]
echo "Ray's two workers wrote the rows of the serial sweep, byte for byte, and the same products"
