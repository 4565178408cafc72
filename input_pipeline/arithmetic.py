"""Integer arithmetic for counting batches."""


def ceil_div(a: int, b: int) -> int:
    """Returns a / b rounded up, computed with integers only, so it is exact for any size."""
    return -(-a // b)
