#!/usr/bin/env bash
# Tests the packages that scripts/package.sh made, as root, on a machine of Debian: lintian and rpmlint, and in a chroot of each
# SUITE the tarball and the Debian package, which are installed, used, upgraded, removed and purged.
#
#   scripts/package-test.sh [SUITE...]     default: bullseye bookworm
# shellcheck disable=SC2016  # Scripts for other shells are quoted.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$PWD/target/package
[ "$(id -u)" = 0 ] || { echo "package-test: only root can make a chroot" >&2; exit 1; }
tarball=$(ls "$out"/s4-*-"$(uname -m)"-linux.tar.xz)
deb=$(ls "$out"/s4_*_"$(dpkg --print-architecture)".deb)
suites=("$@")
[ $# -gt 0 ] || suites=(bullseye bookworm)
work=$(mktemp -d "${TMPDIR:-/tmp}/s4-package-XXXXXX")
trap 'rm -rf "$work"' EXIT

say() { printf '== %s\n' "$*"; }
fail() { echo "package-test: $*" >&2; exit 1; }

inside() { # inside ROOT: runs the script on stdin in the chroot, with processes, mounts and a network of its own
    # shellcheck disable=SC2016
    unshare --mount --pid --net --fork --kill-child bash -c '
        set -e
        ip link set lo up
        mount -t proc proc "$1/proc"
        [ -e "$1/dev/fuse" ] || mknod -m 666 "$1/dev/fuse" c 10 229
        exec chroot "$1" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive bash -euo pipefail
    ' _ "$1"
}

files() { # files ROOT: every file of the chroot but those that packages and users change by the way
    (cd "$1" && find . -path ./proc -prune -o -path ./var/lib/dpkg -prune -o -path ./var/log -prune -o -path ./var/cache -prune -o \
        -path ./srv/s4 -prune -o -path './etc/*-' -prune -o -path ./dev/fuse -prune -o -print | sort)
}

# A cluster of one node that holds a key, maps it, and shows it in a mount, is used and ended.
use='
id s4 >/dev/null
echo 127.0.0.1:8080 >/etc/s4.conf
install -d -o s4 -g s4 /srv/s4
as_s4="setpriv --reuid=s4 --regid=s4 --clear-groups"
export S4_CONF_PATH=/etc/s4.conf
$as_s4 s4-server --conf /etc/s4.conf --data /srv/s4/data --init
$as_s4 s4-server --conf /etc/s4.conf --data /srv/s4/data --reserve 0 --log warn &
server=$!
for _ in $(seq 100); do s4 health >/dev/null 2>&1 && break; sleep 0.1; done
s4 health
[ -n "${HAS_KEY:-}" ] || echo hello | s4 cp - s4://in/0_a
s4 rm -r s4://out/ 2>/dev/null || true
s4 map s4://in/ s4://out/ "tr a-z A-Z"
[ "$(s4 cp s4://out/0_a -)" = HELLO ]
s4-mount --background /s4
[ "$(cat /s4/in/0_a)" = hello ]
s4 umount /s4
rmdir /s4
s4-s3 --version
kill $server
wait $server
'

installed='
for program in s4 s4-server s4-mount s4-s3; do test -x "$BIN/$program"; "$BIN/$program" --version; done
[ "$(readlink -f /sbin/mount.s4)" = "$BIN/s4-mount" ]
test -f /etc/default/s4-server
'

test_tarball() { # test_tarball ROOT
    local root=$1 name
    name=$(basename "$tarball" .tar.xz)
    tar -C "$root/opt" -xf "$tarball"
    files "$root" >"$work/before"
    inside "$root" <<<"/opt/$name/install.sh; BIN=/usr/local/bin; $installed
        $use"
    echo kept >"$root/etc/s4.conf"
    inside "$root" <<<"/opt/$name/install.sh; grep -qx kept /etc/s4.conf; /opt/$name/install.sh --remove; [ ! -e /usr/local/bin/s4 ]"
    rm -r "$root/etc/s4.conf" "$root"/etc/default/s4-* "$root/srv/s4"
    inside "$root" <<<'userdel s4'
    files "$root" >"$work/after"
    # Directories that the first package with such files makes.
    comm -13 "$work/before" "$work/after" >"$work/left"
    while read -r path; do
        [ -d "$root/$path" ] || fail "the tarball left $path"
    done <"$work/left"
    # As an ordinary user, in a directory of its own.
    inside "$root" <<<"setpriv --reuid=65534 --regid=65534 --clear-groups /opt/$name/install.sh --prefix /tmp/own; /tmp/own/bin/s4 --version"
    rm -rf "$root/opt/$name" "$root/tmp/own"
}

test_deb() { # test_deb ROOT
    local root=$1 newer=$work/newer
    files "$root" >"$work/before"
    cp "$deb" "$root/s4.deb"
    inside "$root" <<<"
        dpkg -i /s4.deb
        BIN=/usr/bin
        $installed
        $use
        dpkg --verify s4 | grep -v /etc/s4.conf && exit 1 || true"
    rm -rf "$newer"
    dpkg-deb -R "$deb" "$newer"
    sed -i 's/^Version: .*/Version: 99/' "$newer/DEBIAN/control"
    echo '# newer' >>"$newer/etc/default/s4-mount"
    dpkg-deb --root-owner-group -b "$newer" "$root/newer.deb" >/dev/null
    inside "$root" <<<"
        dpkg -i /newer.deb
        grep -qx 127.0.0.1:8080 /etc/s4.conf
        grep -qx '# newer' /etc/default/s4-mount
        HAS_KEY=1
        $use
        dpkg -r s4
        [ ! -e /usr/bin/s4 ]
        test -f /etc/s4.conf
        dpkg -P s4
        test -f /srv/s4/data/in/0_a
        userdel s4"
    rm -r "$root/s4.deb" "$root/newer.deb" "$root/srv/s4"
    files "$root" >"$work/after"
    diff "$work/before" "$work/after" || fail "the package left these"
}

say "lintian"
lintian --allow-root --fail-on error,warning "$deb"
if command -v rpmlint >/dev/null; then
    say "rpmlint"
    rpmlint --config packaging/rpm/rpmlint.toml "$out"/s4-*.rpm
else
    say "rpmlint is not here: apt-get install rpmlint"
fi
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }')
for suite in "${suites[@]}"; do
    say "a chroot of $suite"
    root=$work/$suite
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" || { tail -n 5 "$work/log"; fail "no chroot of $suite"; }
    chroot "$root" ldd --version | sed -n 1p
    say "the tarball in $suite"
    test_tarball "$root"
    say "the Debian package in $suite"
    test_deb "$root"
done
say "passed"
