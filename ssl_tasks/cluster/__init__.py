"""The compute plane: the only package that imports Ray.

connect.py      a local Ray of our own, or a running cluster by address
reaper.py       ends what a local Ray leaves, after a SIGKILL too
train.py        Ray Train: refuse what cannot run, start workers, wait, hand failures on
starts.py       says that workers are about to start
spill.py        whether Ray's object store goes to disks
watch.py        ends a training that stands still
lean.py         Ray Train's own parts with fewer processes, for the local Ray
standard.py     Ray Train as it comes, for clusters of others and for GPUs
worker.py       what runs in each training process
feed.py         a plan of steps through Ray Data, inside each training process
nodes.py        what a training asks of a cluster, and whether its nodes have it: no Ray in there
look.py         asks every node, from a process of its own
metrics.py      gauges for Prometheus
probe.py        one Ray task, for `doctor --ray`
"""
