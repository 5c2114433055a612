#!/bin/sh
# Installs what `cargo build --release --features full` needs beside Rust and a C compiler: cmake (libopus is built
# from source), the ALSA headers and pkg-config (cpal). Works with apt, dnf, pacman and brew; asks for root by sudo
# where it is not root. Does nothing else.
set -eu

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null 2>&1; then sudo "$@"; else
        echo "prepare.sh: not root and no sudo; run as root: $*" >&2
        exit 1
    fi
}

if command -v apt-get >/dev/null 2>&1; then
    echo "prepare.sh: installing cmake, libasound2-dev, pkg-config, make and a C compiler by apt" >&2
    as_root apt-get update -q
    as_root apt-get install -y -q --no-install-recommends cmake make gcc g++ libc6-dev libasound2-dev pkg-config
elif command -v dnf >/dev/null 2>&1; then
    echo "prepare.sh: installing cmake, alsa-lib-devel, pkgconf and a C compiler by dnf" >&2
    as_root dnf install -y cmake make gcc gcc-c++ alsa-lib-devel pkgconf-pkg-config
elif command -v pacman >/dev/null 2>&1; then
    echo "prepare.sh: installing cmake, alsa-lib, pkgconf and a C compiler by pacman" >&2
    as_root pacman -S --needed --noconfirm cmake make gcc alsa-lib pkgconf
elif command -v brew >/dev/null 2>&1; then
    echo "prepare.sh: installing cmake and pkg-config by brew" >&2
    brew install cmake pkg-config
else
    echo "prepare.sh: no apt-get, dnf, pacman or brew here; install cmake, the ALSA headers and pkg-config by hand" >&2
    exit 1
fi
echo "prepare.sh: done; now: cargo build --release --features full" >&2
