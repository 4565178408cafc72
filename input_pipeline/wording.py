"""Numbers of things in words that people read."""


def counted(number, noun):
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
