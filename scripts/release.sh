#!/usr/bin/env bash
# Makes a release in target/release-VERSION: packages, a bill of materials (CycloneDX) of each program, and checksums. Then
# tags the commit, and leaves it to you to push the tag and the files. Usage: scripts/release.sh
# The version is that of Cargo.toml. It refuses a tree with changes, a version without a section in CHANGELOG.md, and a
# version that has a tag.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "release: $*" >&2; exit 1; }

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -z "$(git status --porcelain)" ] || fail "the tree has changes that are not committed"
grep -q "^## \[$version\]" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null || fail "the tag v$version exists"

out=$PWD/target/release-$version
tools=$PWD/target/release-tools
rm -rf "$out"
mkdir -p "$out"

scripts/test.sh
scripts/package.sh
find target/package -maxdepth 1 -type f \( -name '*.tar.*' -o -name '*.deb' -o -name '*.rpm' \) -exec cp -t "$out" {} +

[ -x "$tools/bin/cargo-cyclonedx" ] || cargo install --quiet --locked --root "$tools" cargo-cyclonedx
"$tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --override-filename s4.cdx
for package in . daemon fuse s3; do
    mv "$package/s4.cdx.json" "$out/$(sed -n 's/^name = "\(.*\)"/\1/p' "$package/Cargo.toml" | head -1)-$version.cdx.json"
done
rm -f tests/manual/s4.cdx.json # of no program

(cd "$out" && sha256sum -- * >SHA256SUMS)
git tag "v$version"
echo "release: $out, and the tag v$version"
