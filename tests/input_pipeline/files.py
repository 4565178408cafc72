"""What tests of data sets on disk share."""


def put(path, data=b"image"):
    """Writes a file, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
