"""Names for files and folders."""


def slug(name: str) -> str:
    """Return `name` with everything but letters, digits, `_` and `-` replaced by `-`."""
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in name)
