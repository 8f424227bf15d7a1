"""Reading photos once before a training, and what is looked for: damaged files, copies in two splits or two classes."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from kd_lightning.data.find_files import printable
from kd_lightning.data.images.digest_cache import DIGEST, DigestCache, Known, file_keys, nothing
from kd_lightning.data.images.photos import Photos, decode_all, read_all
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


def read(parts: Sequence[Photos], size: int, cache: DigestCache | None = None) -> None:
    """Read every file of `parts` once, and keep its digest.

    Args:
        parts: The photos.
        size: Decode them, as a training on images of so many pixels does; 0 does not.
        cache: Knows the files that an earlier process has read, and is told of these.

    Raises:
        UserError: If files are damaged; the message names some.
    """
    paths = [path for part in parts for path in part.paths()]
    keys = np.zeros(len(paths), DIGEST) if cache is None else file_keys(paths)
    digests, sizes = nothing(len(paths)) if cache is None else cache.find(keys)
    new = np.flatnonzero((digests == b"") | ((sizes != size) & (size > 0)))
    files, damaged = [paths[i] for i in new], []
    if size:
        digests[new], faults = decode_all(files, size)
        damaged = [f"{printable(path)} ({why})" for path, why in zip(files, faults, strict=True) if why]
    else:
        digests[new] = read_all(files)
    sizes[new] = size
    if damaged:
        sizes[[i for i, why in zip(new, faults, strict=True) if why]] = 0  # read again; the others need not be
    if cache is not None and len(new):
        cache.write(keys, Known(digests, sizes))
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise UserError(
            f"cannot read {', '.join(damaged[:5])}{more}; remove or replace (data.verify=false skips this check)"
        )
    ends = np.cumsum([len(part) for part in parts])[:-1]
    for part, own in zip(parts, np.split(digests, ends), strict=True):
        part.digests = own


def check_repeats(splits: Mapping[str, Photos]) -> None:
    """Look for pictures with equal bytes: those in two classes are told.

    Args:
        splits: Photos of the splits that are kept apart.

    Raises:
        UserError: If a picture is in two splits; the message names some.
    """
    for (a, one), (b, two) in combinations(splits.items(), 2):
        repeated = np.flatnonzero(np.isin(two.digests, one.digests))
        if len(repeated):
            copy = int(repeated[0])
            twin = one.path(int(np.flatnonzero(one.digests == two.digests[copy])[0]))
            more = f", and {len(repeated) - 1} more" if len(repeated) > 1 else ""
            raise UserError(
                f"{b} has pictures of {a}: {printable(two.path(copy))} is {printable(twin)}{more}; a picture "
                "belongs into one split only, remove the copies"
            )
    for split, photos in splits.items():
        _, first, inverse = np.unique(photos.digests, return_index=True, return_inverse=True)
        other = np.flatnonzero(photos.labels != photos.labels[first][inverse])
        if len(other):
            i = int(other[0])
            twin = photos.path(int(first[inverse[i]]))
            have = "picture of {} has" if len(other) == 1 else "pictures of {} have"
            say(
                f"warning: {len(other)} {have.format(split)} a copy in another class, such as "
                f"{printable(photos.path(i))} and {printable(twin)}; a model cannot tell them apart"
            )
