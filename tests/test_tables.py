"""Tables that fit the terminal."""

import pytest

from genlab.tables import aligned

HEAD = [("measure", "value", "unit", "split", "features")]
ROWS = [("nll_upper_bound_nats", "85.12", "nats/image", "test", "a classifier"), ("kl_nats", "2.5", "nats", "test", "")]


def test_a_table_that_is_too_wide_continues_in_parts_below_and_loses_no_cell() -> None:
    whole = aligned(HEAD, ROWS)
    assert len(whole.splitlines()) == 4
    assert aligned(HEAD, ROWS, width=80) == whole
    narrow = aligned(HEAD, ROWS, width=45)
    assert max(map(len, narrow.splitlines())) <= 45
    assert narrow.count("nll_upper_bound_nats") == 2
    assert narrow.endswith("\nall rows: split test")
    for cell in (*HEAD[0], *ROWS[0], *ROWS[1]):
        assert cell in narrow


def test_a_table_has_the_width_of_a_terminal_and_is_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "45")
    assert aligned(HEAD, ROWS) == aligned(HEAD, ROWS, width=0)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert aligned(HEAD, ROWS) == aligned(HEAD, ROWS, width=45)


def test_one_row_keeps_its_columns() -> None:
    assert "all rows" not in aligned(HEAD, ROWS[:1], width=45)


def test_a_column_of_empty_cells_is_no_fact_of_all_rows() -> None:
    rows = [("job", "status", "value"), ("0", "diverged", ""), ("1", "diverged", "")]
    assert aligned(rows[:1], rows[1:], width=12).endswith("\nall rows: status diverged")
