#!/usr/bin/env bash
# Run a part of benchmarks/gpu on a machine with torch but without network, from the repository root:
#
#     bash benchmarks/gpu/bare_machine.sh checks --minutes 4
#     bash benchmarks/gpu/bare_machine.sh evidence --minutes 9 --data .gpu/cifar10.tar.xz --classifier .gpu/resnet20.th
#
# .whl holds the wheels that `uv run benchmarks/gpu wheels` downloaded (override: WHEELS=FOLDER). Results, weights and the
# contact sheet are written to $OUT. A run continues from the weights of an earlier run in .gpu/state (override:
# STATE=FOLDER). Without a git repository, GENVIEWS_COMMIT sets the commit recorded in the results.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
wheels=${WHEELS:-.whl} out=${OUT:-runs/gpu} state=${STATE:-.gpu/state}
site=$(mktemp -d)
part=$1
shift

"$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
export PYTHONPATH="$site:$PWD"
for source in packages/*/src; do
    PYTHONPATH+=":$PWD/$source"
done
# The packages of this repository run from source; stub metadata lets importlib.metadata find their versions.
for project in packages/*/pyproject.toml; do
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$project" | head -1)
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project" | head -1)
    record="$site/${name//-/_}-$version.dist-info"
    mkdir -p "$record"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$name" "$version" >"$record/METADATA"
done
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export TORCHINDUCTOR_CACHE_DIR="${TMPDIR:-/tmp}/inductor"
mkdir -p "$out"
[ ! -d "$state" ] || cp -n "$state"/* "$out"/ || true

case $part in
checks | speedrun) where=(--results "$out/results.jsonl") ;;
evidence) where=(--out "$out") ;;
*) where=() ;;
esac
exec "$python" benchmarks/gpu "$part" "${where[@]}" "$@"
