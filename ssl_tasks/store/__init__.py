"""The store: immutable artifacts addressed by what they were made from, on any `pyarrow.fs` file system.

objects/<fingerprint>/<attempt>/...     data
objects/<fingerprint>/manifest.json     written last, names the attempt
partial/<fingerprint>/                  training checkpoints and progress
leases/<fingerprint>.json               who is making it
runs/<run id>.json                      run records
cache/                                  content hashes of source files
pretextflow-store.json                  the format version
"""

from ssl_tasks.store.filesystem import FORMAT_VERSION, Store
from ssl_tasks.store.output import Output

__all__ = ["FORMAT_VERSION", "Output", "Store"]
