"""Which charts a report draws, and in which order."""

import pyarrow as pa

from ssl_tasks.report.charts import curves


def test_losses_come_first_and_columns_of_one_value_not_at_all() -> None:
    table = pa.table({"step": [0, 1, 2], "lr": [0.1, 0.2, 0.1], "once": [1.0, None, None], "loss": [3.0, 2.0, 1.0]})
    drawn = [figure.caption for figure in curves(table)]
    assert drawn == ["Loss", "Learning rate"]
    assert curves(pa.table({"loss": [1.0, 2.0]})) == []
