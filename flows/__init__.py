"""The DAG, its command line and its Prefect flow. Everything below it is in `ssl_tasks`."""
