"""How cost grows: with the number of nodes, of keys and of tasks, and with the size of a key. Each in turn, the rest small."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def run(bench):
    found = {}
    for part in (nodes, keys, sizes, tasks):
        if not bench.options.only or bench.options.only in part.__name__:
            found[part.__name__] = part(bench)
    if bench.options.json:
        print(json.dumps(found, indent=2))


def seconds(bench, script, runs=3):
    """The median of some runs."""
    times = []
    for number in range(runs):
        began = time.perf_counter()
        bench.sh(script.replace("RUN", str(number)))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def say(bench, title, points):
    bench.say(title)
    names = list(points[0])
    bench.say("  " + "".join(f"{name:>22}" for name in names))
    for point in points:
        shown = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in point.values())
        bench.say("  " + "".join(f"{value:>22}" for value in shown))


def daemons(bench, name):
    """Resident memory of each daemon of a cluster, in MiB."""
    sizes = []
    for pid in bench.sh("pgrep -x s4-server || true").split():
        process = Path("/proc", pid)
        if f"{bench.work}/{name}/" in (process / "cmdline").read_text():
            fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            sizes.append(int(fields["VmRSS"].split()[0]) / 1024)
    return sizes


def nodes(bench):
    points = []
    for count in bench.full((3, 12, 48, 100), (3, 6)):
        began = time.perf_counter()
        bench.start(count, "nodes")
        started = time.perf_counter() - began
        time.sleep(2)
        idle = daemons(bench, "nodes")
        bench.sh(f"mkdir one_each && cd one_each && for i in $(seq 0 {count - 1}); do echo $i > ${{i}}_key; done")
        bench.sh("s4 cp -r one_each s4://in/; rm -rf one_each")
        # Each node's task makes an output for each node.
        outputs = f"for i in $(seq 0 {count - 1}); do echo x > ${{i}}_x; done; ls"
        bench.make_remote(range(count), "nodes")
        bench.mount()
        bench.sh("mkdir mnt/small mnt/small/w0 mnt/small/w1 mnt/small/w2")
        written = seconds(bench, "for i in $(seq 100); do echo x > mnt/small/wRUN/f$i; done")
        bench.unmount()
        points.append(
            {
                "nodes": count,
                "start s": started,
                "idle MiB, largest": max(idle),
                "health s": seconds(bench, "s4 health"),
                "ls s": seconds(bench, "s4 ls s4://in/"),
                "map s": seconds(bench, "s4 map s4://in/ s4://mapRUN/ cat"),
                "shuffle s": seconds(bench, f"s4 map-to-n s4://in/ s4://nRUN/ '{outputs}'"),
                "outputs": count * count,
                "100 files by mount s": written,
            }
        )
        bench.end("nodes")
    say(bench, "nodes", points)
    return points


def keys(bench):
    points = []
    for count in bench.full((1_000, 10_000, 100_000, 1_000_000), (100, 1_000)):
        bench.start(bench.nodes, "cluster")
        bench.sh(f"mkdir many && cd many && seq {count} | xargs touch")
        put = seconds(bench, "s4 cp -r many s4://in/", 1)
        point = {"keys": count, "cp -r s": put, "ls s": seconds(bench, "s4 ls s4://in/ >/dev/null")}
        point["ls -r s"] = seconds(bench, "s4 ls -r s4:// >/dev/null")
        point["ls MiB"] = memory(bench, ["s4", "ls", "s4://in/"])
        bench.mount()
        point["mount ls -l s"] = seconds(bench, "ls -l mnt/in >/dev/null", 1)
        bench.unmount()
        point["daemon MiB"] = max(daemons(bench, "cluster"))
        point["rm -r s"] = seconds(bench, "s4 rm -r s4://in/", 1)
        points.append(point)
        bench.end("cluster")
        bench.sh("rm -rf many")
    say(bench, "keys", points)
    return points


def memory(bench, command):
    """The most memory that a command had, in MiB; or this program's own at its start, if that was more."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], env=bench.env, capture_output=True, text=True)
    return int(done.stdout) / 1024


def sizes(bench):
    points = []
    bench.start(bench.nodes, "cluster")
    bench.make_remote(range(bench.nodes))
    for size in bench.full((0, 4 << 10, 1 << 20, 64 << 20, 1 << 30, 8 << 30), (0, 4 << 10, 1 << 20)):
        bench.sh(f"head -c {size} /dev/zero > sized")
        put = seconds(bench, "s4 cp sized s4://sized/001_keyRUN", 1)
        get = seconds(bench, "s4 cp s4://sized/001_key0 - > /dev/null", 1)
        mapped = seconds(bench, "s4 map s4://sized/ s4://mapped/ cat", 1)
        points.append(
            {
                "bytes": size,
                "put s": put,
                "get s": get,
                "map cat s": mapped,
                "client MiB": memory(bench, ["s4", "cp", "s4://sized/001_key0", "/dev/null"]),
                "daemon MiB": max(daemons(bench, "cluster")),
            }
        )
        bench.sh("s4 rm -r s4://sized/; s4 rm -r s4://mapped/; rm sized")
    bench.end("cluster")
    say(bench, "size of a key", points)
    return points


def tasks(bench):
    points = []
    count_nodes = bench.full(12, 3)
    for count in bench.full((100, 1_000, 5_000, 20_000), (50, 100)):
        bench.start(count_nodes, "cluster")
        bench.sh(f"mkdir tiny && cd tiny && seq {count} | xargs touch && cd .. && s4 cp -r tiny s4://in/")
        took = seconds(bench, "s4 map s4://in/ s4://outRUN/ true", bench.full(2, 1))
        points.append({"tasks": count, "map s": took, "ms a task": took / count * 1000, "daemon MiB": max(daemons(bench, "cluster"))})
        bench.end("cluster")
        bench.sh("rm -rf tiny")
    say(bench, "tasks", points)
    return points
