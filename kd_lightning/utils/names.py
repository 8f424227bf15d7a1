"""Names for files, folders and commands."""

PREFIX = ["python -m kd_lightning."]
"""Words before a command's name in its help; `kd` sets its own."""


def program(command: str) -> str:
    """Return the command as the user called it: `python -m kd_lightning.compare`, or `kd compare`."""
    return PREFIX[0] + command


def slug(name: str) -> str:
    """Return `name` with everything but letters, digits, `_` and `-` replaced by `-`."""
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in name)
