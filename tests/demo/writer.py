"""Customers who never stop: places orders one after the other and records each that the shop confirmed.

The record lies outside the shop, so that it can testify afterwards which orders must be there. One line an order: its
number, and the time before it was sent and after it was confirmed, in seconds since the epoch.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path

PAUSE = 0.02
"""Seconds between two orders: dozens each second are enough, and leave the machine to the backup."""


def main(address: str, record: Path) -> None:
    """Place orders until killed. An order that was not confirmed is not recorded, and the next one is tried."""
    with record.open("a", buffering=1) as lines:
        number = 0
        while True:
            number += 1
            order = json.dumps({"customer": f"writer-{number}", "product": 1 + number % 200, "quantity": 1})
            sent = time.time()
            connection = http.client.HTTPConnection(address, timeout=5)
            try:
                connection.request("POST", "/orders", body=order)
                response = connection.getresponse()
                body = response.read()
                if response.status == http.HTTPStatus.CREATED:
                    lines.write(f"{json.loads(body)['id']} {sent:.6f} {time.time():.6f}\n")
            except (OSError, http.client.HTTPException) as error:
                print(f"order {number} was not confirmed: {error}", file=sys.stderr, flush=True)
            finally:
                connection.close()
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
