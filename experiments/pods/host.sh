#!/usr/bin/env bash
# What the launchers do on each host: environment, run, and its end.
#
#   host.sh setup                environment from requirements.lock, and libtpu
#   host.sh mount SERVER:/PATH   the shared folder (NFS), at /mnt/pxy
#   host.sh start OUT ARGS...    pxy train ARGS --out OUT in the background; OUT may be
#                                gs://BUCKET/FOLDER
#   host.sh status               running | finished | stopped | failed CODE | none
#   host.sh stop SECONDS         SIGTERM: saves a checkpoint and ends, or is killed
#
# A run is finished when pxy ended with 0 and wrote its summary since the start; with 0
# and no summary, a signal has stopped it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }

setup() {
  local python=${PYTHON:-python3.11}
  if ! command -v "$python" > /dev/null || ! "$python" -c 'import ensurepip'; then
    root apt-get update -q
    root apt-get install -q -y "$python" "$python-venv" make
  fi
  make -s .venv/.ready PYTHON="$python"
  local jax
  jax=$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("jax"))')
  .venv/bin/pip install -q --disable-pip-version-check "jax[tpu]==$jax"
}

mount_nfs() {
  if mountpoint -q /mnt/pxy; then return; fi
  root apt-get update -q
  root apt-get install -q -y nfs-common
  root mkdir -p /mnt/pxy
  root mount -t nfs "$1" /mnt/pxy
}

# Whether the run wrote its summary since the start; of a bucket, in its mirror.
finished() {
  if [[ $1 == gs://* ]]; then
    [[ -n $(find "${PXY_CACHE:-$HOME/.cache/pxy}/buckets" -newer run.start \
      -path '*/run/*/summary.json' -print -quit 2> /dev/null) ]]
  else
    [[ $1/summary.json -nt run.start ]]
  fi
}

start() {
  local out=$1 code=0
  shift
  if [[ $(status) == running ]]; then return; fi
  rm -f run.code run.pid
  touch run.start
  (
    trap '' HUP
    PXY_PROCESSES=auto .venv/bin/pxy train "$@" --out "$out" &
    echo $! > run.pid
    wait $! || code=$?
    if [[ $code == 0 ]] && ! finished "$out"; then code=stopped; fi
    echo "$code" > run.code
  ) < /dev/null >> run.log 2>&1 &
  echo $! > run.shell
  for _ in 1 2 3 4 5 6 7 8 9 10; do [[ -s run.pid ]] && return; sleep 0.1; done
}

# Whether pxy is there, or the shell that is yet to note how it ended.
alive() { [[ -s $1 ]] && kill -0 "$(cat "$1")" 2> /dev/null; }

status() {
  local code
  if [[ ! -e run.start ]]; then echo none; return; fi
  if alive run.shell; then
    echo running
  elif [[ -s run.code ]]; then
    code=$(cat run.code)
    case $code in
      0) echo finished ;;
      stopped) echo stopped ;;
      *) echo "failed $code" ;;
    esac
  else
    echo "failed 137"
  fi
}

stop() {
  local left=$1
  if ! alive run.pid; then return; fi
  kill -TERM "$(cat run.pid)"
  while alive run.pid && ((left-- > 0)); do sleep 1; done
  if alive run.pid; then kill -KILL "$(cat run.pid)"; fi
}

case ${1-} in
  setup) setup ;;
  mount) mount_nfs "$2" ;;
  start) shift; start "$@" ;;
  status) status ;;
  stop) stop "$2" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
