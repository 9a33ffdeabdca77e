"""The shop's web: a page, a checksum over the orders, and a way to place one more.

``through`` in a query limits the answer to orders up to that number: what the shop showed when that order was its last.
"""

import json
import os
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import psycopg2

TITLE = os.environ["SHOP_TITLE"]
CURRENCY = os.environ["SHOP_CURRENCY"]
EVERYTHING = 2**63 - 1

TOTALS = """SELECT (SELECT count(*) FROM products), count(*), coalesce(sum(quantity * price_cents), 0)
              FROM orders WHERE id <= %s"""
BEST_SELLERS = """SELECT p.name, sum(o.quantity) FROM orders o JOIN products p ON p.id = o.product_id
                   WHERE o.id <= %s GROUP BY p.id, p.name ORDER BY 2 DESC, p.id LIMIT 3"""
CHECKSUM = """SELECT count(*), coalesce(max(id), 0), md5(coalesce(string_agg(md5(o::text), '' ORDER BY id), ''))
                FROM orders o WHERE id <= %s"""
PLACE = """INSERT INTO orders (customer, product_id, quantity, price_cents)
           SELECT %s, id, %s, price_cents FROM products WHERE id = %s RETURNING id"""


def query(statement: str, *values: object) -> list[tuple]:
    """Run one statement in a transaction of its own; it is committed when this returns."""
    connection = psycopg2.connect("", connect_timeout=5)  # libpq reads PGHOST, PGUSER and so on
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()
    finally:
        connection.close()


def page(through: int) -> str:
    """The shop's front page."""
    [(products, orders, cents)] = query(TOTALS, through)
    sellers = "".join(f"<li>{name}: {sold} sold</li>" for name, sold in query(BEST_SELLERS, through))
    return (
        f"<!doctype html><title>{TITLE}</title><h1>{TITLE}</h1>"
        f"<p>{products} products, {orders} orders, {cents / 100:,.2f} {CURRENCY} revenue</p><ol>{sellers}</ol>\n"
    )


class Shop(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        through = int(parse_qs(url.query).get("through", [EVERYTHING])[0])
        if url.path == "/":
            self.answer("text/html; charset=utf-8", page(through))
        elif url.path == "/checksum":
            [(count, last, md5)] = query(CHECKSUM, through)
            self.answer("application/json", json.dumps({"count": count, "last": last, "md5": md5}))
        elif url.path == "/healthz":
            query("SELECT 1")
            self.answer("text/plain", "ok\n")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if self.path != "/orders":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [(number,)] = query(PLACE, order["customer"], order["quantity"], order["product"])
        self.answer("application/json", json.dumps({"id": number}), HTTPStatus.CREATED)

    def answer(self, kind: str, text: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except psycopg2.Error as error:
            print(f"database: {error}", file=sys.stderr, flush=True)
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Only errors are worth a line: the probes alone would fill the log."""


ThreadingHTTPServer(("", 8080), Shop).serve_forever()
