"""Which split each group stands in, and what there is to say of the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import SPLITS, TEST, TRAIN, VAL
from ssl_tasks.splitting.groups import NOT_GIVEN, Grouped
from ssl_tasks.splitting.rules import Shares, cut, deal_folds

if TYPE_CHECKING:
    from ssl_tasks.stages.assign import AssignConfig

Int8 = NDArray[np.int8]
Bools = NDArray[np.bool_]
MANY = 0.05
"""Share of the rows that may be taken out for their group mates before it is worth a warning."""


def decide(config: AssignConfig, found: Grouped, taken: Int8, placed: Bools) -> Int8:
    """(G,) the split of each group: the one that is taken already, or by the shares among those where none is.

    What the data names in part is completed: a test or val that it lacks is drawn from its train groups.

    Args:
        taken: (G,) the split that the data or an earlier run names, or `NOT_GIVEN`.
        placed: (G,) whether an earlier run placed the group: it stays there.

    Raises:
        RequestError: there are fewer groups than folds.
    """
    strata = found.label if config.stratify else np.zeros_like(found.label)
    order = found.random_order(config.seed)
    train, val, test = config.fractions
    decided = taken.copy()

    def draw(groups: Any, shares: Shares, owed: dict[str, float] | None = None) -> None:
        decided[groups] = cut(strata[groups], found.size[groups], order[groups], shares, owed)

    free = np.flatnonzero(taken == NOT_GIVEN)
    if config.folds is None:
        every = slice(None) if len(free) == len(taken) else free  # not copied
        draw(every, Shares(test=test, val=val), _owed(found, taken, placed, Shares(test=test, val=val)))
    else:
        _require_folds(config.folds, len(free), len(taken))
        dealt = deal_folds(strata[free], found.size[free], order[free], config.folds)
        decided[free] = SPLITS.index(TEST)
        draw(free[dealt != config.fold], Shares(test=0.0, val=val / (train + val)))
    lacks_test, lacks_val = (SPLITS.index(name) not in decided for name in (TEST, VAL))
    of_train = np.flatnonzero((taken == SPLITS.index(TRAIN)) & ~placed)
    missing = Shares(test=test if lacks_test else 0.0, val=val if lacks_val else 0.0)
    whole = train + missing.test + missing.val
    if len(of_train) and whole > train:
        draw(of_train, Shares(test=missing.test / whole, val=missing.val / whole))
    return decided


def _owed(found: Grouped, taken: Int8, placed: Bools, shares: Shares) -> dict[str, float]:
    """What the rows that an earlier run placed leave over: else test would never grow in steps of a few rows."""
    before = int(found.size[placed].sum())
    rows = {name: int(found.size[placed & (taken == SPLITS.index(name))].sum()) for name in (TEST, VAL)}
    return {TEST: shares.test * before - rows[TEST], VAL: shares.val * before - rows[VAL]}


def _require_folds(folds: int, num_free: int, num_groups: int) -> None:
    if not num_free:
        raise RequestError("split.folds: the data names every sample's split; set split.use_given=false to draw folds")
    if folds > num_free:
        left = "" if num_free == num_groups else f" whose split is not given, of {num_groups}"
        raise RequestError(f"split.folds: {folds} folds need as many groups, and there are {num_free}{left}")


def examine(config: AssignConfig, found: Grouped, splits: Int8, keep: Bools) -> list[str]:
    """What the user should know of rows (N,) that stand in `splits`, where they are kept.

    Raises:
        RequestError: no row is left for train.
    """
    count = {name: int((splits[keep] == number).sum()) for number, name in enumerate(SPLITS)}
    given = {name: int((found.given == number).sum()) for number, name in enumerate(SPLITS)}
    rejected = int((~keep).sum())
    if not count[TRAIN]:
        raise RequestError(_no_train(given, count, rejected))
    warnings = []
    if rejected > MANY * len(keep):
        warnings.append(
            f"{rejected:,} of {len(keep):,} samples are taken out, because they are in one group (duplicates, or of "
            "one name) with samples that are given as test or val; split.use_given=false draws the splits anew"
        )
    wanted = config.fractions[SPLITS.index(TEST)] > 0 or config.folds is not None
    if found.any_given and not given[TEST] and count[TEST]:
        warnings.append(f"the data names no test samples: {count[TEST]:,} were drawn, by split.fractions")
    elif wanted and not count[TEST]:
        warnings.append(f"no sample is left for test: there are {len(found.size):,} groups only")
    return warnings


def _no_train(given: dict[str, int], count: dict[str, int], rejected: int) -> str:
    """Why there is none, by the key that can mend it."""
    if given[TRAIN]:
        return (
            f"split: no sample is left for train: of {given[TRAIN]:,} given as train, {rejected:,} are in one group "
            "(duplicates, or of one name) with samples given as test or val, or with an earlier run's; "
            "split.use_given=false draws the splits anew"
        )
    if sum(given.values()):
        named = ", ".join(f"{number:,} {name}" for name, number in given.items() if number)
        return f"split: no sample is left for train: the data names {named}; split.use_given=false draws them anew"
    return f"split.fractions: no sample is left for train, and {count[VAL] + count[TEST]:,} stand in val and test"
