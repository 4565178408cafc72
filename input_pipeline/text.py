"""Formats counts, names and TensorFlow errors for people."""

import re
import typing

if typing.TYPE_CHECKING:
    import tensorflow as tf


def pluralize(number: int, noun: str) -> str:
    """Returns a number and its noun, such as "1 class" or "2 classes".

    Args:
      number: the count.
      noun: in the singular.
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def is_number(text: str) -> bool:
    """Returns whether `int` reads a text as digits.

    `str.isdigit` accepts superscripts, on which `int` fails, and the digits of all scripts.
    """
    return text.isascii() and text.isdigit()


def escape_non_utf8(text: str) -> str:
    """Escapes lone surrogates, with which Python represents non-UTF-8 bytes of file names.

    OpenCV crashes on them, and protocol buffers reject them.
    """
    return text.encode(errors="backslashreplace").decode()


# Control characters, lone surrogates, and characters that begin a new line or change the direction
# of text. A terminal would obey them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_unprintable(text: str) -> str:
    """Escapes characters that a terminal would obey, such as in names of files and classes."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def tf_error_message(error: "tf.errors.OpError") -> str:
    """Returns the message of a TensorFlow error in one line, without the names of operations."""
    message = error.message.split("\n\t [[")[0].split(" [Op:")[0].split("}} ")[-1]
    # An error inside a function begins with the place where it was traced.
    if message.startswith("Graph execution error:"):
        message = message.rstrip().rpartition("\n")[2]
    message = message.replace("assertion failed:", "").strip().partition("\n")[0]
    words = " ".join(message.split())
    return words[1:-1] if words.startswith("[") else words


def summarize_error(error: BaseException) -> str:
    """Returns up to 200 characters of an error's first line, without TensorFlow's prefix."""
    return re.sub(r"^\{\{.*?\}\} ", "", str(error).strip()).split("\n")[0][:200]
