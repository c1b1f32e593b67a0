"""What assign and split are made of.

groups.py       the groups of all rows as arrays: sizes, labels, given splits
rules.py        groups to splits: shares within strata, folds
earlier.py      what an earlier run decided
"""
