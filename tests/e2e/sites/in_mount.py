"""What programs do in a mount, with the errors that they see. Usage: in_mount.py VERB SRC DIR [ARGUMENT...]

read SRC DIR [NAME...]       compares each key in DIR, or all, with the file of its name in SRC
write SRC DIR NAME...        makes each from the file of its name
write-missing SRC DIR NAME...
move SRC DIR FROM:TO...      renames each
move-rest SRC DIR FROM:TO... those that have not been

Everything happens at once. What is done is told on stdout, an error with its name on stderr. The file `longest` gets the seconds of the
longest system call.
"""
import errno
import os
import sys
import threading
import time

verb, sources, place, arguments = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
failed = []
durations = [0.0]


def timed(call, *arguments):
    began = time.monotonic()
    try:
        return call(*arguments)
    finally:
        durations.append(time.monotonic() - began)


def source(name):
    with open(os.path.join(sources, name), 'rb') as file:
        return file.read()


def read(name):
    file = timed(os.open, os.path.join(place, name), os.O_RDONLY)
    try:
        found = b''
        while piece := timed(os.read, file, 1 << 20):
            found += piece
    finally:
        timed(os.close, file)
    if found != source(name):
        raise SystemExit(f'{name}: wrong bytes')


def write(name):
    out = timed(os.open, os.path.join(place, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    rest = source(name)
    try:
        while rest:
            rest = rest[timed(os.write, out, rest):]
    finally:
        timed(os.close, out)


def write_missing(name):
    if not os.path.exists(os.path.join(place, name)):
        write(name)


def move(pair):
    old, new = pair.split(':')
    timed(os.rename, os.path.join(place, old), os.path.join(place, new))


def move_rest(pair):
    old, new = (os.path.join(place, name) for name in pair.split(':'))
    # A rename that a fault ended may leave both, so that it loses none.
    if os.path.exists(old) and os.path.exists(new):
        os.unlink(old)
    elif os.path.exists(old):
        os.rename(old, new)


def run(call, argument):
    try:
        call(argument)
        sys.stdout.write(f'done {argument}\n')
    except OSError as error:
        failed.append(argument)
        sys.stderr.write(f'{argument}: {errno.errorcode[error.errno]}\n')
    except SystemExit as error:
        failed.append(argument)
        print(error, file=sys.stderr, flush=True)


def main():
    call = {'read': read, 'write': write, 'write-missing': write_missing, 'move': move, 'move-rest': move_rest}[verb]
    names = arguments
    if verb == 'read' and not names:
        try:
            names = sorted(timed(os.listdir, place))
        except OSError as error:
            failed.append(place)
            print(f'{place}: {errno.errorcode[error.errno]}', file=sys.stderr, flush=True)
    threads = [threading.Thread(target=run, args=(call, name)) for name in names]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with open('longest', 'w') as file:
        print(max(durations), file=file)
    sys.exit(1 if failed else 0)


main()
