"""A visit to a web application, for the examples: it is served on a free port by a real server."""

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import httpx
import uvicorn

PATIENCE_SECONDS = 30.0


@contextmanager
def served(application: Callable[..., Awaitable[None]]) -> Generator[httpx.Client]:
    """Run a server in a thread for the length of the block, and give a client that asks it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
                yield client
        finally:
            # The server ends the application's lifespan, and with it the worker.
            server.should_exit = True
            thread.join()


def visit(client: httpx.Client) -> None:
    """Place orders, one of them bad, have a report made, and print what is answered."""
    for order in (
        {"item": "lamp", "cents": 1250},
        {"item": "sofa", "cents": 89000},
        {"item": "air", "cents": 0},
    ):
        answer = client.post("/orders", json=order)
        print("POST /orders", answer.status_code, answer.json().get("order", "refused"))
    asked = client.post("/reports")
    where = f"/reports/{asked.json()['job']}"
    print("POST /reports", asked.status_code)
    answer = client.get(where)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while answer.json()["state"] not in ("succeeded", "dead") and time.monotonic() < deadline:
        time.sleep(0.02)
        answer = client.get(where)
    print("GET /reports/...", answer.status_code, *answer.json().values())
    print("GET /reports/unknown", client.get("/reports/unknown").status_code)
