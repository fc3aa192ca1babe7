# SPDX-License-Identifier: MIT
"""SQLite: threads with a connection each in one database, writers behind its lock, readers beside them."""
import sqlite3
import sys
import threading

path = sys.argv[1]
db = sqlite3.connect(path)
db.execute("pragma journal_mode=wal")
db.execute("pragma synchronous=off")
db.execute("create table t(who int, n int, text text)")
db.commit()
bad = []


def write(who):
    c = sqlite3.connect(path, timeout=60)
    c.execute("pragma synchronous=off")
    for n in range(60):
        with c:
            c.execute("begin immediate")
            c.executemany("insert into t values(?,?,?)", [(who, n * 10 + k, "x" * k) for k in range(10)])
    c.close()


def read():
    c = sqlite3.connect(path, timeout=60)
    for _ in range(40):
        for who, count in c.execute("select who, count(*) from t group by who"):
            if count % 10:
                bad.append((who, count))
    c.close()


threads = [threading.Thread(target=write, args=(i,)) for i in range(8)] + [threading.Thread(target=read) for _ in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("half transactions seen:", len(bad))
print("rows:", db.execute("select count(*), sum(n), sum(length(text)), count(distinct who) from t").fetchone())
print("integrity:", db.execute("pragma integrity_check").fetchone()[0])
shared = sqlite3.connect(":memory:", check_same_thread=False)
shared.execute("create table c(n int)")
lock = threading.Lock()


def add():
    for _ in range(200):
        with lock:
            shared.execute("insert into c values(1)")


threads = [threading.Thread(target=add) for _ in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("one connection:", shared.execute("select count(*) from c").fetchone()[0])
