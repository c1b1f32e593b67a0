"""One file per stage, each `run(config, out, *inputs) -> artifact`; the DAG in `flows/dag.py` lists them."""
