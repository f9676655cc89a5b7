#!/bin/sh
# Installs s4 from this directory: ./install.sh [--prefix DIR] [--remove]
# With the default prefix, /usr/local, and as root: the units for systemd and the user s4, too. Files in /etc that are there
# are left alone. --remove takes away what was installed, and neither /etc nor keys.
set -eu

prefix=/usr/local
remove=
while [ $# -gt 0 ]; do
    case "$1" in
    --prefix)
        [ $# -ge 2 ] || { echo "install: --prefix needs a directory" >&2; exit 2; }
        prefix=$2
        shift
        ;;
    --remove) remove=1 ;;
    *)
        sed -n '2,4s/^# //p' "$0"
        [ "$1" = --help ] && exit 0
        exit 2
        ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd)
system=
[ "$(id -u)" = 0 ] && [ "$prefix" = /usr/local ] && system=1
units=/etc/systemd/system

put() { # put MODE FROM TO
    mkdir -p "$(dirname "$3")"
    rm -f "$3"
    cp "$2" "$3"
    chmod "$1" "$3"
}

each() { # each DIRECTORY COMMAND: runs the command with the path of each file below usr/DIRECTORY
    (cd "$here/usr" && find "$1" -type f) | while read -r file; do
        "$2" "$file"
    done
}

put_program() { put 755 "$here/usr/$1" "$prefix/$1"; }
put_file() { put 644 "$here/usr/$1" "$prefix/$1"; }
take() { rm -f "$prefix/$1"; }
put_unit() {
    put 644 "$here/usr/$1" "$units/$(basename "$1")"
    sed -i "s|/usr/bin/|$prefix/bin/|" "$units/$(basename "$1")"
}
take_unit() { rm -f "$units/$(basename "$1")"; }

if [ -n "$remove" ]; then
    each bin take
    each share take
    if [ -n "$system" ]; then
        each lib/systemd/system take_unit
        rm -f /etc/sysusers.d/s4.conf
        [ "$(readlink /sbin/mount.s4 2>/dev/null)" != "$prefix/bin/s4-mount" ] || rm -f /sbin/mount.s4
    fi
    echo "s4 is removed from $prefix"
    exit 0
fi

each bin put_program
each share put_file
if [ -n "$system" ]; then
    each lib/systemd/system put_unit
    put 644 "$here/usr/lib/sysusers.d/s4.conf" /etc/sysusers.d/s4.conf
    for file in s4.conf default/s4-server default/s4-mount default/s4-s3; do
        [ -e "/etc/$file" ] || put 644 "$here/etc/$file" "/etc/$file"
    done
    # Where mount(8) looks for `mount -t s4`.
    [ -e /sbin/mount.s4 ] || ln -s "$prefix/bin/s4-mount" /sbin/mount.s4
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers s4.conf
    elif ! grep -q '^s4:' /etc/passwd; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin s4
    fi
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
echo "s4 is installed in $prefix/bin"
