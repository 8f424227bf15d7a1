"""A table of logits on disk or in memory that several processes may fill at once.

N rows of C logits. Every row carries a checksum of its own bits, and a row counts only if the two fit: an empty row,
one that a killed process left half written, or one that two processes wrote at once is simply not there, and is filled
again.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_CHECK = 2  # int16 words of checksum per row


class LogitTable:
    """`rows` rows of `classes` logits, stored as `dtype`: in the file `path`, shared, or in memory if None."""

    def __init__(self, path: Path | None, rows: int, classes: int, dtype: torch.dtype):
        self.path, self.dtype, self.rows = path, dtype, rows
        self._words = classes * dtype.itemsize // 2
        shape = (rows, self._words + _CHECK)
        if path is None:
            self._table = torch.zeros(shape, dtype=torch.int16)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as f:
                f.truncate(rows * shape[1] * 2)  # sparse: takes space only as it fills
            self._table = torch.from_numpy(np.memmap(path, np.int16, "r+", shape=shape))
        # Odd multipliers, one a word, so that no single changed or swapped word keeps the sum.
        self._odd = 2 * torch.randint(2**20, (self._words,), generator=torch.Generator().manual_seed(7)) + 1

    @staticmethod
    def size(rows: int, classes: int, dtype: torch.dtype) -> int:
        """Bytes of a full table."""
        return rows * (classes * dtype.itemsize + 2 * _CHECK)

    def read(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, C]` of the rows `keys` `[B]`, and which of them are there `[B]`, bool; the others are noise."""
        rows = self._table.index_select(0, keys)
        words, check = rows.split((self._words, _CHECK), dim=1)
        return words.contiguous().view(self.dtype), (self._checksum(words) == check).all(1)

    def write(self, keys: Tensor, logits: Tensor) -> None:
        """Stores logits `[B, C]`, rounded to the table's dtype, in the rows `keys` `[B]`."""
        words = logits.to("cpu", self.dtype).contiguous().view(torch.int16)
        self._table[keys] = torch.cat((words, self._checksum(words)), dim=1)

    def _checksum(self, words: Tensor) -> Tensor:
        sums = (words.long() * self._odd).sum(1, keepdim=True) + 0x5EED  # an empty row does not fit
        return torch.cat((sums & 0xFFFF, (sums >> 16) & 0xFFFF), dim=1).to(torch.int16)
