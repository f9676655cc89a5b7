"""Types lines into a shell on a pseudo-terminal, and takes its screens."""

import dataclasses
import fcntl
import os
import pathlib
import pty
import select
import struct
import termios
import time

import pyte

COLUMNS, ROWS = 104, 30
PROMPT = "$ "
# Seconds: a keystroke in the recording, after a line, the shortest frame, and the longest time that a command may take.
KEY, PAUSE, FRAME, DEADLINE = 0.03, 1.6, 0.06, 60
# Keystrokes in one frame.
STRIDE = 4


@dataclasses.dataclass
class Frame:
    """A screen, and how long it is shown, in seconds. A line is a list of characters of pyte."""

    lines: list
    seconds: float


def record(lines: list[str], directory: pathlib.Path) -> list[Frame]:
    """The frames of a session in which each of `lines` is typed after the one before has ended."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "PS1": PROMPT, "TERM": "xterm-256color"})
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    session = Session(master)
    session.run("export PS2= HISTFILE=; stty -echo; clear")
    for line in lines:
        session.type(line)
        session.run(line)
    os.close(master)
    os.waitpid(pid, 0)
    return session.frames


class Session:
    def __init__(self, master: int):
        self.master = master
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.frames: list[Frame] = []

    def take(self, seconds: float) -> None:
        buffer = self.screen.buffer
        lines = [[buffer[row][column] for column in range(COLUMNS)] for row in range(ROWS)]
        if self.frames and self.frames[-1].lines == lines:
            self.frames[-1].seconds += seconds
        else:
            self.frames.append(Frame(lines, seconds))

    def type(self, line: str) -> None:
        """Shows the typing of a line, at one speed, and a comment in grey. The shell does not echo what it is given, but ends the line."""
        self.stream.feed(b"\x1b[%dm" % (90 if line.startswith("#") else 1))
        for start in range(0, len(line), STRIDE):
            self.stream.feed(line[start : start + STRIDE].encode())
            self.take(KEY * STRIDE)
        self.stream.feed(b"\x1b[0m")

    def run(self, line: str) -> None:
        """Gives the shell a line, and takes frames until it prompts again."""
        os.write(self.master, line.encode() + b"\n")
        began = taken = time.monotonic()
        while True:
            ready, _, _ = select.select([self.master], [], [], FRAME)
            now = time.monotonic()
            if ready:
                self.stream.feed(os.read(self.master, 65536))
            if now - taken >= FRAME:
                self.take(now - taken)
                taken = now
            cursor = self.screen.cursor
            if not ready and cursor.x == len(PROMPT) and self.screen.display[cursor.y].startswith(PROMPT):
                return self.take(PAUSE)
            if now - began > DEADLINE:
                raise TimeoutError(f"no prompt after {DEADLINE} s: {line}")
