"""Numbers, odd names, and what TensorFlow says of an error, in words that people read."""

import re


def pluralize(number, noun):
    """A number and its noun in the form that goes with it.

    Args:
      number: int.
      noun: str, the form for one.

    Returns:
      str, as "1 class", "2 classes".
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def escape_non_utf8(text):
    """A text with escapes for what is no character, as in names of files that are not UTF-8.

    Python keeps such bytes as lone surrogates, which OpenCV dies of and a protobuf refuses.
    """
    return text.encode(errors="backslashreplace").decode()


def tf_error_message(error):
    """What a tf.errors.OpError says, in one line and without the names of its operations."""
    message = error.message.split("\n\t [[")[0].split(" [Op:")[0].split("}} ")[-1]
    if message.startswith("Graph execution error:"):  # of a function: first, where it was traced
        message = message.rstrip().rpartition("\n")[2]
    message = message.replace("assertion failed:", "").strip().partition("\n")[0]
    words = " ".join(message.split())
    return words[1:-1] if words.startswith("[") else words


def summarize_error(error):
    """The beginning of an error's text, without TensorFlow's preface and dump of the tensors."""
    return re.sub(r"^\{\{.*?\}\} ", "", str(error).strip()).split("\n")[0][:200]
