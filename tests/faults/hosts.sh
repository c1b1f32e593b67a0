#!/usr/bin/env bash
# Three hosts on one machine: head, worker, driver, each with a network, processes and /tmp/ray of its own.
#
#   sudo tests/faults/hosts.sh FOLDER COMMAND ...      # runs `pretextflow COMMAND` on the driver's host; FOLDER is shared
#
# All are started by infra/entrypoint.sh, as the container image does. Ends with the command's exit status and leaves
# neither processes nor networks.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$1
shift
name=pf$$
again=

finish() {
  kill -9 "$again" 2>/dev/null || true
  for host in head worker driver; do
    ip netns pids "$name-$host" 2>/dev/null | xargs -r kill -9 || true
    ip netns del "$name-$host" 2>/dev/null || true
    ip link del "$name-${host:0:1}" 2>/dev/null || true
  done
  ip link del "$name" 2>/dev/null || true
}
trap finish EXIT

ip link add "$name" type bridge
ip link set "$name" up
number=1
for host in head worker driver; do
  ip netns add "$name-$host"
  ip link add "$name-${host:0:1}" type veth peer name eth0 netns "$name-$host"
  ip link set "$name-${host:0:1}" master "$name" up
  ip -n "$name-$host" addr add "10.77.0.$number/24" dev eth0
  ip -n "$name-$host" link set eth0 up
  ip -n "$name-$host" link set lo up
  mkdir -p "$folder/ray-$host" "$folder/home-$host"
  number=$((number + 1))
done
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/token"
chmod 600 "$folder/token"

on() {  # Ray looks for nodes among all processes that it sees: each host sees its own only
  local host=$1 address=$2
  shift 2
  # shellcheck disable=SC2016  # the inner shell's variables
  ip netns exec "$name-$host" unshare --mount --pid --fork --mount-proc --kill-child \
    sh -c 'mkdir -p /tmp/ray && mount --bind "$0" /tmp/ray && exec "$@"' "$folder/ray-$host" \
    env -u TMPDIR HOME="$folder/home-$host" NODE_IP="$address" RAY_AUTH_TOKEN_PATH="$folder/token" RAY_HEAD_ADDRESS=10.77.0.1:6379 \
    PYTHONPATH="$root" bash "$root/infra/entrypoint.sh" "$@"
}

again() {  # as compose's `restart: unless-stopped` does: a node that the head has given up ends
  while true; do
    "$@" || true
    sleep 1
  done
}

on head 10.77.0.1 head > "$folder/head.log" 2>&1 &
NODE_CPUS=3 again on worker 10.77.0.2 worker > "$folder/worker.log" 2>&1 &
again=$!
on driver 10.77.0.3 driver "$@"
