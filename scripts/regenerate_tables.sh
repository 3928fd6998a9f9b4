#!/bin/sh
# Makes every run that a table of the papers still wants, and writes the tables beside the printed
# numbers. Stop it at any moment: the same command goes on where it was.
#
#   scripts/regenerate_tables.sh data.root=DIR                    full width, everything
#   scripts/regenerate_tables.sh data.root=DIR devices=4          on four GPUs of this machine
#   scripts/regenerate_tables.sh data.root=DIR backbone.width=32 limit=2000     on a small machine
#
# Words are those of `gradbench tables`: settings of runs, results=DIR, format=FORMAT. Tables go to
# outputs/tables unless out=DIR names another folder. GRADBENCH_STORE and GRADBENCH_DATA name the
# folders of products and of images; GRADBENCH names the program. scripts/full_scale.md tells the hours.
set -eu

program=${GRADBENCH:-gradbench}
if ! command -v "$program" >/dev/null 2>&1; then
    here=$(cd "$(dirname "$0")/.." && pwd)
    program=$here/.venv/bin/gradbench
    if [ ! -x "$program" ]; then
        echo "regenerate_tables.sh: gradbench is not installed: make install, or GRADBENCH=PATH" >&2
        exit 2
    fi
fi

place=out=outputs/tables
for word in "$@"; do
    case $word in out=*) place= ;; esac
done
exec "$program" tables --all --run ${place:+"$place"} "$@"
