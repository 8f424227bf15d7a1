"""Checks of photos before a training: damaged files, and copies in two splits or two classes."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from kd_lightning.data.find_files import printable
from kd_lightning.data.images.photos import Photos
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


def verify(parts: Sequence[Photos], size: int) -> None:
    """Decode every file of `parts` once, as a training on images of `size` pixels does.

    Raises:
        UserError: If files are damaged; the message names some.
    """
    damaged = [what for part in parts for what in part.verify(size)]
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise UserError(
            f"cannot read {', '.join(damaged[:5])}{more}; remove or replace (data.verify=false skips this check)"
        )


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
