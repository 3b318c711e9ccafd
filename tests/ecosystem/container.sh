#!/usr/bin/env bash
# The Dockerfile's steps where there is no Docker: in a Debian chroot, built as root with debootstrap. Then one CT is segmented as
# `docker run --network none --read-only --user 1000` would do it, and what the container promises is checked.
#
#   sudo tests/ecosystem/container.sh CT OUT [ROOT]
#
# CT is a file, OUT a new folder for its results, ROOT where the chroot is made (2.5 GB; default: a new folder, removed at the end).
set -euo pipefail
cd "$(dirname "$0")/../.."
ct=$(realpath "$1") out=$(realpath -m "$2") root=${3:-}
[ -n "$root" ] || { root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT; }

if [ ! -e "$root/usr/bin/python3" ]; then
    debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates bookworm "$root"
fi
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED  # Docker's Python image has none, and calls it `python`
cp /etc/resolv.conf "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # this machine's may know a proxy's
mkdir -p "$root/src" "$root/in" "$root/out"
git archive HEAD | tar x -C "$root/src"

field() { sed -n "s/^$1 *//p" Dockerfile; }
index=$(field 'ARG INDEX=')
run=$(sed -n '/^RUN /,/[^\\]$/p' Dockerfile | sed 's/^RUN //')
chroot "$root" env INDEX="$index" sh -ec "$run"
du -sm "$root"

mkdir "$out" && chown "$(field USER)" "$out"
read -r -a settings <<< "$(field ENV)"
entry=$(field ENTRYPOINT | tr -d '[]"')
export root ct out entry
unshare --mount --net bash -ec '
    mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc" && mount -t tmpfs tmpfs "$root/tmp" && mount --bind /dev "$root/dev"
    mount --bind "$(dirname "$ct")" "$root/in" && mount -o remount,bind,ro "$root/in"
    mount --bind "$out" "$root/out"
    inside() { chroot --userspec="$0:$0" "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin "$@"; }
    for file in /forbidden /in/forbidden; do  # not even by root
        ! chroot "$root" touch "$file" 2> /dev/null || { echo "$file can be written"; exit 1; }
    done
    ! inside python3 -c "import socket; socket.create_connection((\"192.0.2.1\", 80), 2)" 2> /dev/null || { echo "there is a network"; exit 1; }
    test "$(inside id -u)" = "$0"
    inside "$@" "$entry" segment "/in/$(basename "$ct")" -o /out
' "$(field USER)" "${settings[@]}"
find "$out" -type f
