"""Pairs of the same work with and without s4, run in turn several times, and compared by their medians."""

import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Between the fastest and the slowest quarter of a row's runs, as a part of their median: more is noise and no result.
SPREAD = 0.35
GIB = 1 << 30

# What `fill` leaves free, in bytes, and how much it reads at a time.
FREE = 300 << 20
CHUNK = 4 << 20


class Bench:
    """A cluster in a directory of its own, and the rows measured so far."""

    def __init__(self, options):
        self.options = options
        self.quick = options.quick
        self.nodes = options.nodes
        self.runs = 2 if options.quick else 5
        self.work = Path(tempfile.mkdtemp(prefix="s4-bench-", dir=options.dir))
        self.env = dict(os.environ, PATH=f"{Path(options.bin).resolve()}:{os.environ['PATH']}", LC_ALL="C")
        self.env.pop("S4_CONF_PATH", None)
        self.rows = []
        self.clusters = []
        self.mounted = None
        self.made = 0
        self.filled = 0

    def full(self, whole, quick):
        """One of two sizes, by what is asked for."""
        return quick if self.quick else whole

    def sh(self, script):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.work, env=self.env, capture_output=True, text=True
        )
        if done.returncode != 0:
            sys.exit(f"bench: {script}: {done.stderr.strip()}")
        return done.stdout

    def start(self, nodes=None, name="cluster"):
        """Starts a cluster and makes it the one that commands talk to."""
        exported = self.sh(f"s4 local -n {nodes or self.nodes} --detach --dir {name}")
        self.clusters.append(name)
        self.env["S4_CONF_PATH"] = exported.split("=", 1)[1].strip()

    def end(self, name):
        self.clusters.remove(name)
        subprocess.run(["s4", "local", "--stop", "--dir", name], cwd=self.work, env=self.env, check=False)
        shutil.rmtree(self.work / name, ignore_errors=True)

    def stop(self):
        try:
            self.unmount()
            for name in list(self.clusters):
                self.end(name)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def make_remote(self, nodes, name="cluster"):
        """Without their tokens, nodes of this machine are remote to whoever asks now."""
        for node in nodes:
            (self.work / f"{name}/node-{node}/.s4/token").unlink(missing_ok=True)

    def mount(self):
        (self.work / "mnt").mkdir(exist_ok=True)
        self.sh("s4-mount mnt --background 2>mount.log")
        self.mounted = self.work / "mnt"

    def unmount(self):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.mounted)], check=False)
            self.mounted = None

    def wants(self, part):
        """True if any row of `part` is asked for: the data of the others would take longer than the rows."""
        plan = Plan(self)
        part(plan)
        return any((self.options.only or "") in name for name in plan.names)

    def row(self, name, bare, s4, target=None, extra=None, runs=None):
        """Measures one row. `bare` and `s4` are scripts or functions that return seconds, or pairs of such with a script before it that
        prepares the run, after which large files are read, so that they are cached. Before each run the machine settles. RUN in a
        script is the number of the run. `target` is a ratio; `extra`, seconds above the bare time."""
        if self.options.only and self.options.only not in name:
            return
        for _ in range(1 if self.quick else 2):
            times = {"bare": [], "s4": []}
            for number in range((runs or self.runs) + 1):
                self.made += 1
                for side, work in (("bare", bare), ("s4", s4)):
                    seconds = self.time(work)
                    # The first run warms up.
                    if number > 0:
                        times[side].append(seconds)
            noisy = any(spread(t) > SPREAD for t in times.values())
            if not noisy:
                break
        b, s = (statistics.median(times[side]) for side in ("bare", "s4"))
        met = s - b <= extra if extra is not None else s / b <= target
        wanted = f"+ {extra * 1000:.0f} ms" if extra is not None else f"{target:.2f}x"
        shown = f"{(s - b) * 1000:+.1f} ms" if extra is not None else f"{s / b:.2f}x"
        verdict = ("ok" if met else "MISSED") + (" (noisy, no result)" if noisy else "")
        self.rows.append(dict(row=name, bare=b, s4=s, shown=shown, target=wanted, met=met, noisy=noisy, times=times))
        self.say(f"{name:48} {b:9.4f} s {s:9.4f} s {shown:>11} {wanted:>10}  {verdict}")

    def time(self, work):
        prepare, measured = work if isinstance(work, tuple) else (None, work)
        if prepare is not None:
            self.sh(prepare.replace("RUN", str(self.made)))
            if not self.quick:
                # A file may go meanwhile.
                self.sh("find . -xdev -type f -size +1M ! -name hole -exec cat {} + > /dev/null 2>&1 || true")
        self.settle()
        if callable(measured):
            return measured()
        script = measured.replace("RUN", str(self.made))
        began = time.perf_counter()
        self.sh(script)
        return time.perf_counter() - began

    def settle(self):
        """Writes out what is dirty, and takes the memory that is free."""
        os.sync()
        if not self.quick:
            self.fill()

    def fill(self):
        """Fills all but a little of the free memory with cached pages of a file that has no data, as on a machine that has been used
        for a while. A virtual machine gives free memory back to its host, and pays when it uses it again, up to 2.5 s a GiB: ten
        times what is measured here, and more for the side that uses more memory. From its page cache it takes memory at its own
        speed. Goes on in the file where it stopped, so that it never reads what is cached."""
        buffer = bytearray(CHUNK)
        with open(self.work / "hole", "ab+", buffering=0) as hole:
            hole.truncate(1 << 42)
            for _ in range(max(0, free_memory() - FREE) // CHUNK):
                os.preadv(hole.fileno(), [buffer], self.filled)
                self.filled += CHUNK
        # The rest is the host's too, until it is used. Bounded, since a container may have less than the machine has free.
        mmap.mmap(-1, min(free_memory(), 2 * GIB), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()

    def say(self, line):
        print(line, file=sys.stderr if self.options.json else sys.stdout, flush=True)

    def report(self):
        if not self.rows:
            sys.exit(f"bench: no row has '{self.options.only}' in its name")
        if self.options.json:
            print(json.dumps(self.rows, indent=2))


class Plan:
    """Stands in for a Bench, does nothing, and remembers the names of the rows."""

    def __init__(self, bench):
        self.nodes, self.work, self.root, self.full, self.small = bench.nodes, bench.work, bench.root, bench.full, 0
        self.names = []

    def row(self, name, *_, **__):
        self.names.append(name)

    def __getattr__(self, _):
        return lambda *_, **__: ""


def free_memory():
    """In bytes."""
    return int(Path("/proc/meminfo").read_text().split("MemFree:")[1].split()[0]) * 1024


def spread(times):
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / statistics.median(ordered)
