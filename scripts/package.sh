#!/usr/bin/env bash
# Makes the packages: a tarball, a Debian package and an RPM, in target/package, for one architecture (default: this one's).
#
#   scripts/package.sh [x86_64|aarch64]
#
# The programs are linked by zig against glibc 2.28, so that one build runs on every distribution since 2018. Paths and
# times of this machine are kept out, so two builds of one commit with the same tools can be compared.
#
# S4_PACKAGE_PROGRAMS=DIR: pack the programs in DIR, instead of building.
# S4_PACKAGE_TARGET=DIR: build there, instead of in target/package/build.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly GLIBC=2.28 PROGRAMS="s4 s4-server s4-mount s4-s3"
arch=${1:-$(uname -m)}
case "$arch" in
x86_64) deb_arch=amd64 ;;
aarch64) deb_arch=arm64 ;;
*)
    echo "package: no packages for $arch: x86_64 or aarch64" >&2
    exit 2
    ;;
esac
readonly target=$arch-unknown-linux-gnu out=$PWD/target/package
tree=$out/tree
build=${S4_PACKAGE_TARGET:-$out/build}
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022

say() { printf '== %s\n' "$*"; }

tools() { # zig from PyPI, and the packagers from crates.io, in versions that are known to work
    export PATH=$out/tools/bin:$PATH
    if [ ! -x "$out/tools/bin/cargo-zigbuild" ]; then
        python3 -m venv "$out/tools"
        pip install --quiet ziglang==0.17.1 cargo-zigbuild==0.24.1
    fi
    [ -x "$out/tools/bin/cargo-deb" ] || cargo install --quiet --locked --root "$out/tools" cargo-deb@3.8.0
    [ -x "$out/tools/bin/cargo-generate-rpm" ] || cargo install --quiet --locked --root "$out/tools" cargo-generate-rpm@0.21.1
}

build() {
    local libraries
    libraries=$(rustc --print target-libdir --target "$target")
    if [ ! -d "$libraries" ]; then
        echo "package: Rust has no standard library for $target: rustup target add $target" >&2
        exit 1
    fi
    export RUSTFLAGS="--remap-path-prefix=$PWD=/s4 --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    CARGO_ZIGBUILD_PYTHON_PATH=$out/tools/bin/python cargo zigbuild --release --locked --workspace --bins \
        --target "$target.$GLIBC" --target-dir "$build"
}

put() { # put MODE SOURCE DEST: a file of the tree
    install -D -m "$1" "$2" "$tree/$3"
}

page() { # page FILE DIRECTORY: a compressed man page
    mkdir -p "$tree/usr/share/man/$2"
    gzip -9nc "$1" >"$tree/usr/share/man/$2/$(basename "$1").gz"
}

stage() { # everything, where a package puts it
    local program file own
    rm -rf "$tree"
    for program in $PROGRAMS; do
        put 755 "$programs/$program" "usr/bin/$program"
    done
    for file in man/*.1; do page "$file" man1; done
    for file in man/*.8; do page "$file" man8; done
    echo '.so man8/s4-mount.8' >"$out/mount.s4.8"
    page "$out/mount.s4.8" man8
    # Programs of another architecture do not run here; all say the same.
    own=$programs/s4
    [ "$arch" = "$(uname -m)" ] || own="cargo run --quiet --bin s4 --"
    for file in bash:usr/share/bash-completion/completions/s4 zsh:usr/share/zsh/vendor-completions/_s4 \
        fish:usr/share/fish/vendor_completions.d/s4.fish; do
        $own completions "${file%%:*}" >"$out/completions"
        put 644 "$out/completions" "${file#*:}"
    done
    for file in packaging/units/*; do put 644 "$file" "usr/lib/systemd/system/$(basename "$file")"; done
    put 644 packaging/s4.sysusers usr/lib/sysusers.d/s4.conf
    put 644 packaging/s4.conf etc/s4.conf
    for file in packaging/defaults/*; do put 644 "$file" "etc/default/$(basename "$file")"; done
    put 644 packaging/prometheus/s4.rules.yml usr/share/doc/s4/examples/s4.rules.yml
    put 644 packaging/grafana/s4.json usr/share/doc/s4/examples/grafana.json
    put 644 packaging/kubernetes/s4.yaml usr/share/doc/s4/examples/kubernetes.yaml
    mkdir -p "$tree/usr/sbin"
    ln -s ../bin/s4-mount "$tree/usr/sbin/mount.s4"
    {
        printf 's4 (%s) unstable; urgency=medium\n\n  * See /usr/share/doc/s4/NEWS.md.gz.\n\n' "$version"
        printf ' -- The s4 authors <s4@example.org>  %s\n' "$(date -uR -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$tree/usr/share/doc/s4/changelog.gz"
    gzip -9nc CHANGELOG.md >"$tree/usr/share/doc/s4/NEWS.md.gz"
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

tarball() {
    local name=s4-$version-$arch-linux
    rm -rf "${out:?}/$name"
    cp -a "$tree" "$out/$name"
    install -m 755 packaging/install.sh "$out/$name/install.sh"
    install -m 644 LICENSE README.md "$out/$name"
    find "$out/$name" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" |
        xz -6 -T1 >"$out/$name.tar.xz"
    rm -rf "${out:?}/$name"
}

tools
if [ -z "${S4_PACKAGE_PROGRAMS:-}" ]; then
    say "programs"
    build
fi
programs=${S4_PACKAGE_PROGRAMS:-$build/$target/release}
say "symbols"
# shellcheck disable=SC2086
(cd "$programs" && "$OLDPWD/scripts/symbols.sh" "$GLIBC" $PROGRAMS)
say "files"
stage
say "tarball"
tarball
say "Debian package"
cargo deb --no-build --no-strip --target "$target" --output "$out/s4_${version}_$deb_arch.deb"
say "RPM"
cargo generate-rpm --arch "$arch" --output "$out/s4-$version-1.$arch.rpm"
(cd "$out" && sha256sum ./*.tar.xz ./*.deb ./*.rpm | tee SHA256SUMS)
