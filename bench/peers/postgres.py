"""The same purchase in PostgreSQL alone: durable at once, and every purchase waits for one row."""

from __future__ import annotations

import contextlib
import threading

import psycopg

from bench.peers import NO, Peer
from bench.servers import ENDLESS

SCHEMA = f"""
CREATE TABLE goods (goods_id text PRIMARY KEY, total bigint NOT NULL, booked bigint NOT NULL) WITH (fillfactor = 10);
CREATE TABLE orders (order_id text PRIMARY KEY, goods_id text, buyer_id text, quantity int);
INSERT INTO goods VALUES ('phone', {ENDLESS}, 0);
"""
INSERT = "INSERT INTO orders VALUES (%s, 'phone', %s, 1)"
TAKE = "UPDATE goods SET booked = booked + 1 WHERE goods_id = 'phone' AND booked + 1 <= total"
LOOK = "SELECT booked, total FROM goods WHERE goods_id = 'phone' FOR UPDATE"
SET = "UPDATE goods SET booked = %s WHERE goods_id = 'phone'"
ONE = f"WITH taken AS ({TAKE} RETURNING 1) INSERT INTO orders SELECT %s, 'phone', %s, 1 FROM taken"


def _update_insert(connection, name):
    with connection.transaction():
        if connection.execute(TAKE).rowcount:
            connection.execute(INSERT, (name, name))


def _for_update(connection, name):
    with connection.transaction():
        booked, total = connection.execute(LOOK).fetchone()
        if booked < total:
            connection.execute(SET, (booked + 1,))
            connection.execute(INSERT, (name, name))


def _one(connection, name):
    connection.execute(ONE, (name, name))


def _opener(purchase):
    @contextlib.contextmanager
    def opened(uri, callers):
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(SCHEMA)
        own, connections = threading.local(), []

        def buy(name):
            if not hasattr(own, "connection"):
                own.connection = psycopg.connect(uri, autocommit=True, prepare_threshold=1)
                connections.append(own.connection)
            purchase(own.connection, name)

        try:
            yield buy
        finally:
            for connection in connections:
                connection.close()

    return opened


def _sold(uri):
    with psycopg.connect(uri) as connection:
        return connection.execute("SELECT booked FROM goods").fetchone()[0]


def _peer(name, configuration, purchase):
    durable = "needs none: the row is on disk"
    settings = f"{configuration}; psycopg, prepared, a connection per thread; durable commits"
    return Peer(name, settings, "yes: primary key", NO, durable, _opener(purchase), _sold)


UPDATE_INSERT = _peer("PostgreSQL UPDATE + INSERT", "conditional UPDATE, INSERT, COMMIT", _update_insert)
FOR_UPDATE = _peer("PostgreSQL SELECT FOR UPDATE", "SELECT FOR UPDATE, UPDATE, INSERT, COMMIT", _for_update)
ONE_STATEMENT = _peer("PostgreSQL, one statement", "UPDATE and INSERT in one CTE", _one)
