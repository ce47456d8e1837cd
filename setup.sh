#!/usr/bin/env bash
# Makes the environment in .venv; with an argument also:
#   bash setup.sh data NAME  from download to corpus folder; NAME is coco, flickr30k, conceptual-captions, sop or open-images
#   bash setup.sh demo       the main job, end to end, on a small made-up corpus
#   bash setup.sh detector   an environment for the detectors of jobs/extract_regions.py, in .venv-detector
#   bash setup.sh test       every check: formatting, lint, types, tests
# May be run again at any time: what stands already is skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() { echo "setup.sh: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
as_root_apt() { [ "$(id -u)" = 0 ] && have apt-get && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null; }

# What pip was told about this machine's packages and certificates, uv must be told as well
if [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=${UV_FIND_LINKS:-$PIP_FIND_LINKS}; fi
if [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}; fi

make_venv() {
    local python=${PYTHON:-python3}
    have "$python" || fail "no $python on the path; install Python 3.11 or newer, or set PYTHON=/path/to/python"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old; set PYTHON=/path/to/python3.11"
    [ -x .venv/bin/pip ] && return
    if ! "$python" -m venv .venv >/dev/null 2>&1; then  # Debian ships venv apart from python3
        rm -rf .venv
        as_root_apt python3-venv || fail "cannot make a virtual environment; as root: apt-get install python3-venv"
        "$python" -m venv .venv || fail "$python -m venv failed: see above"
    fi
}

install_packages() {
    local faiss=cpu other=gpu group=$1 stamp
    if have nvidia-smi && nvidia-smi -L >/dev/null 2>&1; then faiss=gpu other=cpu; fi
    stamp="$faiss $group $(cat pyproject.toml constraints.txt | cksum)"
    if [ "$(cat .venv/installed 2>/dev/null)" = "$stamp" ]; then return; fi
    echo "installing packages (faiss-$faiss) ..."
    .venv/bin/pip install -q --disable-pip-version-check -c constraints.txt uv || fail "pip cannot install uv: is the package index reachable?"
    # faiss-cpu and faiss-gpu overwrite each other's files without a word
    .venv/bin/uv pip uninstall -q --python .venv/bin/python "faiss-$other" 2>/dev/null || true
    .venv/bin/uv pip install -q --python .venv/bin/python -c constraints.txt -e ".[$faiss]" ${group:+--group "$group"} ||
        fail "the packages could not be installed: see above; free space here: $(df -h . | awk 'NR==2{print $4}')"
    echo "$stamp" >.venv/installed
}

make_detector_venv() {  # apart from .venv: torchvision needs torch's CUDA build, and costs every process five seconds
    local stamp
    stamp=$(cat pyproject.toml constraints.txt | cksum)
    if [ "$(cat .venv-detector/installed 2>/dev/null)" = "$stamp" ]; then return; fi
    echo "installing the detectors' packages (5.5 GB) ..."
    [ -x .venv-detector/bin/python ] || .venv/bin/uv venv -q --python .venv/bin/python .venv-detector || fail "cannot make .venv-detector"
    .venv/bin/uv pip install -q --python .venv-detector/bin/python -c constraints.txt -e ".[detector]" --group test ||
        fail "the detectors' packages could not be installed: see above; free space here: $(df -h . | awk 'NR==2{print $4}')"
    echo "$stamp" >.venv-detector/installed
}

demo() {
    local started=$SECONDS
    python jobs/pipeline.py jobs/demo/pipeline.yaml --name demo --cluster local
    echo "== both models are small and were trained here on made-up pictures; the figures say nothing about LXMERT and CLIP"
    echo "report: $PWD/runs/error_report/demo-report/report/index.html"
    echo "demo done in $((SECONDS - started)) s"
}

data() {
    local corpora
    corpora=$(cd jobs/data && printf '%s ' *.yaml | sed 's/\.yaml//g')
    [ -f "jobs/data/${1:-}.yaml" ] || fail "data: which corpus? one of: $corpora"
    python jobs/pipeline.py "jobs/data/$1.yaml" --name data --cluster local && echo "corpus folder: $PWD/data/$1"
}

run_tests() {
    local failed=0 log slurm
    log=$(mktemp)
    pytest -m slurm --durations=5 >"$log" 2>&1 & slurm=$!  # these mostly wait, so the others run beside them
    pytest -m "not slurm" --durations=10 || failed=1
    .venv-detector/bin/python -m pytest -m detector tests/models || failed=1
    echo "the tests on a real Slurm:"
    wait $slurm || failed=1
    cat "$log" && rm "$log"
    return $failed
}

check() {
    have chromium || as_root_apt chromium chromium-driver || echo "no Chromium here: the browser tests will be skipped (apt-get install chromium chromium-driver)"
    have sbatch || bash tests/cluster/cluster.sh install || echo "no Slurm of the tests' own: the tests on it will be skipped (they take root and Debian's packages)"
    [ -x .venv/azurite/node_modules/.bin/azurite-blob ] || npm install --silent --no-audit --no-fund --prefix .venv/azurite azurite@3.37.0 applicationinsights@3.16.0 >/dev/null ||
        echo "no Azurite here: the tests of Azure's blobs will be skipped (npm could not install it: see above)"
    ruff format --check . && ruff check . && mypy && run_tests
}

case "${1:-}" in
    "") make_venv && install_packages "" && echo "ready: source .venv/bin/activate" ;;
    demo) make_venv && install_packages "" && . .venv/bin/activate && demo ;;
    data) make_venv && install_packages "" && . .venv/bin/activate && data "${2:-}" ;;
    detector) make_venv && install_packages "" && make_detector_venv && echo "ready: .venv-detector/bin/python jobs/extract_regions.py" ;;
    test) make_venv && install_packages test && make_detector_venv && . .venv/bin/activate && check ;;
    *) fail "unknown argument '$1'; allowed: demo, data, detector, test, or none" ;;
esac
