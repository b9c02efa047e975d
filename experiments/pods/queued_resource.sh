#!/usr/bin/env bash
# pxy train on a Cloud TPU pod: a queued resource, with all its hosts.
#
#   queued_resource.sh up   --name N --zone Z --type T --bucket gs://B/PATH [OPTIONS] \
#                           -- experiments/qwen3_4b_math.py [OPTIONS OF pxy train]
#   queued_resource.sh stop --name N --zone Z [--project P] [--grace S]
#
#   --name     of the resource, its node, and the run's folder in bucket or share
#   --type     accelerator type: v5litepod-64, v5p-32, v6e-16, v4-32
#   --bucket   gs://BUCKET/FOLDER that runs are below; the TPU's service account needs
#              the role storage.objectAdmin on it
#   --nfs      or, in its place, SERVER:/PATH of a folder that all hosts share
#              (Filestore, or another NFS server)
#   --runtime  runtime version; default: that of the type
#   --project  default: gcloud's
#   --spot     may be preempted
#   --grace    seconds from SIGTERM to the end, the checkpoint saved; default 120
#   --restarts starts without a new TPU before it gives up; default 10
#   --dry-run  print each command, run none
#
# up sends the last commit to every host, makes its environment, starts the run on all
# and watches it until it is finished, then deletes the resource. A resource that is
# preempted or fails is deleted and asked for again; the run goes on from its newest
# checkpoint. To end up itself (Ctrl-C) ends nothing else; the same command watches on.
# stop ends the run on every host, with a checkpoint, and deletes the resource.
#
# Tested against a gcloud that plays along (tests/test_pods.py), not on a TPU.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() { echo "queued_resource.sh: $*" >&2; exit 2; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

action=${1-}
[[ $action == up || $action == stop ]] || { usage >&2; exit 2; }
shift
name='' zone='' type='' bucket='' nfs='' runtime='' project='' spot='' dry=''
grace=120 restarts=10 train=()
while (($#)); do
  case $1 in
    --spot) spot=1 ;;
    --dry-run) dry=1 ;;
    --name | --zone | --type | --bucket | --nfs | --runtime | --project | --grace | \
      --restarts)
      (($# > 1)) || die "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --) shift; train=("$@"); break ;;
    *) die "unknown option $1" ;;
  esac
  shift
done
[[ -n $name ]] || die "--name: give the resource a name"
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || die "--name $name: lower-case letters, digits and -"
[[ -n $zone ]] || die "--zone: name the zone of the TPU, such as us-west4-a"
[[ $grace =~ ^[0-9]+$ && $restarts =~ ^[0-9]+$ ]] || die "--grace, --restarts: numbers"
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")
poll=${PXY_POLL:-60}

# Prints a command, and runs it unless this is a dry run.
run() {
  { printf '+'; printf ' %q' "$@"; echo; } >&2
  [[ -n $dry ]] || "$@"
}

# A command on hosts: `all`, or a number.
on() {
  local worker=$1
  shift
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$worker" \
    "--command=$(printf '%q ' bash pxy/experiments/pods/host.sh "$@")"
}

# ACTIVE, SUSPENDED, ...; NONE where there is no such resource, UNKNOWN for no answer.
state() {
  local said
  if said=$(run gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    '--format=value(state.state)' 2> "$tmp/err"); then
    echo "${said:-UNKNOWN}"
  elif grep -q NOT_FOUND "$tmp/err"; then
    echo NONE
  else
    echo UNKNOWN
  fi
  grep '^+' "$tmp/err" >&2 || true
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

create() {
  local options=("--node-id=$name" "${where[@]}" "--accelerator-type=$type")
  options+=("--runtime-version=$runtime")
  [[ -z $spot ]] || options+=(--spot)
  run gcloud compute tpus queued-resources create "$name" "${options[@]}"
}

# The commit and its environment on every host.
setup() {
  run git -C "$here/../.." archive --format=tar.gz --prefix=pxy/ \
    "--output=$tmp/pxy.tar.gz" HEAD || return
  run gcloud compute tpus tpu-vm scp "$tmp/pxy.tar.gz" "$name:pxy.tar.gz" \
    "${where[@]}" --worker=all || return
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all \
    --command='tar -xzf pxy.tar.gz' || return
  if [[ -n $nfs ]]; then on all mount "$nfs" || return; fi
  on all setup
}

start() {
  on all start "${bucket:-/mnt/pxy}/$name" "${train[@]}" --resume auto --save.grace "$grace"
}

# Watches a started run; sets `end` to finished, or to why it is not running.
watch() {
  while true; do
    if [[ -n $dry ]]; then
      on 0 status
      end=finished
      return
    fi
    end=$(on 0 status 2> /dev/null | tail -n 1) || end=lost
    [[ $end == running ]] || return 0
    sleep "$poll"
  done
}

up() {
  [[ -n $type ]] || die "--type: name the accelerator, such as v5litepod-64"
  [[ -n $bucket || -n $nfs ]] || die "--bucket: name where runs go, gs://BUCKET/FOLDER"
  [[ -z $bucket || -z $nfs ]] || die "--bucket, --nfs: name one of the two"
  [[ -z $bucket || $bucket == gs://?* ]] || die "--bucket $bucket: gs://BUCKET/FOLDER"
  bucket=${bucket%/}
  ((${#train[@]})) || die "name an experiment after --"
  if [[ -z $runtime ]]; then
    case $type in
      v6e-*) runtime=v2-alpha-tpuv6e ;;
      v5p-*) runtime=v2-alpha-tpuv5 ;;
      v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
      v4-*) runtime=tpu-ubuntu2204-base ;;
      *) die "--type $type: give its runtime version with --runtime" ;;
    esac
  fi
  local found ready='' asked='' left=$restarts said='' end=''
  while true; do
    found=$(state)
    [[ -z $dry ]] || { found=${asked:+ACTIVE}; found=${found:-NONE}; }
    [[ $found == "$said" ]] || echo "$name: $found"
    said=$found
    case $found in
      NONE)
        if [[ -n $asked ]]; then
          echo "$name was deleted; the same command goes on from its checkpoint"
          return 1
        fi
        create
        ;;
      FAILED | SUSPENDED)
        delete
        create
        ready='' left=$restarts
        ;;
      ACTIVE)
        if [[ -z $ready ]]; then
          # A host may not take connections yet, or be gone again.
          if ! setup || ! start; then
            sleep "$poll"
            continue
          fi
          ready=1
        fi
        watch
        echo "$name: run $end"
        case $end in
          finished) delete; return ;;
          'failed 2') die "the run cannot go on: see run.log of worker 0; then stop" ;;
          stopped | failed* | none)
            # Of a preemption, or of a host that died: the state tells in a moment.
            [[ -n $dry ]] || sleep "$poll"
            if [[ $(state) == ACTIVE ]]; then
              ((left-- > 0)) || die "started $restarts times; see run.log of worker 0"
              on all stop "$grace" || true
              start || ready=''
            fi
            ;;
          *) sleep "$poll" ;;
        esac
        ;;
      *) [[ -n $dry ]] || sleep "$poll" ;;
    esac
    asked=1
  done
}

stop() {
  on all stop "$((grace + 10))" || echo "$name: not every host answered" >&2
  delete
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$action"
