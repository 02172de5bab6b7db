#!/usr/bin/env bash
# A `systemd --user` of its own, apart from the machine's, until standard input ends:
#
#     unshare --mount --propagation private bash user_manager.sh UID GID NAME LOG HOME [DIR...]
#
# Run by root, in a new mount namespace. Says "begun" once the manager has been started; from then
# on /run/enter runs a command as its user. NAME is the cgroup of all these processes; at the end
# they are killed and it is removed, and with the last process the namespace goes, with whatever is
# still mounted in it. The user can reach HOME and each DIR, even where only root may look.
set -euo pipefail
uid=$1 gid=$2 name=$3 log=$4 home=$5
needed=("${@:5}")
as_user=(setpriv --reuid="$uid" --regid="$gid" --clear-groups)
environment=(
    env -i PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
    HOME="$home" XDG_RUNTIME_DIR="/run/user/$uid"
)

# What a booted machine has: systemd and its tools look for the first directory.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/user
install -d -m 700 -o "$uid" -g "$gid" "/run/user/$uid"
# The machine's own choice of units to start at login is none of ours.
[[ ! -d /etc/systemd/user ]] || mount -t tmpfs -o mode=755 tmpfs /etc/systemd/user

# udev lets everybody use it; a container or a small VM may have it for root alone.
if [[ $(stat -c %a /dev/fuse) != 666 ]]; then
    mknod -m 666 /run/fuse c 10 229
    mount --bind /run/fuse /dev/fuse
fi

# What is out of the user's reach is shown again, at the same path, below an empty top directory.
declare -A barred=()
for directory in "${needed[@]}"; do
    mkdir -p "/run/needed$directory"
    mount --rbind "$directory" "/run/needed$directory"
    if ! "${as_user[@]}" test -x "$directory"; then
        top=${directory#/}
        barred[/${top%%/*}]=yes
    fi
done
for top in "${!barred[@]}"; do
    mount -t tmpfs -o mode=1777 tmpfs "$top"
    for directory in "${needed[@]}"; do
        if [[ $directory == "$top"/* ]]; then
            mkdir -p "$directory"
            mount --rbind "/run/needed$directory" "$directory"
        fi
    done
done

# A manager moves all processes of what it takes for the root cgroup, this machine's too if it can:
# it sees none but its own, in a cgroup namespace.
mkdir /run/cgroup
mount -t cgroup2 cgroup2 /run/cgroup
cgroup=/run/cgroup/$name
mkdir "$cgroup" "$cgroup/manager" "$cgroup/commands"
chown "$uid:$gid" "$cgroup/manager" "$cgroup/manager/"cgroup.{procs,subtree_control}

end() {
    echo 1 >"$cgroup/cgroup.kill"
    local deadline=$((SECONDS + 20))
    until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do
        ((SECONDS < deadline)) || { echo "$cgroup cannot be removed" >&2; return 1; }
    done
}
trap end EXIT

mountpoint -q /sys || mount -t sysfs sysfs /sys
(
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    # shellcheck disable=SC2016  # expanded by the new shell
    exec unshare --cgroup sh -c '
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        echo $$ >/sys/fs/cgroup/manager/cgroup.procs
        exec "$@"' sh \
        "${as_user[@]}" "${environment[@]}" SYSTEMD_LOG_TARGET=console /lib/systemd/systemd --user
) </dev/null >>"$log" 2>&1 &
manager=$!
disown
until grep -q 'populated 1' "$cgroup/manager/cgroup.events"; do kill -0 "$manager"; done

cat >/run/enter <<END
echo \$\$ >$cgroup/commands/cgroup.procs
exec nsenter --cgroup=/proc/$manager/ns/cgroup ${as_user[*]@Q} ${environment[*]@Q} "\$@"
END
echo begun
exec >/dev/null
read -r _ || true
