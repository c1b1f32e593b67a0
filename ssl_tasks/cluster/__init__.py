"""The compute plane: the only package that imports Ray.

connect.py      a local Ray of our own, or a running cluster by address
preflight.py    can the cluster hold the workers and still leave CPUs for the feed
feed.py         a plan of steps through Ray Data, inside each training worker
train.py        Ray Train: start workers, wait, hand failures on
lean.py         Ray Train's own parts with fewer processes, for the local Ray
"""
