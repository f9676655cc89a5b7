#!/usr/bin/env python3
"""Finds circles among modules: files of one package that use each other, directly or around.

A module is a file. What the mod.rs of a directory gives on (`pub use`) counts as the mod.rs, which knows its files already, so a file
that uses it is in a circle with it. Tests within a file do not count. Prints each circle, and which uses close it; fails if a file is
in one and not in the list of those known (scripts/circles.txt), or in the list and in none.

--edges prints every use inside of the circles; --write writes the list.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KNOWN = ROOT / "scripts/circles.txt"
# The root file of each package, by the name that others use for it.
PACKAGES = {"src/lib.rs": "s4", "src/main.rs": None, "daemon/main.rs": None, "fuse/main.rs": None, "s3/main.rs": None}

COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|r#*"[^"]*"#*', re.S)
MOD = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", re.M)
USE = re.compile(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])((?:crate|super|self|s4)(?:::\w+)+)")


def source(path):
    """The code of a file without comments, texts and its tests."""
    text = COMMENT.sub(" ", path.read_text())
    tests = re.search(r"#\[cfg\(test\)\]\s*(?:pub\s+)?mod\s+\w+\s*\{", text)
    return text[: tests.start()] if tests else text


def leaves(tree):
    """Each path of a `use` tree, as a list of names."""
    tree = tree.strip()
    if "{" not in tree:
        yield [part.strip() for part in re.sub(r"\s+as\s+\w+$", "", tree).split("::")]
        return
    head, rest = tree.split("{", 1)
    prefix = [part.strip() for part in head.split("::") if part.strip()]
    depth, part = 0, ""
    for char in rest[: rest.rindex("}")] + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if part.strip():
                for leaf in leaves(part):
                    yield prefix + leaf
            part = ""
        else:
            part += char


def modules(root):
    """Each module of the package with this root file: its path in the package, and its file."""
    found, todo = {}, [((), ROOT / root)]
    while todo:
        name, file = todo.pop()
        found[name] = file
        inside = file.parent if file.name in ("mod.rs", "lib.rs", "main.rs") else file.with_suffix("")
        for child in MOD.findall(source(file)):
            places = [inside / f"{child}.rs", inside / child / "mod.rs"]
            todo += [((*name, child), place) for place in places if place.exists()]
    return found


def uses(name, text, all_modules):
    """The modules that this one uses: the longest part of each path that is a module."""
    paths = [leaf for tree in USE.findall(text) for leaf in leaves(tree)]
    plain = USE.sub(" ", text)
    children = {other[-1] for other in all_modules if other[:-1] == name and other}
    paths += [path.split("::") for path in PATH.findall(plain)]
    paths += [path.split("::") for path in re.findall(r"(?<![\w:])(\w+(?:::\w+)+)", plain) if path.split("::")[0] in children]
    for path in paths:
        target = list(name)
        if path[0] == "crate":
            target, path = [], path[1:]
        elif path[0] == "self":
            path = path[1:]
        elif path[0] != "super" and path[0] not in children:
            continue
        while path and path[0] == "super":
            target, path = target[:-1], path[1:]
        while path and (*target, path[0]) in all_modules:
            target, path = [*target, path[0]], path[1:]
        if tuple(target) != name:
            yield tuple(target)


def circles(graph):
    """The strongly connected components of more than one, by Tarjan."""
    index, low, stack, on, found = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on.add(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = []
            while not component or component[-1] != node:
                component.append(stack.pop())
                on.discard(component[-1])
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def main():
    everything = {}
    for root in PACKAGES:
        all_modules = modules(root)
        graph = {}
        for name, file in all_modules.items():
            targets = {all_modules[target] for target in uses(name, source(file), all_modules) if target}
            graph[str(file.relative_to(ROOT))] = {str(target.relative_to(ROOT)) for target in targets}
        everything |= {file: targets for file, targets in graph.items() if file != root}
    for file in everything:
        everything[file] = {target for target in everything[file] if target in everything}
    found = circles(everything)
    inside = {file for circle in found for file in circle}
    if "--write" in sys.argv:
        KNOWN.write_text("".join(f"{file}\n" for file in sorted(inside)))
    known = set(KNOWN.read_text().split()) if KNOWN.exists() else set()
    for circle in found:
        print(f"{len(circle)} files: {' '.join(circle)}")
        if "--edges" in sys.argv:
            for file in circle:
                print(f"    {file} -> {' '.join(sorted(everything[file] & set(circle)))}")
    print(f"{len(inside)} of {len(everything)} files are in {len(found)} circles")
    for file in sorted(inside - known):
        print(f"circles: new: {file}", file=sys.stderr)
    for file in sorted(known - inside):
        print(f"circles: in none any more, take it off scripts/circles.txt: {file}", file=sys.stderr)
    return 1 if inside ^ known else 0


if __name__ == "__main__":
    sys.exit(main())
