"""Measures `s4 cluster resize`, from 3 to 5 nodes and to 4, beside `cp -r` of the same files between the same directories.

Run: python3 scripts/bench/resize.py --bin target/release [--dir DIR] [--quick]

What a resize has moved is on the disks when it ends, so `cp -r` is followed by `sync -f`. The restarts of the daemons,
which take the same time whatever is moved, are measured by a resize of an empty cluster, and taken off.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """Daemons of this machine, each with its own cluster file."""

    def __init__(self, bin, work):
        self.bin, self.work = bin, work
        self.ports = free_ports(5)
        self.daemons = {}
        (work / "s4.conf").write_text(self.lines(3))
        for node in range(3):
            self.start(node, 3)
        for node in (3, 4):
            self.start(node, 5)
        self.run("health", conf=self.write("old.conf", 3))
        self.run("health", conf=self.write("new.conf", 5), check=False)

    def lines(self, nodes):
        return "".join(f"127.0.0.1:{port}\n" for port in self.ports[:nodes])

    def write(self, name, nodes):
        path = self.work / name
        path.write_text(self.lines(nodes))
        return path

    def start(self, node, nodes):
        conf = self.write(f"conf-{node}", nodes)
        command = [self.bin / "s4-server", "--conf", conf, "--port", str(self.ports[node])]
        command += ["--data", self.data(node), "--reserve", "0"]
        subprocess.run([*command, "--init"], check=True, stdout=subprocess.DEVNULL)
        log = open(self.work / f"log-{node}", "w")
        self.daemons[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def data(self, node):
        return self.work / f"data-{node}"

    def run(self, *args, conf, check=True):
        done = subprocess.run([self.bin / "s4", "-c", conf, *args], capture_output=True, text=True, cwd=self.work)
        if check and done.returncode != 0:
            sys.exit(f"s4 {args}: {done.stderr}")
        return done.stderr

    def files(self, node):
        found = {}
        for top, dirs, names in os.walk(self.data(node)):
            dirs[:] = [name for name in dirs if name != ".s4"]
            for name in names:
                path = Path(top, name)
                found[str(path.relative_to(self.data(node)))] = path
        return found

    def resize(self, before, after):
        """Seconds, and what was moved: pairs of the old and the new place, and bytes."""
        places = {name: node for node in range(before) for name in self.files(node)}
        old, new = self.write("before.conf", before), self.write("after.conf", after)
        subprocess.run(["sync", "-f", self.work], check=True)
        began = time.monotonic()
        told = self.run("cluster", "resize", new, conf=old)
        took = time.monotonic() - began
        moved, size = [], 0
        for node in range(after):
            for name, path in self.files(node).items():
                if places[name] != node:
                    moved.append((places[name], node, name))
                    size += path.stat().st_size
        return took, moved, size, told.strip()

    def stop(self):
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait()


def copied(cluster, moved, work):
    """Seconds that `cp -r` takes for the same files between the same directories, all nodes at once."""
    trees = {}
    for source, target, name in moved:
        tree = work / f"from-{source}" / f"to-{target}"
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(cluster.data(target) / name, place)
        trees[tree] = work / f"at-{target}" / f"from-{source}"
    for target in trees.values():
        target.mkdir(parents=True)
    subprocess.run(["sync", "-f", work], check=True)
    began = time.monotonic()
    copying = [subprocess.Popen(["cp", "-r", f"{tree}/.", target]) for tree, target in trees.items()]
    if any(one.wait() != 0 for one in copying):
        sys.exit("cp -r failed")
    subprocess.run(["sync", "-f", work], check=True)
    took = time.monotonic() - began
    for tree, target in trees.items():
        shutil.rmtree(tree)
        shutil.rmtree(target)
    return took


def fill(cluster, count, size):
    tree = cluster.work / "tree"
    for number in range(count):
        path = tree / f"d{number % 50}" / f"name{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    if count:
        cluster.run("cp", "-r", tree, "s4://b/", conf=cluster.work / "old.conf")
        shutil.rmtree(tree)


def measure(options, count, size):
    rows = []
    for _ in range(options.runs):
        work = Path(tempfile.mkdtemp(prefix="s4-resize-", dir=options.dir))
        cluster = Cluster(Path(options.bin).resolve(), work)
        try:
            fill(cluster, count, size)
            for before, after in ((3, 5), (5, 4)):
                took, moved, bytes_, told = cluster.resize(before, after)
                rows.append((before, after, took, copied(cluster, moved, work) if moved else 0, len(moved), bytes_))
                print(f"  {told}", file=sys.stderr)
        finally:
            cluster.stop()
            shutil.rmtree(work, ignore_errors=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", default="target/release")
    parser.add_argument("--dir", help="where the data goes: a disk, not a tmpfs")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.runs = 1 if options.quick else 3
    scale = 10 if options.quick else 1
    empty = {row[:2]: row[2] for row in measure(options, 0, 0)}
    for count, size in ((100 // scale, 16 * MIB), (20000 // scale, 12 << 10)):
        rows = measure(options, count, size)
        for steps in ((3, 5), (5, 4)):
            of = [row for row in rows if row[:2] == steps]
            resize, copy = statistics.median(row[2] for row in of), statistics.median(row[3] for row in of)
            net = max(resize - empty[steps], 0.001)
            print(
                f"{steps[0]} to {steps[1]}, {count} keys of {size} bytes: moved {of[0][4]} keys, {of[0][5] / MIB:.0f} MiB, "
                f"{resize:.2f} s ({empty[steps]:.2f} s empty), cp -r and sync {copy:.2f} s: {100 * copy / net:.0f} % of its rate"
            )


main()
