# Sourced by scripts/* and .ci/run: brings the system packages and the .venv that scopefs needs.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
IMPORTS='import apsw, msgspec; from pyfuse3 import Operations'

# Debian's and Ubuntu's packages, each with what shows that it is not missing,
# whoever installed it. First what runs scopefs, then what its tests use besides.
RUN_PACKAGES=(
    "fuse3: command -v fusermount3"
    "gcc: command -v cc"
    "libc6-dev: echo '#include <limits.h>' | cc -E -"
    "pkg-config: command -v pkg-config"
    "libfuse3-dev: pkg-config --exists 'fuse3 >= 3.3.0'"
    "python3 python3-dev python3-venv: venv_works || find_python"
)
TEST_PACKAGES=(
    "^libpython3.*-testsuite$: python3 -c 'import test.test_tarfile'"
    "aria2: command -v aria2c"
    "attr: command -v setfattr"
    "bzip2: command -v bzip2"
    "cpio: command -v cpio"
    "curl: command -v curl"
    "dbench: command -v dbench"
    "e2fsprogs: test -x /sbin/mkfs.ext4"
    "ed: command -v ed"
    "emacs-nox: command -v emacs"
    "fio: command -v fio"
    "fish: command -v fish"
    "gdbmtool: command -v gdbmtool"
    "git: command -v git"
    "joe: command -v joe"
    "jq: command -v jq"
    "libglib2.0-bin: command -v gio"
    "mg: command -v mg"
    "micro: command -v micro"
    "moreutils: command -v sponge"
    "mount: test -x /sbin/losetup"
    "nano: command -v nano"
    "openssh-client: command -v sftp"
    "openssh-sftp-server: test -x /usr/lib/openssh/sftp-server"
    "p7zip-full: command -v 7z"
    "patch: command -v patch"
    "postmark: command -v postmark"
    "rsync: command -v rsync"
    "sqlite3: command -v sqlite3"
    "stress-ng: command -v stress-ng"
    "systemd: test -x /lib/systemd/systemd"
    "unzip: command -v unzip"
    "vim: command -v vim"
    "wget: command -v wget"
    "xfsprogs: test -x /sbin/mkfs.xfs"
    "xz-utils: command -v xz"
    "zip: command -v zip"
    "zstd: command -v zstd"
    "zsh: command -v zsh"
)

say() { printf 'scopefs: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Prints the Python to build the venv from: the first that is new enough and has what
# a venv and the building of pyfuse3 take. Not a venv's own, which may be gone tomorrow.
find_python() {
    local candidate candidates=(python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11)
    if [[ ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        "$candidate" - 2>/dev/null <<'EOF_PY' && return
import ensurepip, os, sys, sysconfig, venv
if sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"):
    sys.exit(1)
print(sys._base_executable)
EOF_PY
    done
    return 1
}

# Importing shows a venv whose Python or whose libfuse3 a system upgrade has replaced.
venv_works() {
    [[ $(cat "$VENV/made-for" 2>/dev/null) == "$ROOT ${PYTHON:-}" ]] &&
        "$VENV/bin/python" -c "$IMPORTS" 2>/dev/null
}

missing_packages() {
    local row
    for row in "$@"; do
        eval "${row#*: }" >/dev/null 2>&1 || printf '%s ' "${row%%: *}"
    done
}

ensure_packages() {
    local missing install
    missing=$(missing_packages "$@")
    missing=${missing% }
    [[ $missing ]] || return 0
    command -v apt-get >/dev/null ||
        die "please install what Debian calls: $missing, then run this again"
    ((EUID == 0)) || command -v sudo >/dev/null ||
        die "no root and no sudo here: have 'apt-get install $missing' run, then run this again"
    say "installing system packages: $missing"
    # shellcheck disable=SC2206  # a list of words
    install=(apt-get install -y --no-install-recommends $missing)
    # A fresh machine has no package lists, or old ones, and its own upgrades may hold the lock.
    "${install[@]}" --simulate >/dev/null 2>&1 || as_root apt-get -qq update >&2
    install=(env DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600)
    as_root "${install[@]}" >&2 </dev/null || {
        as_root apt-get -qq update >&2
        as_root "${install[@]}" >&2 </dev/null
    }
    missing=$(missing_packages "$@")
    [[ ! $missing ]] ||
        die "still missing after apt-get install: ${missing% }. Python must be 3.11 or newer; PYTHON=... names another"
}

pip_install() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$VENV/bin/python" "$@"
    else
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

# ensure_venv run|dev: .venv with scopefs, editable, and what that use of it takes.
ensure_venv() {
    local use=$1 wanted python
    cd "$ROOT"
    wanted=$(cat pyproject.toml .ci/requirements.txt | sha256sum)
    if venv_works && [[ $(cat "$VENV/installed-$use" 2>/dev/null) == "$wanted" ]]; then return; fi
    [[ -w $ROOT && (! -e $VENV || -w $VENV) ]] || die "cannot write to $VENV: who owns it?"
    say "installing Python packages into $VENV (about a minute)"
    if ! venv_works; then
        python=$(find_python)
        rm -rf "$VENV"
        "$python" -m venv "$VENV"
    fi
    if [[ $use == dev ]]; then
        pip_install -c .ci/requirements.txt -e '.[dev]'
    else
        pip_install -c .ci/requirements.txt -e .
    fi
    echo "$ROOT ${PYTHON:-}" >"$VENV/made-for"
    # pip and uv keep the pyfuse3 that they built, even for a libfuse3 that is no more.
    venv_works || pip_install --no-cache-dir --force-reinstall --no-deps -c .ci/requirements.txt pyfuse3
    venv_works || "$VENV/bin/python" -c "$IMPORTS"
    echo "$wanted" >"$VENV/installed-$use"
}

# ensure run|dev: all that this use of scopefs takes.
ensure() {
    [[ ! ${PYTHON:-} ]] || find_python >/dev/null ||
        die "PYTHON=$PYTHON is no Python 3.11 or newer with venv, ensurepip and Python.h"
    case $1 in
    run) ensure_packages "${RUN_PACKAGES[@]}" ;;
    dev) ensure_packages "${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}" ;;
    esac
    (ensure_venv "$1")
}
