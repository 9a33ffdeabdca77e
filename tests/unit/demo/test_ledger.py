"""The customers' record is judged so that nothing is claimed that the clock does not prove."""

from __future__ import annotations

from tests.demo.ledger import Order, judge, read

CUT = 1000.0


def test_only_orders_confirmed_well_before_the_second_of_the_cut_must_be_there() -> None:
    orders = [Order(1, 998.0, 998.9), Order(2, 998.9, 999.0), Order(3, 998.9, 999.1), Order(4, 999.9, 1000.1)]

    assert judge(orders, CUT).must_be_there == (1, 2)


def test_only_orders_sent_well_after_the_second_of_the_cut_cannot_be_there() -> None:
    orders = [Order(1, 1000.5, 1000.6), Order(2, 1001.9, 1002.0), Order(3, 2000.0, 2000.1), Order(4, 1002.0, 1002.1)]

    assert judge(orders, CUT).cannot_be_there == (3, 4)


def test_a_line_that_was_cut_off_by_the_writers_end_is_not_read() -> None:
    assert read(["1 10.0 10.5\n", "2 11.0 11.5\n", "3 12.0 1"]) == [Order(1, 10.0, 10.5), Order(2, 11.0, 11.5)]
