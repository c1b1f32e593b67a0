"""What the clean stage is made of.

scan.py         examine every sample once: rejected ones, content keys, measures, prints
families.py     rows that cannot be stored beside the others
near.py         near duplicates by an index over signatures, checked on prints
groups.py       pairs to groups, and their names
outliers.py     how unusual a sample's measures are
quarantine.py   rows of the quarantine table, with thumbnails

Memory holds some numbers for each row and nothing longer: 64 bytes a row, and while near
duplicates are looked for 8 for each pair found, of which there are 8 a row at most.
"""
