"""Rows of work with and without s4: each pair is run in turn several times, and the medians are compared.

Run by bench.sh. A row whose runs spread too much is run again, and says so if it stays noisy.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SPREAD = 0.35  # of the median, between the fastest and the slowest quarter of the runs
GIB = 1 << 30


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = Path(tempfile.mkdtemp(prefix="s4-bench-", dir=args.dir))
        self.env = dict(os.environ, PATH=f"{Path(args.bin).resolve()}:{os.environ['PATH']}", LC_ALL="C")
        self.big = GIB if not args.quick else GIB // 16
        self.small = 500 if not args.quick else 100
        self.many = 100_000 if not args.quick else 2_000
        self.runs = 5 if not args.quick else 2
        self.rows = []
        self.mounted = None

    def sh(self, script, **options):
        done = subprocess.run(["bash", "-c", script], cwd=self.work, env=self.env, capture_output=True, text=True, **options)
        if done.returncode != 0:
            sys.exit(f"bench: {script}: {done.stderr.strip()}")
        return done.stdout

    def start(self):
        exported = self.sh(f"s4 local -n {self.args.nodes} --detach --dir cluster")
        self.env["S4_CONF_PATH"] = exported.split("=", 1)[1].strip()

    def stop(self):
        try:
            self.unmount()
            subprocess.run(["bash", "-c", "s4 local --stop --dir cluster"], cwd=self.work, env=self.env, check=False)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def mount(self):
        # Without their tokens, the other nodes of this machine are remote to the mount.
        for node in range(1, self.args.nodes):
            (self.work / f"cluster/node-{node}/.s4/token").unlink(missing_ok=True)
        (self.work / "mnt").mkdir(exist_ok=True)
        self.sh("s4-mount mnt --background 2>mount.log")
        self.mounted = self.work / "mnt"

    def unmount(self):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.mounted)], check=False)
            self.mounted = None

    def row(self, name, bare, s4, target, extra=None):
        """`bare` and `s4` are scripts or callables; `target` is a ratio, or with `extra` seconds above the bare time."""
        for attempt in range(2):
            times = {"bare": [], "s4": []}
            for run in range(self.runs + 1):
                for side, work in (("bare", bare), ("s4", s4)):
                    seconds = self.time(work, run)
                    if run > 0:
                        times[side].append(seconds)
            noisy = any(spread(t) > SPREAD for t in times.values())
            if not noisy:
                break
        b, s = (statistics.median(times[side]) for side in ("bare", "s4"))
        met = s - b <= extra if extra else s / b <= target
        wanted = f"+ {extra * 1000:.0f} ms" if extra else f"{target:.2f}x"
        row = dict(row=name, bare=b, s4=s, ratio=s / b, above=s - b, target=wanted, met=met, noisy=noisy)
        self.rows.append(row)
        if not self.args.json:
            shown = f"+ {(s - b) * 1000:.1f} ms" if extra else f"{s / b:.2f}x"
            verdict = ("ok" if met else "MISSED") + (" (noisy, no result)" if noisy else "")
            print(f"{name:48} {b:9.4f} s {s:9.4f} s {shown:>11} {wanted:>10}  {verdict}", flush=True)

    def time(self, work, run):
        if callable(work):
            return work()
        prepare, measured = work if isinstance(work, tuple) else ("", work)
        if prepare:
            self.sh(prepare.replace("RUN", str(run)))
        script = measured.replace("RUN", str(run))
        began = time.perf_counter()
        self.sh(script)
        return time.perf_counter() - began

    def bare_socket(self):
        """The big file over a TCP socket of this machine, as one process sends it and another throws it away."""
        server = socket.create_server(("127.0.0.1", 0))

        def serve():
            connection, _ = server.accept()
            with open(self.work / "big", "rb") as file:
                connection.sendfile(file)
            connection.close()

        thread = threading.Thread(target=serve)
        began = time.perf_counter()
        thread.start()
        client = socket.create_connection(server.getsockname())
        buffer = bytearray(1 << 20)
        while client.recv_into(buffer):
            pass
        thread.join()
        client.close()
        server.close()
        return time.perf_counter() - began


def spread(times):
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / statistics.median(ordered)


def data(bench):
    bench.sh(f"head -c {bench.big} /dev/urandom > big && head -c 12288 /dev/urandom > one")
    bench.sh(f"mkdir small && for i in $(seq {bench.small}); do head -c 4096 /dev/urandom | base64 -w 76 > small/key$i; done")
    bench.sh("for c in 000 001 002; do seq -f '%.0f,some,text,and,some,more' 1 700000 > large_$c; done")


def command_line(bench):
    bench.sh("s4 cp big s4://b/001_big && s4 cp one s4://b/one")
    bench.row("get 1 GiB", bench.bare_socket, "s4 cp s4://b/001_big - > /dev/null", 1.5)
    bench.row("put 1 GiB", ("rm -f copy; sync", "cp big copy"), ("s4 rm s4://b/001_put 2>/dev/null || true; sync", "s4 cp big s4://b/001_put"), 1.25)
    bench.sh("rm -f copy; s4 rm s4://b/001_put")
    bench.row("get one 12 KiB key", "exec true", "exec s4 cp s4://b/one - > /dev/null", 0, extra=0.002)
    bench.row("cp -r of small keys, up", ("rm -rf copy", "cp -r small copy"), ("s4 rm -r s4://small 2>/dev/null || true", "s4 cp -r small s4://small/"), 0, extra=0.15)
    bench.row("cp -r of small keys, down", ("rm -rf copy", "cp -r small copy"), ("rm -rf copy2", "s4 cp -r s4://small/ copy2"), 0, extra=0.15)
    slots = bench.args.nodes * (os.cpu_count() + 2)
    bench.row(
        "map over small keys",
        ("rm -rf out; mkdir out", f"ls small | xargs -P {slots} -I{{}} bash -c 'sort < small/{{}} > out/{{}}'"),
        ("s4 rm -r s4://out 2>/dev/null || true", "s4 map s4://small/ s4://out/ sort"),
        1.15,
    )
    split = "split -n r/21 - p; ls"
    bench.row(
        "map-to-n, 21 outputs each",
        ("rm -rf out; mkdir out", f"ls small | xargs -P {slots} -I{{}} bash -c 'mkdir out/{{}} && cd out/{{}} && split -n r/21 ../../small/{{}} p && ls' >/dev/null"),
        ("s4 rm -r s4://out 2>/dev/null || true", f"s4 map-to-n s4://small/ s4://out/ '{split}'"),
        1.3,
    )
    bench.sh("for c in 000 001 002; do s4 cp large_$c s4://large/; done")
    bench.row(
        "map of large keys, cut",
        ("rm -rf out; mkdir out", "ls large_* | xargs -P 4 -I{} bash -c 'cut -d, -f1,3 < {} > out/{}'"),
        ("s4 rm -r s4://out 2>/dev/null || true", "s4 map s4://large/ s4://out/ 'cut -d, -f1,3'"),
        1.1,
    )
    bench.sh("rm -rf out copy copy2; s4 rm -r s4://out; s4 rm -r s4://small")


def mounts(bench):
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        print("bench: skipped: the mount's rows need root and /dev/fuse", file=sys.stderr)
        return
    bench.mount()
    bench.sh("s4 cp big s4://m/000_big && mkdir -p mnt/m mnt/small")
    for run in range(bench.runs * 2 + 2):
        bench.sh(f"s4 cp big s4://m/001_big{run}")
    cold = iter(range(bench.runs * 2 + 2))

    def read_remote():
        began = time.perf_counter()
        bench.sh(f"cat mnt/m/001_big{next(cold)} > /dev/null")
        return time.perf_counter() - began

    bench.row("mount: read a local 1 GiB key, warm", "cat cluster/node-0/m/000_big > /dev/null", "cat mnt/m/000_big > /dev/null", 1.1)
    bench.row("mount: read a remote 1 GiB key, cold", bench.bare_socket, read_remote, 2)
    bench.sh("s4 rm -r s4://m/001_")
    bench.row("mount: cp 1 GiB in, local", ("rm -f copy; sync", "cp big copy"), ("rm -f mnt/m/000_in; sync", "cp big mnt/m/000_in"), 1.3)
    bench.row("mount: cp 1 GiB in, remote", ("rm -f copy; sync", "cp big copy"), ("rm -f mnt/m/001_in; sync", "cp big mnt/m/001_in"), 2)
    bench.row(
        "mount: write small keys, one cat each",
        ("rm -rf out; mkdir out", "for f in small/*; do cat $f > out/${f#small/}; done"),
        ("s4 rm -r s4://small 2>/dev/null || true", "for f in small/*; do cat $f > mnt/$f; done"),
        1.5,
    )
    bench.sh(f"mkdir many && cd many && seq {bench.many} | xargs touch && cd .. && s4 cp -r many s4://many/")
    bench.row(f"mount: ls -l of {bench.many} keys", "ls -l many > /dev/null", "ls -l mnt/many > /dev/null", 5)
    bench.row(f"mount: find of {bench.many} keys", "find many -size +1 > /dev/null", "find mnt/many -size +1 > /dev/null", 5)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--quick", action="store_true", help="smaller data and fewer runs: shows that the bench works")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-n", dest="nodes", type=int, default=3)
    parser.add_argument("--dir", help="where the data goes; a disk, not a tmpfs")
    parser.add_argument("--only", choices=["command-line", "mount"])
    bench = Bench(parser.parse_args())
    try:
        bench.start()
        data(bench)
        if bench.args.only != "mount":
            command_line(bench)
        if bench.args.only != "command-line":
            mounts(bench)
    finally:
        bench.stop()
    if bench.args.json:
        print(json.dumps(bench.rows, indent=2))


main()
