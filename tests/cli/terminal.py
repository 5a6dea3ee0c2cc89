"""Runs a program on a terminal, and types answers.

terminal.py COLUMNS STEPS PROGRAM ARGUMENT...

STEPS is a JSON list of pairs: a text to wait for, and what is typed then. Prints JSON: the exit code,
which is negative after a signal, and all that the terminal showed.
"""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

columns, steps, program = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
process, terminal = pty.fork()
if process == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    os.execv(program[0], program)
seen, place, deadline = b"", 0, time.monotonic() + 60
while time.monotonic() < deadline:
    if steps:
        wanted = steps[0][0].encode()
        found = seen.find(wanted, place)
        if found >= 0:
            place = found + len(wanted)
            os.write(terminal, steps.pop(0)[1].encode())
            continue
    if not select.select([terminal], [], [], 0.2)[0]:
        continue
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    seen += part
else:
    os.kill(process, 9)
_, status = os.waitpid(process, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"code": code, "shown": seen.decode(errors="replace")}))
