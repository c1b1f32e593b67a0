"""What assign and split are made of.

groups.py       the groups of all rows as arrays: sizes, labels, given splits
decide.py       who goes where, and what is worth a word
rules.py        groups to splits: shares within strata, folds
earlier.py      what an earlier run decided
read.py         which split each row stands in, once that is decided
"""
