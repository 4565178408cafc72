"""A terminal of 80 columns for tests: a pseudo-terminal and what a person would see on it."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading

WIDTH = 80


class Terminal:
    """A pseudo-terminal. `stream` writes to it, and a thread reads what a real one would show."""

    def __init__(self):
        controller, device = pty.openpty()
        fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        self.stream = os.fdopen(device, "w")
        self._received = bytearray()
        self._reader = threading.Thread(target=self._read, args=(controller,))
        self._reader.start()

    def _read(self, controller):
        try:
            while data := os.read(controller, 4096):
                self._received += data
        except OSError:  # the stream was closed
            os.close(controller)

    def close(self):
        """Closes the stream; returns everything that was written."""
        if not self.stream.closed:
            self.stream.close()
        self._reader.join()
        return self._received.decode()


def show(text):
    """Returns the lines that a terminal shows after it has received a text."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|[\r\n]|[^\x1b\r\n]", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
        elif part == "\x1b[A":
            row -= 1
        else:
            assert len(part) == 1, part
            if column == WIDTH:
                row, column = row + 1, 0
        lines += [""] * (row + 1 - len(lines))
        if part >= " ":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
