"""A file's own checksum, which travels inside the file: in the metadata of `.safetensors` and `.onnx`.

It is the SHA-256 of all bytes, with zeros in its own place. It finds bits that a disk has changed, not a forger.
"""

import hashlib
import re
from pathlib import Path

SEAL = "file_sha256"
"""Key of the checksum in the metadata."""
OPEN = "0" * 64
"""Its value until the file is sealed."""
_FOUND = re.compile(SEAL.encode() + rb'[\\": ]+([0-9a-f]{64})')


def seal(path: Path) -> None:
    """Write the checksum of a file into its place."""
    content = bytearray(path.read_bytes())
    if found := _FOUND.search(content):
        content[found.start(1) : found.end(1)] = hashlib.sha256(content).hexdigest().encode()
        path.write_bytes(content)


def is_broken(path: Path) -> bool:
    """Return whether a sealed file has changed since then; false for a file without a seal."""
    content = bytearray(path.read_bytes())
    found = _FOUND.search(content)
    if found is None or found[1] == OPEN.encode():
        return False
    told = found[1].decode()
    content[found.start(1) : found.end(1)] = OPEN.encode()
    return hashlib.sha256(content).hexdigest() != told
