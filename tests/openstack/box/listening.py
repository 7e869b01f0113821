"""Waits until services listen on RabbitMQ's queues with these names: a message that is sent earlier is lost."""

import sys
import time

import amqp


def consumers(name: str) -> int:
    """How many services read a queue."""
    try:
        with amqp.Connection("127.0.0.1:5672") as connection:
            return connection.channel().queue_declare(name, passive=True).consumer_count
    except (OSError, amqp.AMQPError):
        return 0


END = time.monotonic() + 300
for queue in sys.argv[1:]:
    while not consumers(queue):
        if time.monotonic() > END:
            sys.exit(f"nothing listens on {queue}")
        time.sleep(0.3)
