"""What people see: in a pipe, without colour, in a narrow window."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from flows.console import RunConsole, print_line, print_table, summarize
from flows.execution import Execution
from flows.progress import ProgressLine
from flows.summary import METRIC_COLUMNS, duration, metric_cells, percent
from ssl_tasks.store import Output
from ssl_tasks.store.runs import StageRecord

Begin = Callable[..., Execution]


def console(**options: object) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, **options), stream  # type: ignore[arg-type]  # passed through


def test_lines_in_a_pipe_are_whole_and_plain(begin: Begin) -> None:
    target, stream = console(width=40)
    execution = begin()
    shown = RunConsole(target, execution.store)
    shown.planned(execution.plan)
    reason = "config " + ", ".join(f"field_{number} 1 -> 2" for number in range(9))
    shown.finished(StageRecord(name="split", status="ran", seconds=0.5, rows=1200, fingerprint="f", reason=reason))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "to run: ingest, assign, split, pretrain, transfer, report"
    assert len(lines) == 2
    assert lines[1].endswith(reason)
    assert "1,200 rows" in lines[1]
    assert "\x1b" not in stream.getvalue()


def test_lines_on_a_terminal_are_cut_at_its_edge() -> None:
    target, stream = console(width=30, force_terminal=True, no_color=True)
    print_line(target, "x" * 100)
    (line,) = stream.getvalue().splitlines()
    assert len(line) == 30


def test_brackets_in_names_are_shown_as_they_are() -> None:
    target, stream = console(width=80)
    print_line(target, "class [bold]cat[/bold]")
    assert stream.getvalue() == "class [bold]cat[/bold]\n"


def test_the_summary_names_metrics_verdict_and_report(begin: Begin) -> None:
    execution = begin()
    for planned in execution.plan:
        execution.run_stage(planned.name)
    execution.finish("completed")
    target, stream = console(width=120)
    summarize(target, execution.record)
    text = stream.getvalue()
    assert "+10.0 [+5.0, +15.0]" in text
    assert "Pretraining helped." in text
    assert f"set aside: 1 rejected, 2 flagged (pretextflow quarantine {execution.record.run_id} --store " in text
    assert f"report: {execution.record.report}\n" in text


def test_what_trains_the_whole_network_shows_training_from_scratch_once() -> None:
    row = {"label_fraction": 0.1, "pretrained": 0.9, "random_init": 0.8, "from_scratch": 0.8, "difference": 0.1}
    row |= {"low": 0.05, "high": 0.15}
    probe, tuned = (
        dict(zip(METRIC_COLUMNS, metric_cells({**row, "strategy": name}), strict=True)) for name in ("knn", "fine_tune")
    )
    assert (probe["random init"], probe["from scratch"], tuned["random init"]) == ("80%", "80%", "-")
    assert (tuned["pretrained"], tuned["from scratch"]) == ("90%", "80%")
    assert probe[METRIC_COLUMNS[-1]] == "+10.0 [+5.0, +15.0]"
    assert tuned[METRIC_COLUMNS[-1]] == "+10.0 [+5.0, +15.0] over from scratch"


def test_the_progress_line_tells_step_loss_speed_and_time_left(begin: Begin) -> None:
    execution = begin()
    planned = execution.plan[3]
    line = ProgressLine(console()[0], execution.store, planned)
    assert line._text({"note": "starting Ray"}).endswith("starting Ray")
    path = f"partial/{planned.fingerprint}/progress.json"
    execution.store.write_json(path, {"step": 40, "total_steps": 100, "loss": 1.5, "rows_per_second": 1234.5})
    assert line._text(line._read()).endswith("step 40/100  loss 1.5  1,234 rows/s")
    assert line._first is not None
    line._first = (line._first[0] - 10, 40)  # ten seconds ago
    left = line._text({"step": 60, "total_steps": 100, "loss": 1.0, "rows_per_second": 1000})
    assert left.endswith("20.0 s left")
    again = line._text({"step": 60, "total_steps": 100, "note": "starting workers"})
    assert "step 60/100" in again
    assert again.endswith("starting workers")


def test_the_progress_line_tells_files_of_stages_that_count_them(begin: Begin) -> None:
    execution = begin()
    planned = execution.plan[0]
    line = ProgressLine(console()[0], execution.store, planned)
    out = Output(execution.store.uri, planned.fingerprint, "attempt", planned.name)
    out.progress(1200, 50_000, "files")
    out.progress(1300, 50_000, "files")  # within the same second: not written
    assert line._text(line._read()).endswith("1,200 of 50,000 files")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.04, "0.0 s"), (59.94, "59.9 s"), (75, "1 min 15 s"), (7260, "2 h 1 min")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "12.3%"), (0.01, "1%"), (1.0, "100%"), (0.001, "0.1%"), (None, "-")]
)
def test_percentages(value: float | None, text: str) -> None:
    assert percent(value) == text


def test_in_a_narrow_window_the_long_texts_go_below_and_no_word_is_broken() -> None:
    names = ["run", "state", "stages", "took", "error"]
    rows = [
        [
            "20260101-120000-digits-abcd",
            "interrupted",
            "10 ran, 0 cached",
            "5 min 32 s",
            "the node timed out during startup",
        ],
        ["20260101-120001-digits-abcd", "completed", "1 ran, 9 cached", "2.0 s", ""],
    ]
    for width, below in ((60, True), (76, True), (160, False)):
        target, stream = console(width=width)
        print_table(target, names, rows, right=["took"])
        lines = stream.getvalue().splitlines()
        assert all(len(line.rstrip()) <= width for line in lines)
        words = stream.getvalue().split()
        assert {"interrupted", "completed", "startup", "20260101-120000-digits-abcd"} <= set(words)
        assert any(line.startswith("  error: the node timed out during startup") for line in lines) == below
        assert stream.getvalue().count("error") == 1


def test_cells_are_not_read_as_markup() -> None:
    for width in (20, 80):
        target, stream = console(width=width)
        print_table(target, ["a", "b", "why"], [["x", "y", "class [bold]cat[/bold] and more"]])
        assert "[bold]cat[/bold]" in stream.getvalue()
