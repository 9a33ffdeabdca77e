"""The nightly report: orders and revenue of each of the last seven days, on standard output."""

import os

import psycopg2

REPORT = """SELECT created_at::date, count(*), sum(quantity * price_cents) FROM orders
             WHERE created_at > now() - interval '7 days' GROUP BY 1 ORDER BY 1"""

with psycopg2.connect("") as connection, connection.cursor() as cursor:
    cursor.execute(REPORT)
    for day, orders, cents in cursor:
        print(f"{day}  {orders:>7} orders  {cents / 100:>14,.2f} {os.environ['SHOP_CURRENCY']}")
