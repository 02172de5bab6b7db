# Sourced by scripts/try-readme and scripts/soak_boot: a bare Debian in a temporary directory.
# shellcheck shell=bash

# in_tree COMMAND...: runs it with $TREE an empty directory, in mount and process namespaces of its
# own. So no mount is seen outside, and all that was started ends with this, Ctrl+C or not.
in_tree() {
    ((EUID == 0)) || die "this makes a Debian in a directory: run it as root"
    # None but root comes near it from outside, as its programs are those of its own users.
    TREE=$(mktemp -d -t scopefs-tree-XXXXXXXX)/debian
    export TREE
    mkdir "$TREE"
    trap end_tree EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # In the background, as bash looks at signals only after what runs in front. A slave: what is
    # unmounted outside is let go of in here too, or it would live on.
    unshare --mount --propagation slave --pid --fork --kill-child --mount-proc \
        env --default-signal=INT,QUIT "$@" &
    TREE_PROCESS=$!
    wait "$TREE_PROCESS"
}

end_tree() {
    kill -KILL "${TREE_PROCESS:-}" 2>/dev/null || true
    wait 2>/dev/null
    # shellcheck disable=SC2016  # expanded by the new shell
    [[ ! -e $TREE/../cgroup ]] || unshare --mount --propagation private bash -c '
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        until find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.2; done
    ' - "$(<"$TREE/../cgroup")"
    # The last processes in there may still be going.
    until rm -rf --one-file-system "$(dirname "$TREE")"; do sleep 1; done
}

# begin_cgroup: a cgroup of its own for what is booted here, removed at the end. Of all hierarchies
# that a machine may have the container sees the unified one alone, and needs no more.
begin_cgroup() {
    local name
    name=$(basename "$(dirname "$TREE")")
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir "/sys/fs/cgroup/$name"
    echo "$name" >"$TREE/../cgroup"
    echo 0 >"/sys/fs/cgroup/$name/cgroup.procs"
}

# make_tree PACKAGE,...: fills $TREE with the Debian or Ubuntu that this machine is, and tells its
# apt and pip what those of this machine are told: where the mirror is, how it is reached.
make_tree() {
    local suite mirror told
    ensure_packages "debootstrap: test -x /usr/sbin/debootstrap"
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016  # apt's own variable
    read -r mirror < <(apt-get indextargets --format '$(REPO_URI)' \
        "Created-By: Packages" "Codename: $suite" "Component: main") ||
        die "apt knows no mirror of $suite here"
    say "making a bare $suite in $TREE (about half a minute)"
    told=$(debootstrap --variant=minbase --include="$1" "$suite" "$TREE" "$mirror" 2>&1) ||
        die "debootstrap failed: $told"
    apt-config dump Acquire >"$TREE/etc/apt/apt.conf.d/90machine"
    { echo "[global]"; pip_settings | sed -E "s#(file://|[= ])/#\1/machine/#g"; } >"$TREE/etc/pip.conf"
    echo "127.0.0.1 localhost $(hostname)" >"$TREE/etc/hosts"
}

# What pip is told, by files and by variables, which come first.
pip_settings() {
    "$VENV/bin/python" -m pip config list | sed -nE "s/^[^=]*\.([a-z-]+)='(.*)'$/\1 = \2/p" |
        awk '!seen[$1]++'
}

# The directories and files of this machine that these settings name; in the tree they are below
# /machine. Of an index it is the directory above, as its pages may point there.
pip_places() {
    local word
    for word in $(pip_settings); do
        case $word in
        file:///*) word=$(dirname "${word#file://}") ;;
        /*) ;;
        *) continue ;;
        esac
        [[ ! -e $word ]] || echo "$word"
    done
}

# copy_checkout DIRECTORY [--worktree]: what is committed, or what lies here.
copy_checkout() {
    mkdir -p "$1"
    if [[ ${2:-} == --worktree ]]; then
        git -C "$ROOT" ls-files -z --cached --others --exclude-standard |
            tar -C "$ROOT" --null --ignore-failed-read -T - -c 2>/dev/null
    else
        git -C "$ROOT" archive HEAD
    fi | tar -C "$1" -x
}
