"""Progress that nobody watches: what the dataset tools count with unless they are given a bar."""


class NoProgress:
    """Counts nothing and shows nothing; whoever shows progress offers the same two methods.

    Args:
      total: images in all.
      done: images done before.
    """

    def __init__(self, total, done=0):
        del total, done

    def advance(self, images):
        """Counts images done."""

    def close(self):
        """Ends the counting."""
