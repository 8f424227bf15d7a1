"""A table of logits on disk or in memory that several processes may fill at once.

N rows of C logits. Every row carries a checksum of its own bits, and a row counts only if the two fit: an empty row,
one that a killed process left half written, or one that two processes wrote at once is simply not there, and is filled
again. Rows are read and written by system calls: a memory map would end the process by SIGBUS where a disk is full.
"""

import os
import weakref
from pathlib import Path

import torch
from torch import Tensor

_CHECK = 2  # int16 words of checksum per row


class LogitTable:
    """`rows` rows of `classes` logits, stored as `dtype`: in the file `path`, shared, or in memory if None."""

    def __init__(self, path: Path | None, rows: int, classes: int, dtype: torch.dtype):
        self.path, self.dtype, self.rows = path, dtype, rows
        self._words = classes * dtype.itemsize // 2
        self._width = 2 * (self._words + _CHECK)  # bytes of a row
        self._memory = torch.zeros((rows, self._words + _CHECK), dtype=torch.int16) if path is None else None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, self._file)
            os.ftruncate(self._file, rows * self._width)  # sparse: takes space only as it fills
        # Odd multipliers, one a word, so that no single changed or swapped word keeps the sum.
        self._odd = 2 * torch.randint(2**20, (self._words,), generator=torch.Generator().manual_seed(7)) + 1

    @staticmethod
    def size(rows: int, classes: int, dtype: torch.dtype) -> int:
        """Bytes of a full table."""
        return rows * (classes * dtype.itemsize + 2 * _CHECK)

    def read(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, C]` of the rows `keys` `[B]`, and which of them are there `[B]`, bool; the others are noise."""
        rows = self._rows(keys)
        words, check = rows.split((self._words, _CHECK), dim=1)
        return words.contiguous().view(self.dtype), (self._checksum(words) == check).all(1)

    def write(self, keys: Tensor, logits: Tensor) -> None:
        """Store logits `[B, C]`, as the table's dtype, in the rows `keys` `[B]`. Raises OSError on a full disk."""
        words = logits.to("cpu", self.dtype).contiguous().view(torch.int16)
        rows = torch.cat((words, self._checksum(words)), dim=1)
        if self._memory is not None:
            self._memory[keys] = rows
            return
        try:
            for key, row in zip(keys.tolist(), rows.numpy(), strict=True):
                os.pwrite(self._file, row, key * self._width)
        except OSError as e:
            raise OSError(e.errno, e.strerror, str(self.path)) from e

    def _rows(self, keys: Tensor) -> Tensor:
        if self._memory is not None:
            return self._memory.index_select(0, keys)
        width = self._width
        rows = [os.pread(self._file, width, key * width).ljust(width, b"\0") for key in keys.tolist()]
        return torch.frombuffer(bytearray(b"".join(rows) or width), dtype=torch.int16).view(-1, width // 2)[: len(keys)]

    def _checksum(self, words: Tensor) -> Tensor:
        sums = (words.long() * self._odd).sum(1, keepdim=True) + 0x5EED  # an empty row does not fit
        return torch.cat((sums & 0xFFFF, (sums >> 16) & 0xFFFF), dim=1).to(torch.int16)
