#!/bin/sh
# A throw-away machine for one runner: yard.sh BASE USER PROGRAM ARGUMENTS…
#
# Called in a mount namespace of its own. The root is an overlay over the machine's own,
# whose upper folder lies in BASE, where whoever called sees each change; people's folders
# are empty ones. Processes, network, host name and IPC are its own; and so is the user
# namespace, made last: its root can neither set the clock nor write a setting of the
# kernel, and can't undo the mounts made here, as they belong to the namespace above.
set -e
base=$1 user=$2
shift 2
root=$base/root
for folder in $HIDDEN; do
  mount --rbind "$base/hide/$folder" "$root/$folder"
done
exec unshare --pid --net --ipc --uts --mount --fork --kill-child sh -ec '
  root=$1 user=$2
  shift 2
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  for part in sys sysrq-trigger irq bus; do
    [ -e "$root/proc/$part" ] || continue
    mount --bind "$root/proc/$part" "$root/proc/$part"
    mount -o remount,bind,ro "$root/proc/$part"
  done
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
  mount -t tmpfs -o size=1m,mode=755 dev "$root/dev"
  for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
  mkdir "$root/dev/shm" "$root/dev/pts"
  chmod 1777 "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ip link set lo up
  cd "$root"
  pivot_root . .
  umount -l .
  cd /w
  exec 3<&0
  # Waits until somebody above has said whose numbers its users have.
  unshare --user --mount sh -c "
    while [ -z \"\$(cat /proc/self/uid_map)\" ]; do sleep 0.01; done
    user=\$1
    shift
    if [ \"\$user\" = root ]; then exec \"\$@\" <&3 3<&-; fi
    exec setpriv --reuid=\"\$user\" --regid=\"\$user\" --clear-groups \"\$@\" <&3 3<&-
  " sh "$user" "$@" 3<&3 &
  worker=$!
  above=$(readlink /proc/self/ns/user)
  while [ "$(readlink /proc/$worker/ns/user)" = "$above" ]; do sleep 0.01; done
  if ! cat /proc/self/uid_map | grep -q 4294967295; then
    # Not root up there: one user is all there is.
    echo deny >/proc/$worker/setgroups 2>/dev/null || true
    echo "0 0 1" >/proc/$worker/gid_map
    echo "0 0 1" >/proc/$worker/uid_map
  else
    echo "0 0 4294967295" >/proc/$worker/gid_map
    echo "0 0 4294967295" >/proc/$worker/uid_map
  fi
  wait $worker
' sh "$root" "$user" "$@"
