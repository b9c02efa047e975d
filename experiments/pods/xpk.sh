#!/usr/bin/env bash
# pxy train on a TPU slice of a GKE cluster, through xpk (pip install xpk).
#
#   xpk.sh up   --name N --cluster C --type T --folder gs://B/PATH [OPTIONS] \
#               -- experiments/qwen3_4b_math.py [OPTIONS OF pxy train]
#   xpk.sh stop --name N --cluster C [--project P] [--zone Z]
#
#   --name     of the workload, and of the run's folder below --folder
#   --type     of the slice, as xpk names it: v5litepod-64, v5p-32, v6e-16
#   --folder   gs://BUCKET/FOLDER, where the workload's service account has the role
#              storage.objectAdmin; or /MOUNT, where the cluster mounts a shared file
#              system into each workload (xpk storage, Filestore, auto-mount)
#   --image    with Python >= 3.11 and make; default python:3.12
#   --project, --zone   default: gcloud's
#   --grace    seconds from SIGTERM to the end, the checkpoint saved; default 120
#   --tries    workloads, one after the other, before it gives up; default 10
#   --dry-run  print each command, run none
#
# up has xpk put the last commit into the image, start it on every host, and start it
# again (50 times a workload) when a host is preempted or a process fails; the run goes on
# from its newest checkpoint. It returns when the run is finished. To end up itself
# (Ctrl-C) does not end the run. stop deletes the workload: every host gets SIGTERM, saves a
# checkpoint together, and ends.
#
# Tested against an xpk that plays along (tests/test_pods.py), not on a cluster.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() { echo "xpk.sh: $*" >&2; exit 2; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

action=${1-}
[[ $action == up || $action == stop ]] || { usage >&2; exit 2; }
shift
name='' cluster='' type='' folder='' project='' zone='' dry=''
image=python:3.12 grace=120 tries=10 train=()
while (($#)); do
  case $1 in
    --dry-run) dry=1 ;;
    --name | --cluster | --type | --folder | --image | --project | --zone | --grace | \
      --tries)
      (($# > 1)) || die "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --) shift; train=("$@"); break ;;
    *) die "unknown option $1" ;;
  esac
  shift
done
[[ -n $name ]] || die "--name: give the workload a name"
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || die "--name $name: lower-case letters, digits and -"
[[ -n $cluster ]] || die "--cluster: name the cluster"
[[ $grace =~ ^[0-9]+$ && $tries =~ ^[0-9]+$ ]] || die "--grace, --tries: numbers"
where=("--cluster=$cluster")
[[ -z $project ]] || where+=("--project=$project")
[[ -z $zone ]] || where+=("--zone=$zone")

# Prints a command, and runs it unless this is a dry run.
run() {
  { printf '+'; printf ' %q' "$@"; echo; } >&2
  [[ -n $dry ]] || "$@"
}

# The last commit alone: not .venv, nor the runs.
checkout() {
  run git -C "$here/../.." archive --format=tar "--output=$tmp/pxy.tar" HEAD
  run mkdir -p "$tmp/pxy"
  run tar -xf "$tmp/pxy.tar" -C "$tmp/pxy"
}

create() {
  # exec: SIGTERM has to reach pxy itself.
  local command='PYTHON=python3 bash experiments/pods/host.sh setup &&'
  command+=" exec .venv/bin/pxy train$(printf ' %q' "${train[@]}" --out \
    "${folder%/}/$name" --resume auto --save.grace "$grace")"
  run xpk workload create "--workload=$name" "${where[@]}" "--tpu-type=$type" \
    --num-slices=1 "--base-docker-image=$image" "--script-dir=$tmp/pxy" \
    --max-restarts=50 --restart-on-user-code-failure \
    "--termination-grace-period-seconds=$((grace + 30))" \
    --env=PXY_PROCESSES=auto "--command=$command"
}

delete() {
  run xpk workload delete "--workload=$name" "${where[@]}" --force
}

up() {
  [[ -n $type ]] || die "--type: name the slice, such as v5litepod-64"
  [[ $folder == /* || $folder == gs://?* ]] || \
    die "--folder: gs://BUCKET/FOLDER, or the path that a file system is mounted at"
  ((${#train[@]})) || die "name an experiment after --"
  local code
  checkout
  while ((tries-- > 0)); do
    create
    code=0
    run xpk workload list "${where[@]}" "--wait-for-job-completion=$name" || code=$?
    case $code in
      0) echo "$name: finished"; return ;;
      125) echo "$name: failed; once more" ;;
      *) die "lost sight of $name (xpk ended with $code); see xpk workload list" ;;
    esac
    delete
  done
  die "given up; see the logs of the workload"
}

stop() { delete; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$action"
