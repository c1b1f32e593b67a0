"""Self-supervised pretraining as a chain of content-addressed stages. Knows nothing of Prefect."""

__version__ = "0.1.0"
