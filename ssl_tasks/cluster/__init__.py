"""The compute plane: the only package that imports Ray.

connect.py      a local Ray of our own, or a running cluster by address
reaper.py       ends what a local Ray leaves, after a SIGKILL too
cleaner.py      gives back what a killed run held on a cluster of others
jobs.py         a command as a Ray job, for a process on no Ray node
train.py        Ray Train: refuse what cannot run, start workers, wait, hand failures on
starts.py       says that workers are about to start
elastic.py      how many workers train, where that is a range
spill.py        whether Ray's object store goes to disks
watch.py        ends a training that stands still
lean.py         Ray Train's own parts with fewer processes, for the local Ray
standard.py     Ray Train as it comes, for clusters of others and for GPUs
allocator.py    what those processes do with freed memory
worker.py       what runs in each training process
feed.py         a plan of steps through Ray Data, inside each training process
nodes.py        what a node says of itself
room.py         what a training takes of a cluster, and whether its nodes hold it: no Ray in there
checks.py       whether its nodes have what a training asks of them: no Ray in there either
look.py         asks every node, from a process of its own
idle.py         Ray Data's scheduling loop rests while batches lie ready
fits.py         independent fits as Ray tasks
search.py       successive halving by Ray Tune
metrics.py      gauges for Prometheus
probe.py        one Ray task, for `doctor --ray`
"""
