#!/usr/bin/env bash
# Start one role of a cluster in the foreground; what follows the role is passed on.
#
#   entrypoint.sh head                       Ray's head; runs no tasks unless RAY_HEAD_CPUS says otherwise
#   entrypoint.sh worker                     a Ray node that joins RAY_HEAD_ADDRESS (host:port)
#   entrypoint.sh prefect-worker             takes scheduled runs from the pool PREFECT_POOL
#   entrypoint.sh driver run RECIPE ...      one pretextflow command
#
# The last two use the cluster whose job server RAY_JOB_SERVER names (http://host:8265): each stage is a Ray job there. With
# RAY_HEAD_ADDRESS instead they start a Ray node without CPUs of their own; the driver with neither uses a local Ray.
# Every node needs the cluster's token: RAY_AUTH_TOKEN_PATH names the file, or RAY_AUTH_TOKEN holds it.
# NODE_IP: this host's address, where it has several. NODE_CPUS, NODE_GPUS: what a worker offers, where Ray should not count.
set -euo pipefail

role=${1:-}
[ $# -gt 0 ] && shift
port=${RAY_PORT:-6379}
wait_seconds=${RAY_WAIT_SECONDS:-300}
address=(${NODE_IP:+--node-ip-address="$NODE_IP"})
common=(--disable-usage-stats "${address[@]}" ${RAY_TEMP_DIR:+--temp-dir="$RAY_TEMP_DIR"})

say() { echo "pretextflow $role: $*" >&2; }

need_token() {
  [ "${RAY_AUTH_MODE:-token}" = token ] || return 0
  [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ] && return 0
  say "no token: write one to a file that all nodes have and name it in RAY_AUTH_TOKEN_PATH"
  exit 2
}

wait_for_head() {
  : "${RAY_HEAD_ADDRESS:?host:port of the cluster\'s head}"
  local host=${RAY_HEAD_ADDRESS%:*} number=${RAY_HEAD_ADDRESS##*:} until=$((SECONDS + wait_seconds))
  until (exec 3<>"/dev/tcp/$host/$number") 2>/dev/null; do
    [ "$SECONDS" -lt "$until" ] || { say "nothing answers at $RAY_HEAD_ADDRESS after $wait_seconds s"; exit 1; }
    sleep 1
  done
}

reach_cluster() {  # by jobs; else by a node, which Ray wants on the host of whoever drives it
  need_token
  [ -z "${RAY_JOB_SERVER:-}" ] || { export RAY_ADDRESS=$RAY_JOB_SERVER; return 0; }
  wait_for_head
  ray start --address="$RAY_HEAD_ADDRESS" --num-cpus=0 --num-gpus=0 "${common[@]}" >&2
  export RAY_ADDRESS=$RAY_HEAD_ADDRESS
}

export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
case $role in
  head)
    need_token
    exec ray start --head --port="$port" --num-cpus="${RAY_HEAD_CPUS:-0}" --num-gpus="${RAY_HEAD_GPUS:-0}" \
      --dashboard-host="${RAY_DASHBOARD_HOST:-127.0.0.1}" --metrics-export-port="${RAY_METRICS_PORT:-8080}" \
      --block "${common[@]}" "$@"
    ;;
  worker)
    need_token
    wait_for_head
    exec ray start --address="$RAY_HEAD_ADDRESS" --metrics-export-port="${RAY_METRICS_PORT:-8080}" --block \
      ${NODE_CPUS:+--num-cpus="$NODE_CPUS"} ${NODE_GPUS:+--num-gpus="$NODE_GPUS"} "${common[@]}" "$@"
    ;;
  prefect-worker)
    : "${PREFECT_API_URL:?address of the Prefect server, as in http://prefect:4200/api}"
    reach_cluster
    exec prefect worker start --pool "${PREFECT_POOL:-pretextflow}" --type process "$@"
    ;;
  driver)
    [ -z "${RAY_HEAD_ADDRESS:-}${RAY_JOB_SERVER:-}" ] || reach_cluster
    exec pretextflow "$@"
    ;;
  *)
    echo "usage: $0 head | worker | prefect-worker | driver COMMAND ..." >&2
    exit 2
    ;;
esac
