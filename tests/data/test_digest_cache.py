"""Photos are read and decoded once, by whichever process comes first, and again when they have changed."""

import os
import threading
import time
from pathlib import Path

import pytest

from kd_lightning.data.images import digest_cache, photos
from kd_lightning.utils.checks import UserError
from tests.data.test_image_folder import make, root  # noqa: F401  # the fixture


@pytest.fixture
def decoded(root, monkeypatch) -> list[Path]:  # noqa: F811
    """Files that are decoded, in a folder whose files are older than a tick of the clock."""
    monkeypatch.setattr(digest_cache, "SETTLED", -(10**12))
    files: list[Path] = []
    check = photos._check

    def count(path: Path, size: int) -> tuple[bytes, str]:
        files.append(path)
        time.sleep(0.01)
        return check(path, size)

    monkeypatch.setattr(photos, "_check", count)
    return files


def digests(root: Path) -> Path:  # noqa: F811
    return root.with_name(f"{root.name}_digests")


def prepared(root: Path, **values: object):  # noqa: F811
    data = make(root, digest_cache=str(digests(root)), **values)
    data.prepare_data()
    return data


def test_a_damaged_photo_has_only_itself_read_again(root: Path, decoded: list[Path]) -> None:  # noqa: F811
    (root / "train" / "cat" / "x.png").write_text("hello")
    for count in (21, 1):
        decoded.clear()
        with pytest.raises(UserError, match=r"cannot read .*x\.png"):
            prepared(root)
        assert len(decoded) == count
    (root / "train" / "cat" / "x.png").unlink()
    decoded.clear()
    prepared(root)
    assert not decoded


def test_a_second_process_decodes_nothing_and_has_the_same_identity(root, decoded):  # noqa: F811
    first = prepared(root).fingerprint()
    assert len(decoded) == 20
    assert prepared(root).fingerprint() == first == make(root).fingerprint() and len(decoded) == 20


def test_only_what_has_changed_is_decoded_again(root, decoded):  # noqa: F811
    before = prepared(root).fingerprint()
    path = root / "train" / "cat" / "0.jpg"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)  # as long and as old as before
    decoded.clear()
    assert prepared(root).fingerprint() != before and decoded == [path]
    prepared(root, image_size=8)
    assert len(decoded) == 21, "for other images each file is decoded anew"


def test_a_file_that_has_just_changed_is_not_kept(root, decoded, monkeypatch):  # noqa: F811
    monkeypatch.setattr(digest_cache, "SETTLED", 10**12)
    prepared(root)
    prepared(root)
    assert len(decoded) == 40


def test_two_processes_at_once_decode_each_file_once(root, decoded):  # noqa: F811
    threads = [threading.Thread(target=prepared, args=(root,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 20


def test_a_damaged_table_counts_as_none(root, decoded):  # noqa: F811
    prepared(root)
    (table,) = digests(root).glob("*.npz")
    table.write_bytes(table.read_bytes()[:-30])
    assert prepared(root).fingerprint() == make(root).fingerprint() and len(decoded) == 40


def test_a_folder_that_cannot_be_written_is_one_line(root, decoded, capsys):  # noqa: F811
    digests(root).write_text("a file")
    prepared(root)
    assert "digests of the photos are not kept: " in capsys.readouterr().out and len(decoded) == 20
