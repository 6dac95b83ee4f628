# Shared by the scripts: the virtual environment, made from the lock files.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
venv=$root/.venv

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "socketpool needs Python 3.11 or newer; install python3, or name one: PYTHON=/path/to/python3 $0" >&2
    return 2
}

# install_packages NAME...: with apt, if this user may.
install_packages() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo=(sudo -n)
    fi
    echo "installing with apt-get: $*" >&2
    { "${sudo[@]}" apt-get update -qq && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null 2>&1
}

# Debian splits the venv module from python3.
ensure_venv_module() {
    "$1" -c 'import venv, ensurepip' 2>/dev/null && return
    if ! install_packages python3-venv; then
        echo "could not install it; as root: apt-get install python3-venv, then run $0 again" >&2
        return 2
    fi
}

# Other programs that make and read archives: tests compare with them.
ensure_archivers() {
    local program
    for program in zip unzip 7z bsdtar; do
        command -v "$program" >/dev/null && continue
        install_packages zip unzip p7zip-full libarchive-tools ||
            echo "could not install them: tests that compare with other archivers will be skipped" >&2
        return 0
    done
}

# Programs that the services of services/extra run.
ensure_databases() {
    command -v redis-server >/dev/null && command -v psql >/dev/null &&
        { command -v postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres'; } >/dev/null && return
    install_packages redis-server postgresql ||
        echo "could not install redis-server and postgresql: tests of services/extra will fail" >&2
    return 0
}

# What benchmarks compare with: programs of Debian unpacked and not installed, so that no daemon is
# started and no root needed, and others in Python in an environment of their own.
ensure_peers() {
    local lock=requirements/peers.lock python=$root/.venv-peers programs=$root/benchmarks/.peers work
    [ "$(cat "$python/.stamp" 2>/dev/null)" = "$(sha256sum <"$lock")" ] && return
    echo "fetching peers to compare with (once) ..." >&2
    work=$(mktemp -d)
    rm -rf "$python" "$programs"
    if (cd "$work" && apt-get download xinetd openbsd-inetd ucspi-tcp) >/dev/null 2>&1 &&
        mkdir -p "$programs" && for package in "$work"/*.deb; do dpkg -x "$package" "$programs"; done &&
        "$venv/bin/python" -m venv "$python" &&
        "$python/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"; then
        sha256sum <"$lock" >"$python/.stamp"
    else
        echo "could not fetch all of them: some comparisons will be left out" >&2
    fi
    rm -rf "$work"
}

# Tests of the tunnel talk to real servers; Ansible comes by ssh too.
ensure_sshd() {
    { command -v sshd || [ -x /usr/sbin/sshd ]; } >/dev/null && command -v ssh-keygen >/dev/null &&
        { command -v dropbear || [ -x /usr/sbin/dropbear ]; } >/dev/null && return
    if ! install_packages openssh-server openssh-client dropbear-bin; then
        echo "could not install them; as root: apt-get install openssh-server openssh-client dropbear-bin, then run $0 again" >&2
        return 2
    fi
}

# ensure_venv demo|dev: dev has all that demo has.
ensure_venv() {
    local lock=requirements/$1.lock stamp=$venv/.stamp-$1 python wanted
    wanted=$(cat pyproject.toml "requirements/$1.lock" | sha256sum)
    [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    python=$(find_python) || return
    ensure_venv_module "$python" || return
    echo "setting up $venv from $lock (once) ..." >&2
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$venv"
        "$python" -m venv "$venv" || return
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" || return
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . || return
    echo "$wanted" >"$stamp"
    if [ "$1" = dev ]; then
        cat pyproject.toml requirements/demo.lock | sha256sum >"$venv/.stamp-demo"
    fi
}

# An engine that already answers is used; one that is started here is stopped when the script ends.
ensure_docker() {
    docker info >/dev/null 2>&1 && return
    if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
        if ! install_packages docker.io iptables; then
            echo "could not install Docker; install it and let this account use it, then run $0 again" >&2
            return 2
        fi
        docker info >/dev/null 2>&1 && return # systemd has started it
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "no Docker engine answers, and only root can start one: start it, then run $0 again" >&2
        return 2
    fi
    # Where systemd doesn't run, its hierarchy may be missing; containers that run systemd need it.
    if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && ! grep -q name=systemd /proc/mounts; then
        mkdir -p /sys/fs/cgroup/systemd 2>/dev/null ||
            { mount -o remount,rw /sys/fs/cgroup && mkdir /sys/fs/cgroup/systemd; } || return
        mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd || return
    fi
    echo "starting a Docker engine ..." >&2
    mkdir -p "$root/build"
    dockerd >"$root/build/dockerd.log" 2>&1 &
    docker_pid=$!
    for _ in $(seq 120); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$docker_pid" 2>/dev/null || break
        sleep 0.5
    done
    echo "the Docker engine does not start; see $root/build/dockerd.log" >&2
    return 2
}

stop_docker() {
    [ -z "${docker_pid:-}" ] || { kill "$docker_pid" && wait "$docker_pid" || true; } 2>/dev/null
}

# ensure_image SUITE: that of a bare host with this Debian, made once: from a registry's image if one
# answers, else with apt.
ensure_image() {
    local suite=$1 file=tests/e2e/deploy/target.Dockerfile base=socketpool-test/debian:$1 wanted tar
    wanted=$(sha256sum <"$file" | cut -c-12)
    [ "$(docker inspect --format '{{index .Config.Labels "recipe"}}' "socketpool-test/target:$suite" 2>/dev/null)" = "$wanted" ] && return
    if ! docker image inspect "$base" >/dev/null 2>&1; then
        if timeout 120 docker pull --quiet "debian:$suite-slim" >/dev/null 2>&1; then
            docker tag "debian:$suite-slim" "$base"
        else
            command -v mmdebstrap >/dev/null || install_packages mmdebstrap || return
            echo "making an image of Debian $suite (once) ..." >&2
            tar=$(mktemp --suffix .tar)
            mmdebstrap --quiet --variant=minbase --include=ca-certificates "$suite" "$tar" &&
                docker import "$tar" "$base" >/dev/null || return
            rm -f "$tar"
        fi
    fi
    docker build --quiet --build-arg "BASE=$base" --label "recipe=$wanted" --tag "socketpool-test/target:$suite" \
        - <"$file" >/dev/null
}

# ensure_ansible [-oldest]: in an environment of its own, so that nothing else drags it in.
ensure_ansible() {
    local home=$root/.venv-deploy${1:-} lock=requirements/deploy${1:-}.lock wanted
    wanted=$(sha256sum <"$lock")
    [ "$(cat "$home/.stamp" 2>/dev/null)" = "$wanted" ] && return
    echo "setting up $home from $lock (once) ..." >&2
    "$venv/bin/python" -m venv --clear "$home" || return
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" || return
    echo "$wanted" >"$home/.stamp"
}
