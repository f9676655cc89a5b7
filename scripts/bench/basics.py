"""The rows that the design promises: keys, maps and the mount, each against the same work without s4.

Files made by the thousand get new names in each run and are deleted at the end only: for a minute after a delete, ext4 looks
at each freed inode before it makes a file, which would slow down whichever side comes next.
"""

import os
import socket
import sys
import threading
import time
from pathlib import Path

from harness import GIB


def data(bench):
    bench.big = bench.full(GIB, GIB // 16)
    bench.small = bench.full(500, 100)
    bench.sh(f"head -c {bench.big} /dev/urandom > big && head -c 12288 /dev/urandom > one")
    bench.sh(
        f"mkdir small && for i in $(seq {bench.small}); do head -c 4096 /dev/urandom | base64 -w 76 > small/key$i; done"
    )


def bare_socket(bench):
    """Seconds for the big file over a TCP socket of this machine, as one thread sends it and another throws it away."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = server.accept()
        with open(bench.work / "big", "rb") as file:
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


def keys(bench):
    bench.sh("s4 cp big s4://b/001_big && s4 cp one s4://b/one")
    bench.row("get 1 GiB", ("", lambda: bare_socket(bench)), ("", "s4 cp s4://b/001_big - > /dev/null"), 1.5)
    bench.row(
        "put 1 GiB",
        ("rm -f copy", "cp big copy"),
        ("rm -f copy; s4 rm s4://b/001_put 2>/dev/null || true", "s4 cp big s4://b/001_put"),
        1.25,
    )
    bench.sh("s4 rm s4://b/001_put || true")
    twenty = "for i in $(seq 20); do"
    bench.row(
        "get one 12 KiB key, 20 times",
        f"{twenty} bash -c 'exec true'; done",
        f"{twenty} bash -c 'exec s4 cp s4://b/one - > /dev/null'; done",
        extra=20 * 0.002,
    )
    thousand = bench.full(1000, 100)
    each = f"seq {thousand} | xargs -P 8 -n 1"
    bench.row(
        f"{thousand} gets of 12 KiB, 8 at a time",
        f"{each} bash -c true",
        f"{each} bash -c 'exec s4 cp s4://b/one - > /dev/null'",
        extra=0.001 * thousand,
    )
    bench.row("cp -r of small keys, up", "cp -r small up_RUN", "s4 cp -r small s4://up_RUN/", extra=0.15)
    bench.sh("s4 cp -r small s4://small/")
    bench.row("cp -r of small keys, down", "cp -r small a_RUN", "s4 cp -r s4://small/ b_RUN", extra=0.15)


def maps(bench):
    slots = bench.nodes * (os.cpu_count() + 2)
    bench.sh("s4 ls s4://small/ >/dev/null 2>&1 || s4 cp -r small s4://small/")
    bench.row(
        "map over small keys",
        ("mkdir map_RUN", f"ls small | xargs -P {slots} -I{{}} bash -c 'sort < small/{{}} > map_RUN/{{}}'"),
        "s4 map s4://small/ s4://map_RUN/ sort",
        1.15,
    )
    steps(bench, slots)
    map_to_n(bench)
    lines = bench.full(7_000_000, 300_000)
    bench.sh(f"for c in 000 001 002; do seq -f '%.0f,some,text,and,some,more' 1 {lines} > large_$c; s4 cp large_$c s4://large/; done")
    for command in ("cut -d, -f1,3", "cat"):
        bench.row(
            f"map of large keys, {command.split()[0]}",
            ("rm -rf out; mkdir out", f"ls large_* | xargs -P 4 -I{{}} bash -c '{command} < {{}} > out/{{}}'"),
            ("rm -rf out; s4 rm -r s4://out/ 2>/dev/null || true", f"s4 map s4://large/ s4://out/ '{command}'"),
            1.1,
        )
    bench.sh("rm -rf out large_*; s4 rm -r s4://out/ || true; s4 rm -r s4://large/")


def steps(bench, slots):
    """What a step costs whose tasks do next to nothing: people chain dozens and wait for each."""
    bench.sh("mkdir tiny12 tiny1 && for i in $(seq -f %03.0f 0 11); do echo $i > tiny12/${i}_t; done && cp tiny12/000_t tiny1")
    bench.sh("s4 cp -r tiny12 s4://tiny12/ && s4 cp -r tiny1 s4://tiny1/")
    for many, name, extra in ((12, "a step of 12 tiny tasks", 0.006), (1, "a step of one tiny task", 0.005)):
        bench.row(
            name,
            f"mkdir step{many}_RUN; ls tiny{many} | xargs -P {slots} -I{{}} bash -c 'cat < tiny{many}/{{}} > step{many}_RUN/{{}}'",
            f"s4 map s4://tiny{many}/ s4://step{many}_RUN/ cat",
            extra=extra,
        )


def map_to_n(bench):
    slots = bench.nodes * (os.cpu_count() + 2)
    bench.row(
        "map-to-n, 21 outputs each",
        (
            "mkdir n_RUN",
            f"ls small | xargs -P {slots} -I{{}} bash -c"
            " 'mkdir n_RUN/{} && cd n_RUN/{} && split -n r/21 ../../small/{} p && ls' >/dev/null",
        ),
        "s4 map-to-n s4://small/ s4://n_RUN/ 'split -n r/21 - p; ls'",
        1.4,
    )


def mount(bench):
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        print("bench: skipped: the mount's rows need root and /dev/fuse", file=sys.stderr)
        return
    bench.make_remote(range(1, bench.nodes))
    bench.row(
        "put 1 GiB, to a remote node",
        ("rm -f copy", "cp big copy"),
        ("rm -f copy; s4 rm s4://b/001_put 2>/dev/null || true", "s4 cp big s4://b/001_put"),
        1.25,
    )
    bench.sh("s4 rm s4://b/001_put || true")
    bench.mount()
    bench.sh("s4 cp big s4://m/000_big")
    bench.row("mount: read a local 1 GiB key, warm", "cat cluster/node-0/m/000_big > /dev/null", "cat mnt/m/000_big > /dev/null", 1.1)
    # The name is new each time, so that nothing of it is in the page cache of the mount.
    bench.row(
        "mount: read a remote 1 GiB key, cold",
        ("", lambda: bare_socket(bench)),
        ("s4 rm -r s4://cold 2>/dev/null || true; s4 cp big s4://cold_RUN/001_big", "cat mnt/cold_RUN/001_big > /dev/null"),
        2,
    )
    bench.sh("s4 rm -r s4://cold || true")
    for where, node, target in (("local", 0, 1.3), ("remote", 1, 2)):
        name = f"mnt/m/00{node}_in"
        bench.row(
            f"mount: cp 1 GiB in, {where}",
            ("rm -f copy", "cp big copy"),
            (f"rm -f copy {name}", f"cp big {name}"),
            target,
        )
        bench.sh(f"rm -f copy {name}")
    bench.row(
        "mount: write small keys, one cat each",
        ("mkdir w_RUN", "for f in small/*; do cat $f > w_RUN/${f#small/}; done"),
        ("mkdir mnt/w_RUN", "for f in small/*; do cat $f > mnt/w_RUN/${f#small/}; done"),
        1.5,
    )
    many = bench.full(100_000, 2_000)
    bench.sh(f"mkdir many && cd many && seq {many} | xargs touch && cd .. && s4 cp -r many s4://many/")
    bench.row(f"mount: ls -l of {many} keys", "ls -l many > /dev/null", "ls -l mnt/many > /dev/null", 5)
    bench.row(f"mount: find of {many} keys", "find many -size +1 > /dev/null", "find mnt/many -size +1 > /dev/null", 5)
    bench.unmount()
