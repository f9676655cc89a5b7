"""Records a session: types its lines into a shell on a terminal, and draws the screens as an animated SVG."""

import os
import pathlib
import subprocess
import sys
import tempfile

import draw
import terminal

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
NODES = 3
# A map in Python: the hours in which flights leave.
HOURS = """import collections, csv, sys
hours = collections.Counter(row["hour"] for row in csv.DictReader(sys.stdin))
for hour, flights in sorted(hours.items()):
    print(hour, flights)
"""


def main() -> None:
    output = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="s4-record-") as name:
        desk = pathlib.Path(name)
        subprocess.run(["tar", "xJf", ROOT / "tests/data/flights.tar.xz"], cwd=desk, check=True)
        (desk / "hours.py").write_text(HOURS)
        (desk / "mnt").mkdir()
        subprocess.run(["s4", "local", "-n", str(NODES), "--detach"], cwd=desk, check=True, stdout=subprocess.DEVNULL)
        try:
            os.environ["S4_CONF_PATH"] = str(desk / "s4-local/s4.conf")
            lines = [line for line in (HERE / "session.sh").read_text().splitlines()[1:] if line]
            frames = terminal.record(lines, desk)
            output.write_text(draw.film(frames, screenshot(desk)))
        finally:
            subprocess.run(["umount", "-l", "mnt"], cwd=desk, stderr=subprocess.DEVNULL)
            subprocess.run(["s4", "local", "--stop"], cwd=desk)
    print(f"{output}: {len(frames)} frames, {output.stat().st_size // 1024} KiB")


def screenshot(desk: pathlib.Path) -> bytes:
    """The page of node 0 as PNG."""
    conf = desk / "s4-local/s4.conf"
    address = next(line for line in conf.read_text().splitlines() if line and not line.startswith("#"))
    secret = conf.with_name("s4.conf.secret").read_text().strip()
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=6000"]
    command += [f"--window-size={draw.WIDTH},{draw.HEIGHT}", "--screenshot=page.png", f"http://{address}/#{secret}"]
    subprocess.run(command, cwd=desk, check=True, stderr=subprocess.DEVNULL)
    return (desk / "page.png").read_bytes()


main()
