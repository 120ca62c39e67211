"""What a Python application sees of the server: kazoo, its sessions and its recipes, case by case.

What this proves: the results, errors and Stats of every operation, sequential names, ephemerals, ACLs and who is behind them, multi, one-shot
watches and their order against replies, reconnecting, taking a session over, expiry, pipelining, and that kazoo's locks,
elections, queues, counters, barriers and caches work on top of it.

The idea: a case uses two or three clients below a root of its own. To lose a connection without losing the process, a client
goes through a small TCP proxy in this file that can cut it and keep it cut while others change the tree. Where the order of
events and replies matters, kazoo's own dispatch is traced frame by frame, not its callback threads.

Needs kazoo; the server must allow 60 connections from this address. `--super` is the user:password of the server's superDigest; without
it the case about that is skipped.
Not here: bytes (`raw_suite.py`), addWatch (kazoo speaks neither setWatches nor addWatch: setWatches is sent by hand
here and by the official client in `c_client.sh`), containers, TTL, reconfig.
"""

import contextlib
import logging
import random
import re
import socket
import sys
import threading
import time
from collections import namedtuple

sys.dont_write_bytecode = True  # These files are run where they lie.

import suite
from suite import check_equal, wait_for

try:
    from kazoo import exceptions as errors
    from kazoo.client import KazooClient, KazooState
    from kazoo.protocol.serialization import (
        CheckVersion, Create, Create2, Delete, Exists, SetACL, SetData, Transaction, Watch, int_struct, long_struct,
        write_string)
    from kazoo.protocol.states import EventType
    from kazoo.recipe.cache import TreeCache
    from kazoo.retry import KazooRetry
    from kazoo.security import ACL, Id, OPEN_ACL_UNSAFE, make_digest_acl
except ImportError as error:
    sys.exit(f"kazoo is needed: {error}")

logging.getLogger("kazoo").setLevel(logging.CRITICAL)

READ, WRITE, CREATE, DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31
CREATED_EVENT, DELETED_EVENT, CHANGED_EVENT, CHILD_EVENT = 1, 2, 3, 4
MISSING = "/no/such/node"
WAIT = suite.WAIT_SECONDS


# --- tools --------------------------------------------------------------------------------------------------------------

class Proxy:
    """A TCP proxy before the server: `cut` breaks all connections and refuses new ones until `restore`."""

    def __init__(self, t):
        self._target = (t.host, t.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._pairs, self._lock, self._open = [], threading.Lock(), True
        self.closed_by_server = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        t.cleanup(self._listener.close)
        t.cleanup(self.cut)

    def cut(self):
        with self._lock:
            self._open = False
            for pair in self._pairs:
                for sock in pair:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
            self._pairs.clear()

    def refuse_new(self):
        """Keeps what is connected but lets nobody in."""
        with self._lock:
            self._open = False

    def restore(self):
        with self._lock:
            self._open = True

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._open:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, self.closed_by_server), daemon=True).start()

    def _pump(self, source, sink, ended):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        if ended and (source, sink)[::-1] in self._pairs:
            ended.set()
        for sock in (sink, source):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def start(t, via=None, chroot="", timeout=10.0, **options):
    """A connected client, stopped with the case."""
    address = via.address if via else f"{t.host}:{t.port}"
    retry = KazooRetry(max_tries=-1, delay=0.01, backoff=1.5, max_delay=0.1)
    zk = KazooClient(hosts=address + chroot, timeout=timeout, connection_retry=retry, **options)

    def stop():
        zk.stop()
        zk.close()

    t.cleanup(stop)
    zk.start(timeout=WAIT)
    return zk


def start_at_root(t):
    """A client, and the case's root made and seen to."""
    zk = start(t)
    zk.create(t.root)
    t.cleanup(lambda: start(t).delete(t.root, recursive=True))
    return zk, t.root


def stop(zk):
    zk.stop()


def ask(zk, request):
    """Sends exactly this request, past kazoo's own path handling."""
    result = zk.handler.async_result()
    zk._call(request, result)
    return result.get(timeout=WAIT)


class SetWatches(namedtuple("SetWatches", "zxid data exist child")):
    """kazoo has no such request. It is sent with a positive xid, as the Java client does."""

    type = 101

    def serialize(self):
        lists = (self.data, self.exist, self.child)
        vectors = (int_struct.pack(len(paths)) + b"".join(map(write_string, paths)) for paths in lists)
        return long_struct.pack(self.zxid) + b"".join(vectors)

    @classmethod
    def deserialize(cls, data, offset):
        return True


def create_request(path, data=b"", acl=tuple(OPEN_ACL_UNSAFE), flags=0):
    return Create(path, data, acl, flags)


def fails(error, call, *args, **kwargs):
    """The call must fail with exactly this error."""
    try:
        value = call(*args, **kwargs)
    except errors.ZookeeperError as got:
        assert type(got) is error, f"{type(got).__name__}, want {error.__name__}"
        return
    raise AssertionError(f"{value!r}, want {error.__name__}")


def world(perms):
    return [ACL(perms, Id("world", "anyone"))]


def trace(zk):
    """Every event and reply in the order of arrival: ("event", type, path) and ("reply", request name, err)."""
    seen, connection = [], zk._connection
    read_event, read_response = connection._read_watch_event, connection._read_response

    def on_event(data, offset):
        watch, _ = Watch.deserialize(data, offset)
        seen.append(("event", watch.type, watch.path))
        return read_event(data, offset)

    def on_response(header, data, offset):
        seen.append(("reply", type(zk._pending[0][0]).__name__, header.err))
        return read_response(header, data, offset)

    connection._read_watch_event, connection._read_response = on_event, on_response
    return seen


def events_of(zk, seen, path):
    """The events so far, after a read of `path` that reflects everything done before."""
    zk.sync(path)
    zk.exists(path)
    events = [entry[1:] for entry in seen if entry[0] == "event"]
    seen.clear()
    return events


def nothing(event):
    """A watch whose events are looked at in the trace."""


def states(zk):
    seen = []
    zk.add_listener(lambda state: seen.append(state) and None)
    return seen


def in_thread(work, *args):
    """Runs `work` aside; the result is fetched, or its exception raised, with `join()`."""
    outcome = []

    def run():
        try:
            outcome.append((True, work(*args)))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join(seconds=2 * WAIT):
        thread.join(seconds)
        assert outcome, f"{work} did not end within {seconds:g} s"
        ok, value = outcome[0]
        if not ok:
            raise value
        return value

    join.done = lambda: not thread.is_alive()
    return join


# --- nodes and their Stat -----------------------------------------------------------------------------------------------

def test_create_and_its_stat(t):
    zk, root = start_at_root(t)
    path, stat = zk.create(f"{root}/a", b"hello", include_data=True)
    check_equal(path, f"{root}/a")
    check_equal((stat.version, stat.cversion, stat.aversion, stat.ephemeralOwner), (0, 0, 0, 0))
    check_equal((stat.dataLength, stat.numChildren), (5, 0))
    assert stat.czxid == stat.mzxid == stat.pzxid > 0, stat
    assert stat.ctime == stat.mtime and abs(stat.ctime / 1000 - time.time()) < 60, stat
    check_equal(zk.get(path), (b"hello", stat))
    check_equal(zk.exists(path), stat)
    check_equal(zk.get_children(path, include_data=True), ([], stat))
    check_equal(zk.get_acls(path), (world(ALL), stat))
    check_equal(zk.create(f"{root}/b"), f"{root}/b")
    assert zk.exists(f"{root}/b").czxid > stat.czxid


def test_set_and_its_stat(t):
    zk, root = start_at_root(t)
    _, before = zk.create(f"{root}/a", b"1", include_data=True)
    for version, data in enumerate((b"22", b"", b"4444"), 1):
        after = zk.set(f"{root}/a", data)
        check_equal(after, before._replace(
            mzxid=after.mzxid, mtime=after.mtime, version=version, dataLength=len(data)))
        assert after.mzxid > before.mzxid and after.mtime >= before.mtime
        check_equal(zk.get(f"{root}/a"), (data, after))
        before = after


def test_children_and_the_parents_stat(t):
    zk, root = start_at_root(t)
    _, empty = zk.create(f"{root}/p", include_data=True)
    creates = children = 0
    zxid = empty.pzxid
    for step in ("+a", "+b", "-a", "+c", "+a", "-b", "-c", "-a", "+d"):
        name = f"{root}/p/{step[1]}"
        if step[0] == "+":
            _, child = zk.create(name, include_data=True)
            creates, children, zxid = creates + 1, children + 1, child.czxid
        else:
            zk.delete(name)
            children, zxid = children - 1, zk.last_zxid
        # The visible cversion counts creates and deletes; what is stored counts creates only.
        check_equal(zk.exists(f"{root}/p"), empty._replace(
            cversion=2 * creates - children, numChildren=children, pzxid=zxid), step)
    before = zk.exists(f"{root}/p")
    zk.create(f"{root}/p/d/grandchild")
    zk.set(f"{root}/p/d", b"x")
    zk.set_acls(f"{root}/p/d", world(ALL))
    check_equal(zk.exists(f"{root}/p"), before, "untouched by what happens below its children")
    check_equal(zk.get_children(f"{root}/p", include_data=True), (["d"], before))


def test_set_acls_and_its_stat(t):
    zk, root = start_at_root(t)
    _, before = zk.create(f"{root}/a", b"x", include_data=True)
    check_equal(zk.set_acls(f"{root}/a", world(READ | ADMIN)), before._replace(aversion=1))
    check_equal(zk.get_acls(f"{root}/a"), (world(READ | ADMIN), before._replace(aversion=1)))
    check_equal(zk.set_acls(f"{root}/a", world(ALL), version=1), before._replace(aversion=2))


def test_what_changes_no_stat(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/a", b"x")
    before, parent = zk.exists(f"{root}/a"), zk.exists(root)
    zk.get(f"{root}/a", watch=nothing)
    zk.get_children(f"{root}/a", watch=nothing)
    zk.get_acls(f"{root}/a")
    zk.sync(f"{root}/a")
    fails(errors.BadVersionError, zk.set, f"{root}/a", b"", version=7)
    fails(errors.BadVersionError, zk.delete, f"{root}/a", version=7)
    fails(errors.BadVersionError, zk.set_acls, f"{root}/a", world(ALL), version=7)
    fails(errors.NodeExistsError, zk.create, f"{root}/a")
    fails(errors.NoNodeError, zk.create, f"{root}/a/b/c")
    fails(errors.NoNodeError, zk.delete, f"{root}/a/b")
    check_equal((zk.exists(f"{root}/a"), zk.exists(root)), (before, parent))


def test_null_and_empty_data(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/null", None)
    zk.create(f"{root}/empty", b"")
    check_equal((zk.get(f"{root}/null")[0], zk.get(f"{root}/empty")[0]), (None, b""))
    check_equal((zk.exists(f"{root}/null").dataLength, zk.exists(f"{root}/empty").dataLength), (0, 0))
    zk.set(f"{root}/null", b"")
    zk.set(f"{root}/empty", None)
    check_equal((zk.get(f"{root}/null")[0], zk.get(f"{root}/empty")[0]), (b"", None))


def test_large_data(t):
    zk, root = start_at_root(t)
    data = random.Random(1).randbytes(1_000_000)
    zk.create(f"{root}/large", data)
    got, stat = zk.get(f"{root}/large")
    assert got == data and stat.dataLength == 1_000_000
    data = data[::-1]
    zk.set(f"{root}/large", data)
    assert zk.get(f"{root}/large")[0] == data
    # Beyond the frame limit the connection is closed; the session is not.
    session = zk.client_id
    fails(errors.ConnectionLoss, zk.set, f"{root}/large", bytes(1_100_000))
    wait_for("reconnection", lambda: zk.connected)
    check_equal(zk.client_id, session)
    assert zk.get(f"{root}/large")[0] == data


def test_large_directory(t):
    zk, root = start_at_root(t)
    names = sorted(f"{number:04}-" + "n" * 595 for number in range(2000))
    for result in [zk.create_async(f"{root}/{name}") for name in names]:
        result.get(timeout=WAIT)
    children, stat = zk.get_children(root, include_data=True)  # more than a megabyte
    check_equal((sorted(children) == names, stat.numChildren, stat.cversion), (True, 2000, 2000))
    for result in [zk.delete_async(f"{root}/{name}") for name in names]:
        result.get(timeout=WAIT)
    check_equal((zk.get_children(root), zk.exists(root).cversion), ([], 4000))


def test_system_nodes(t):
    zk = start(t)
    check_equal(sorted(zk.get_children("/zookeeper")), ["config", "quota"])
    assert "zookeeper" in zk.get_children("/")
    for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
        fails(errors.BadArgumentsError, zk.delete, path)
        fails(errors.NodeExistsError, zk.create, path)
    check_equal(zk.get_acls("/")[0], world(ALL))
    check_equal(zk.get_acls("/zookeeper")[0], world(ALL))
    acl, stat = zk.get_acls("/zookeeper/config")
    check_equal((acl, stat.aversion), (world(READ), -1))
    fails(errors.NoAuthError, zk.set, "/zookeeper/config", b"")
    assert zk.get("/zookeeper/config")[0] is not None
    stat = zk.exists("/zookeeper")
    check_equal((stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.cversion, stat.numChildren), (0, 0, 0, 0, -2, 2))


def test_chroot(t):
    zk, root = start_at_root(t)
    inside = start(t, chroot=root)
    seen = trace(inside)
    check_equal(inside.create("/a", b"x"), "/a")
    check_equal(zk.get(f"{root}/a")[0], b"x")
    got = []
    inside.get("/a", watch=got.append)
    zk.set(f"{root}/a", b"y")
    wait_for("the watch", lambda: got)
    check_equal((got[0].path, seen[-1][2] if seen[-1][0] == "event" else seen), ("/a", f"{root}/a"))
    check_equal(inside.get_children("/"), ["a"])


# --- sequential names ---------------------------------------------------------------------------------------------------

def test_sequence_names(t):
    zk, root = start_at_root(t)
    check_equal(zk.create(f"{root}/s-", sequence=True), f"{root}/s-0000000000")
    zk.create(f"{root}/plain")
    check_equal(zk.create(f"{root}/s-", sequence=True), f"{root}/s-0000000002", "other creates count too")
    check_equal(zk.create(f"{root}/e-", ephemeral=True, sequence=True), f"{root}/e-0000000003", "one counter for all prefixes")
    for name in ("plain", "s-0000000000", "e-0000000003"):
        zk.delete(f"{root}/{name}")
    check_equal(zk.create(f"{root}/s-", sequence=True), f"{root}/s-0000000004", "deletes do not count")
    fails(errors.NodeExistsError, zk.create, f"{root}/s-0000000004")
    fails(errors.InvalidACLError, ask, zk, create_request(f"{root}/s-", acl=(), flags=2))
    failing = zk.transaction()
    failing.create(f"{root}/s-", sequence=True)
    failing.delete(MISSING)
    check_equal(type(failing.commit()[1]), errors.NoNodeError)
    check_equal(zk.create(f"{root}/s-", sequence=True), f"{root}/s-0000000005", "failures do not count")
    check_equal(zk.create(f"{root}/", sequence=True), f"{root}/0000000006", "a name of nothing but the number")
    check_equal(zk.create(f"{root}/s-", sequence=True, include_data=True)[0], f"{root}/s-0000000007")
    zk.create(f"{root}/s-0000000009")
    fails(errors.NodeExistsError, zk.create, f"{root}/s-", sequence=True)
    zk.create(f"{root}/other")
    check_equal(zk.create(f"{root}/s-", sequence=True), f"{root}/s-0000000010")


def test_sequence_restarts_with_its_parent(t):
    zk, root = start_at_root(t)
    for _ in range(2):
        zk.create(f"{root}/q")
        names = [zk.create(f"{root}/q/n", sequence=True) for _ in range(3)]
        check_equal(names, [f"{root}/q/n{number:010}" for number in range(3)])
        zk.delete(f"{root}/q", recursive=True)


def test_sequence_from_concurrent_creators(t):
    """ZOOKEEPER-1046, 1624: pipelined creates, deletes and failures of several clients; no number twice, none skipped."""
    _, root = start_at_root(t)
    clients = [start(t) for _ in range(4)]

    def create_many(zk, who):
        results = []
        for number in range(50):
            results.append(zk.create_async(f"{root}/{who}-", sequence=True, ephemeral=number % 2 == 0))
            zk.create_async(root)
            failing = zk.transaction()
            failing.create(f"{root}/{who}-", sequence=True)
            failing.check(root, 99)
            failing.commit_async()
            if number % 5 == 4:
                zk.delete_async(results[number // 2].get(timeout=WAIT))
        return [result.get(timeout=WAIT) for result in results]

    joins = [in_thread(create_many, zk, who) for who, zk in enumerate(clients)]
    names = [join() for join in joins]
    for own in names:
        check_equal(own, sorted(own), "one client's numbers rise in the order of its requests")
    numbers = sorted(int(name[-10:]) for own in names for name in own)
    check_equal(numbers, list(range(200)))


# --- ephemerals ---------------------------------------------------------------------------------------------------------

def test_ephemerals_go_with_their_session(t):
    zk, root = start_at_root(t)
    owner = start(t)
    for parent in ("p", "q"):
        zk.create(f"{root}/{parent}")
        for number in range(3):
            path, stat = owner.create(f"{root}/{parent}/{number}", ephemeral=True, include_data=True)
            check_equal(stat.ephemeralOwner, owner.client_id[0])
    owner.delete(f"{root}/p/1")
    stop(owner)
    zk.sync(root)
    p, q = zk.exists(f"{root}/p"), zk.exists(f"{root}/q")
    check_equal((p.numChildren, q.numChildren, p.cversion, q.cversion), (0, 0, 6, 6))
    check_equal(p.pzxid, q.pzxid, "all in one transaction")


def test_ephemerals_survive_a_lost_connection(t):
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    owner = start(t, via=proxy)
    _, stat = owner.create(f"{root}/e", ephemeral=True, include_data=True)
    session = owner.client_id
    for _ in range(3):
        proxy.cut()
        wait_for("the loss to be noticed", lambda: not owner.connected)
        check_equal(zk.exists(f"{root}/e"), stat)
        proxy.restore()
        wait_for("reconnection", lambda: owner.connected)
        check_equal(owner.client_id, session)
        check_equal(owner.exists(f"{root}/e"), stat)


def test_ephemerals_have_no_children(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/e", ephemeral=True)
    for options in ({}, {"sequence": True}, {"ephemeral": True}, {"include_data": True}):
        fails(errors.NoChildrenForEphemeralsError, zk.create, f"{root}/e/c", **options)
    both = zk.transaction()
    both.create(f"{root}/f", ephemeral=True)
    both.create(f"{root}/f/c")
    check_equal([type(result) for result in both.commit()], [errors.RolledBackError, errors.NoChildrenForEphemeralsError])
    check_equal(zk.exists(f"{root}/f"), None)


def test_ephemerals_are_nodes_like_others(t):
    owner, root = start_at_root(t)
    other = start(t)
    owner.create(f"{root}/e", b"1", ephemeral=True)
    check_equal(other.set(f"{root}/e", b"22").version, 1)
    check_equal(other.exists(f"{root}/e").ephemeralOwner, owner.client_id[0])
    other.delete(f"{root}/e")
    check_equal(owner.exists(f"{root}/e"), None)
    owner.create(f"{root}/e")
    check_equal(owner.exists(f"{root}/e").ephemeralOwner, 0)
    made = owner.transaction()
    made.create(f"{root}/m", ephemeral=True)
    made.create(f"{root}/m-", ephemeral=True, sequence=True)
    check_equal(made.commit(), [f"{root}/m", f"{root}/m-0000000003"])
    check_equal(other.exists(f"{root}/m").ephemeralOwner, owner.client_id[0])


# --- errors and which of them comes first -------------------------------------------------------------------------------

def test_version_conflicts(t):
    zk, root = start_at_root(t)
    path = f"{root}/a"
    zk.create(path)
    zk.set(path, b"1")
    for wrong in (0, 2, -2, 0x7FFFFFFF):
        fails(errors.BadVersionError, zk.set, path, b"", version=wrong)
        fails(errors.BadVersionError, zk.delete, path, version=wrong)
    for wrong in (1, -2):
        fails(errors.BadVersionError, zk.set_acls, path, world(ALL), version=wrong)
    check_equal(zk.set(path, b"2", version=1).version, 2)
    check_equal(zk.set(path, b"3", version=-1).version, 3)
    check_equal(zk.set_acls(path, world(ALL), version=0).aversion, 1)
    check_equal(zk.set_acls(path, world(ALL), version=-1).aversion, 2)
    zk.delete(path, version=3)
    zk.create(path)
    check_equal(zk.exists(path).version, 0)


def test_errors_of_missing_and_existing_nodes(t):
    zk, root = start_at_root(t)
    check_equal(zk.exists(MISSING), None)
    for call, args in (
        (zk.get, ()), (zk.get_children, ()), (zk.get_acls, ()), (zk.set, (b"",)), (zk.delete, ()),
        (zk.set_acls, (world(ALL),)), (zk.create, ()),
    ):
        fails(errors.NoNodeError, call, MISSING, *args)
    fails(errors.NoNodeError, zk.get_children, MISSING, include_data=True)
    fails(errors.NoNodeError, zk.create, f"{MISSING}-", sequence=True)
    check_equal(zk.sync(MISSING), MISSING)
    fails(errors.NodeExistsError, zk.create, root)
    fails(errors.NodeExistsError, zk.create, root, ephemeral=True, include_data=True)
    zk.create(f"{root}/a")
    fails(errors.NotEmptyError, zk.delete, root)
    zk.delete(f"{root}/a")


def test_check_order_of_create(t):
    zk, root = start_at_root(t)
    closed = f"{root}/closed"
    zk.create(closed, acl=world(ALL & ~CREATE))
    for path, acl, flags, error in (
        ("relative", (), 99, errors.BadArgumentsError),
        ("relative", (), 0, errors.BadArgumentsError),
        (f"{MISSING}\0", (), 0, errors.BadArgumentsError),
        (MISSING, (), 0, errors.InvalidACLError),
        (f"{closed}/x", (), 0, errors.InvalidACLError),
        (f"{MISSING}/..", None, 0, errors.NoNodeError),
        (f"{MISSING}/", None, 0, errors.NoNodeError),
        (f"{root}/a/", None, 0, errors.NoNodeError),
        (f"{closed}/..", None, 0, errors.NoAuthError),
        (f"{closed}/x", None, 1, errors.NoAuthError),
        (f"{root}/.", None, 0, errors.BadArgumentsError),
        (f"{closed}/", None, 0, errors.NoAuthError),
        (f"{root}/", None, 0, errors.BadArgumentsError),
        ("/", None, 0, errors.NodeExistsError),
        ("//a", None, 0, errors.BadArgumentsError),
        (root, None, 0, errors.NodeExistsError),
    ):
        for request in (Create, Create2):
            acls = OPEN_ACL_UNSAFE if acl is None else acl
            try:
                fails(error, ask, zk, request(path, b"", acls, flags))
            except AssertionError as wrong:
                raise AssertionError(f"{request.__name__} {path!r} acl {acl} flags {flags}: {wrong}") from None
    check_equal(zk.get_children(root), ["closed"])


def test_check_order_of_delete(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/full/c", makepath=True)
    zk.create(f"{root}/closed", acl=world(ALL & ~DELETE))
    zk.create(f"{root}/closed/c/d", makepath=True)
    for path, version, error in (
        ("relative", -1, errors.BadArgumentsError),
        (f"{MISSING}\0", -1, errors.BadArgumentsError),
        (MISSING, 5, errors.NoNodeError),
        (f"{root}/closed/none", -1, errors.NoAuthError),
        (f"{root}/closed/c", 5, errors.NoAuthError),
        (f"{root}/none", 5, errors.NoNodeError),
        (f"{root}/full", 5, errors.BadVersionError),
        (f"{root}/full", 0, errors.NotEmptyError),
        (f"{root}/full/", -1, errors.NoNodeError),
    ):
        try:
            fails(error, ask, zk, Delete(path, version))
        except AssertionError as wrong:
            raise AssertionError(f"delete {path!r} version {version}: {wrong}") from None
    zk.set_acls(f"{root}/closed", world(ALL))


def test_check_order_of_set_data_and_set_acl(t):
    zk, root = start_at_root(t)
    closed = f"{root}/closed"
    zk.create(closed, acl=world(ALL & ~WRITE & ~ADMIN))
    zk.create(f"{root}/open")
    for path, error in (
        (f"{MISSING}/", errors.BadArgumentsError), (MISSING, errors.NoNodeError), (closed, errors.NoAuthError),
        (f"{root}/open", errors.BadVersionError),
    ):
        fails(error, ask, zk, SetData(path, b"", 5))
        fails(error, ask, zk, SetACL(path, world(ALL), 5))
    fails(errors.BadArgumentsError, ask, zk, SetACL(f"{MISSING}/", [], 5))
    fails(errors.InvalidACLError, ask, zk, SetACL(MISSING, [], 5))
    fails(errors.InvalidACLError, ask, zk, SetACL(closed, [], 5))


def test_path_rules(t):
    zk, root = start_at_root(t)
    good = (
        "a", ".a", "..a", "a.", "...", "a..b", " ", "a b", "-", "~", "\u00a0", "\u2028", "\u4e2d\u6587", "\ud7ff", "\uf900",
        "\uffef", "e\u0301", "%2F", "\\", "zookeeper", "x" * 5000,
    )
    for name in good:
        path = f"{root}/{name}"
        try:
            check_equal(ask(zk, create_request(path, b"1")), path)
            check_equal(ask(zk, SetData(path, b"2", 0)).version, 1)
            check_equal(ask(zk, Exists(path, None)).version, 1)
            check_equal(zk.get_children(root), [name])
            ask(zk, SetACL(path, world(ALL), -1))
            ask(zk, Delete(path, 1))
        except errors.ZookeeperError as error:
            raise AssertionError(f"{name!r}: {type(error).__name__}") from None
    bad = (
        "", ".", "..", "a/", "a/.", "a/..", "\0", "a\0b", "\x01", "\x1f", "\t", "\n", "\x7f", "\x80", "\x9f", "\ue000",
        "\uf8ff", "\ufff0", "\ufffd", "\ufffe", "\uffff",
    )
    # A create looks for the parent, which is all up to the last slash, before it looks at the whole name.
    bad_parent = ("/", "a//", "a//b", "./b", "../b", "./")
    zk.create(f"{root}/a")
    for name in bad:
        path = f"{root}/{name}"
        creates = create_request(path), create_request(path, flags=1)
        for request in (*creates, SetData(path, b"", -1), SetACL(path, world(ALL), -1)):
            try:
                fails(errors.BadArgumentsError, ask, zk, request)
            except AssertionError as wrong:
                raise AssertionError(f"{type(request).__name__} {name!r}: {wrong}") from None
    for name in bad_parent:
        path = f"{root}/{name}"
        fails(errors.NoNodeError, ask, zk, create_request(path))
        fails(errors.NoNodeError, ask, zk, create_request(path, flags=2))
        fails(errors.BadArgumentsError, ask, zk, SetData(path, b"", -1))
        fails(errors.BadArgumentsError, ask, zk, SetACL(path, world(ALL), -1))
    check_equal(zk.get_children(root), ["a"])
    check_equal(zk.get_children(f"{root}/a"), [])
    # The name is judged with its number: a trailing slash and dots are fine then.
    count = len(good) + 1
    check_equal(ask(zk, create_request(f"{root}/", flags=2)), f"{root}/{count:010}")
    check_equal(ask(zk, create_request(f"{root}/..", flags=2)), f"{root}/..{count + 1:010}")


# --- ACLs ---------------------------------------------------------------------------------------------------------------

def test_acl_permissions(t):
    zk, root = start_at_root(t)
    path = f"{root}/n"

    def without(perm):
        zk.set_acls(root, world(ALL))
        zk.create(path, acl=world(ALL & ~perm))

    def check_of(path):
        request = zk.transaction()
        request.check(path, -1)
        return request.commit()[0]

    without(READ)
    fails(errors.NoAuthError, zk.get, path)
    fails(errors.NoAuthError, zk.get_children, path)
    fails(errors.NoAuthError, zk.get_children, path, include_data=True)
    check_equal(type(check_of(path)), errors.NoAuthError)
    if not t.apache38:  # ZOOKEEPER-2590
        fails(errors.NoAuthError, zk.exists, path)
    zk.set(path, b"x")
    zk.create(f"{path}/c")
    zk.delete(f"{path}/c")
    check_equal(zk.get_acls(path)[0], world(ALL & ~READ), "getACL is satisfied with ADMIN")
    zk.delete(path)

    without(WRITE)
    fails(errors.NoAuthError, zk.set, path, b"")
    check_equal(zk.get(path)[0], b"")
    check_equal(check_of(path), True)
    zk.delete(path)

    without(CREATE)
    fails(errors.NoAuthError, zk.create, f"{path}/c")
    fails(errors.NoAuthError, zk.create, f"{path}/c", ephemeral=True, sequence=True)
    fails(errors.NoAuthError, zk.create, f"{path}/c", include_data=True)
    zk.delete(path)

    without(DELETE)
    zk.create(f"{path}/c")
    fails(errors.NoAuthError, zk.delete, f"{path}/c")
    zk.set_acls(path, world(ALL))
    zk.delete(f"{path}/c")
    zk.delete(path)

    without(ADMIN)
    fails(errors.NoAuthError, zk.set_acls, path, world(ALL))
    check_equal(zk.get_acls(path)[0], world(ALL & ~ADMIN), "getACL is satisfied with READ")
    zk.delete(path)

    without(ADMIN | READ)
    fails(errors.NoAuthError, zk.get_acls, path)
    zk.delete(path)

    without(ALL)
    for call, args in ((zk.get, ()), (zk.set, (b"",)), (zk.get_acls, ()), (zk.set_acls, (world(ALL),)), (zk.get_children, ())):
        fails(errors.NoAuthError, call, path, *args)
    zk.delete(path)  # its parent's permission counts


def test_acl_values(t):
    zk, root = start_at_root(t)
    check_equal(zk.get_acls(root)[0], world(ALL))
    for perms in (ALL, READ | ADMIN, 255, READ):
        path = f"{root}/{perms}"
        zk.create(path, acl=world(perms))
        check_equal(zk.get_acls(path)[0], world(perms), "kept as given")
    twice = world(ALL) + world(READ) + world(ALL)
    zk.create(f"{root}/twice", acl=twice)
    check_equal(zk.get_acls(f"{root}/twice")[0], world(ALL) + world(READ), "exact duplicates dropped, order kept")
    zk.set_acls(f"{root}/twice", world(READ) + world(ADMIN))
    check_equal(zk.get_acls(f"{root}/twice")[0], world(READ) + world(ADMIN))
    fails(errors.NoAuthError, zk.set, f"{root}/twice", b"")


def test_acl_invalid(t):
    zk, root = start_at_root(t)
    for acl in (
        [], [ACL(ALL, Id("world", "me"))], [ACL(ALL, Id("no-such-scheme", "x"))], [ACL(ALL, Id("", "anyone"))],
        world(ALL) + [ACL(READ, Id("world", "me"))], [ACL(ALL, Id("auth", ""))], [ACL(ALL, Id("super", "x"))],
    ):
        fails(errors.InvalidACLError, ask, zk, Create(f"{root}/a", b"", acl, 0))
        fails(errors.InvalidACLError, ask, zk, Create2(f"{root}/a", b"", acl, 0))
        fails(errors.InvalidACLError, ask, zk, SetACL(root, acl, -1))
        results = ask(zk, Transaction([Create(f"{root}/b", b"", OPEN_ACL_UNSAFE, 0), Create(f"{root}/a", b"", acl, 0)]))
        check_equal([type(result) for result in results], [errors.RolledBackError, errors.InvalidACLError])
    check_equal((zk.get_children(root), zk.exists(root).aversion), ([], 0))


# --- authentication -----------------------------------------------------------------------------------------------------

def known(t, *credentials):
    """A client that has shown to be each of these, in order."""
    zk = start(t)
    for credential in credentials:
        zk.add_auth("digest", credential)
    return zk


def start_at_flat_root(t):
    """As `start_at_root`, but for nodes that nobody may read: what is below the root is deleted without a look at it."""
    zk = start(t)
    zk.create(t.root)

    def remove():
        own = start(t)
        for child in own.get_children(t.root):
            own.delete(f"{t.root}/{child}")
        own.delete(t.root)

    t.cleanup(remove)
    return zk, t.root


def digest(credential, perms=ALL):
    user, password = credential.split(":")
    return make_digest_acl(user, password, all=perms == ALL, read=bool(perms & READ))


def own(perms=ALL):
    """Whoever creates with it."""
    return [ACL(perms, Id("auth", ""))]


def test_auth_protects_what_its_client_made(t):
    owner, other = known(t, "owner:secret"), known(t, "owner:guess")
    zk, root = start_at_flat_root(t)
    path = f"{root}/own"
    owner.create(path, b"mine", acl=own())
    check_equal(owner.get_acls(path)[0], [digest("owner:secret")], "stored are those that `auth` stands for")
    check_equal(owner.get(path)[0], b"mine")
    for stranger in (zk, other):
        for call, args in (
            (stranger.get, ()), (stranger.set, (b"",)), (stranger.get_children, ()), (stranger.get_acls, ()),
            (stranger.set_acls, (world(ALL),)),
        ):
            fails(errors.NoAuthError, call, path, *args)
        fails(errors.NoAuthError, stranger.create, f"{path}/c")
        results = ask(stranger, Transaction([Create(f"{root}/no", b"", OPEN_ACL_UNSAFE, 0), SetData(path, b"", -1)]))
        check_equal([type(result) for result in results], [errors.RolledBackError, errors.NoAuthError])
    owner.create(f"{path}/c", acl=own())
    fails(errors.NoAuthError, zk.delete, f"{path}/c")
    owner.set_acls(path, world(READ) + own(ADMIN))
    check_equal((zk.get(path)[0], zk.get_children(path)), (b"mine", ["c"]))
    fails(errors.NoAuthError, owner.delete, f"{path}/c")
    owner.set_acls(path, world(ALL))
    zk.delete(f"{path}/c")
    check_equal(zk.get_children(path), [])


def test_auth_adds_up_and_goes_with_the_connection(t):
    zk, root = start_at_flat_root(t)
    both = known(t, "one:1", "two:2")
    both.create(f"{root}/both", acl=own())
    check_equal(sorted(both.get_acls(f"{root}/both")[0]), sorted([digest("one:1"), digest("two:2")]))
    check_equal(known(t, "two:2").get(f"{root}/both")[0], b"")
    # The same session, another connection: kazoo says everything again, and without that the session is nobody's.
    proxy = Proxy(t)
    moved = start(t, via=proxy)
    moved.add_auth("digest", "one:1")
    check_equal(moved.get(f"{root}/both")[0], b"")
    moved.auth_data.clear()
    before = moved.client_id
    proxy.cut()
    proxy.restore()
    wait_for("another connection", lambda: moved.connected)
    fails(errors.NoAuthError, moved.retry, moved.get, f"{root}/both")
    check_equal(moved.client_id, before)


def test_auth_in_a_pipeline_keeps_its_place(t):
    t.skip_on_apache("the answer may overtake earlier ones")
    zk, root = start_at_flat_root(t)
    known(t, "late:secret").create(f"{root}/n", b"x", acl=own())
    late = start(t)
    for _ in range(20):
        late.set_async(root, b"")
    before = late.get_async(f"{root}/n")
    late.add_auth_async("digest", "late:secret")
    after = late.get_async(f"{root}/n")
    fails(errors.NoAuthError, before.get, timeout=WAIT)
    check_equal(after.get(timeout=WAIT)[0], b"x")


def test_auth_of_addresses(t):
    zk, root = start_at_flat_root(t)
    for ids, may in (("127.0.0.1", True), ("127.0.0.0/8", True), ("10.0.0.0/8", False), ("127.0.0.1/33", None), ("host", None)):
        acl = [ACL(READ, Id("ip", ids))]
        path = f"{root}/{ids.replace('/', '-')}"
        if may is None:
            fails(errors.InvalidACLError, ask, zk, create_request(path, acl=acl))
            continue
        zk.create(path, b"x", acl=acl)
        if may:
            check_equal(zk.get(path)[0], b"x")
        else:
            fails(errors.NoAuthError, zk.get, path)
    fails(errors.InvalidACLError, ask, zk, create_request(f"{root}/ip", acl=own()))
    check_equal(zk.add_auth("ip", ""), True)
    fails(errors.InvalidACLError, ask, zk, create_request(f"{root}/ip", acl=own()))


def test_auth_hashes_are_hidden(t):
    zk, root = start_at_flat_root(t)
    acl = world(READ) + [digest("u:p")]
    zk.create(f"{root}/n", acl=acl)
    check_equal(zk.get_acls(f"{root}/n")[0], world(READ) + [ACL(ALL, Id("digest", "u:x"))])
    check_equal(known(t, "u:p").get_acls(f"{root}/n")[0], acl)


def test_auth_that_is_unknown_is_the_last(t):
    for scheme, credential in (("no-such-scheme", "x"), ("world", "anyone"), ("super", "super:secret")):
        zk = start(t)
        seen = states(zk)
        fails(errors.AuthFailedError, zk.add_auth, scheme, credential)
        wait_for("the end", lambda: KazooState.LOST in seen)


def test_auth_watches_are_for_those_who_may_read(t):
    t.skip_on_apache38("events were told to everybody (CVE-2024-23944)")
    owner, other = known(t, "owner:secret"), start(t)
    zk, root = start_at_flat_root(t)
    told = {owner: trace(owner), other: trace(other)}
    for client in told:
        client.exists(f"{root}/n", watch=nothing)
    owner.create(f"{root}/n", acl=own())
    check_equal(events_of(owner, told[owner], root), [(CREATED_EVENT, f"{root}/n")])
    check_equal(events_of(other, told[other], root), [])


def test_auth_of_the_super_user(t):
    if not t.options.super:
        raise suite.Skip("no --super")
    zk, root = start_at_flat_root(t)
    known(t, "owner:secret").create(f"{root}/n", b"x", acl=own(READ))
    admin = known(t, t.options.super)
    check_equal(admin.get_acls(f"{root}/n")[0], [digest("owner:secret", READ)], "in full")
    admin.set(f"{root}/n", b"y")
    admin.set_acls(f"{root}/n", own())
    fails(errors.NoAuthError, zk.get, f"{root}/n")
    check_equal(admin.get_acls(f"{root}/n")[0], [digest(t.options.super)], "`super` is in no list")
    fails(errors.BadVersionError, admin.set, f"{root}/n", b"", version=7)


# --- multi --------------------------------------------------------------------------------------------------------------

def test_multi_results(t):
    zk, root = start_at_root(t)
    ops = zk.transaction()
    ops.create(f"{root}/a", b"1")
    ops.create(f"{root}/a/s-", sequence=True)
    ops.set_data(f"{root}/a", b"22")
    ops.check(f"{root}/a", 1)
    ops.set_data(f"{root}/a", b"333", version=1)
    ops.delete(f"{root}/a/s-0000000000")
    results = ops.commit()
    check_equal(results[:2], [f"{root}/a", f"{root}/a/s-0000000000"])
    check_equal((results[2].version, results[2].numChildren, results[2].dataLength), (1, 1, 2), "the Stat right after its own op")
    check_equal((results[3], results[4].version, results[5]), (True, 2, True))
    data, stat = zk.get(f"{root}/a")
    check_equal((data, stat.version, stat.cversion, stat.numChildren), (b"333", 2, 2, 0))
    assert stat.czxid == stat.mzxid == stat.pzxid == zk.exists(root).pzxid, "one zxid for all"
    assert stat.ctime == stat.mtime


def test_multi_failure(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/a", b"1")
    before = zk.exists(root), zk.exists(f"{root}/a")
    ops = zk.transaction()
    ops.create(f"{root}/b")
    ops.create(f"{root}/s-", sequence=True)
    ops.set_data(f"{root}/a", b"2")
    ops.delete(f"{root}/missing")
    ops.create(f"{root}/c")
    ops.check(MISSING, 1)
    check_equal([type(result) for result in ops.commit()], [errors.RolledBackError] * 3 + [errors.NoNodeError] + [
        errors.RuntimeInconsistency] * 2)
    check_equal((zk.exists(root), zk.exists(f"{root}/a")), before, "nothing happened")
    check_equal(zk.get_children(root), ["a"])
    check_equal(zk.create(f"{root}/s-", sequence=True), f"{root}/s-0000000001")


def test_multi_check(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/a")
    zk.set(f"{root}/a", b"")
    for path, version, want in (
        (f"{root}/a", 1, bool), (f"{root}/a", -1, bool), (f"{root}/a", 0, errors.BadVersionError),
        (f"{root}/a", -2, errors.BadVersionError), (MISSING, -1, errors.NoNodeError), (f"{root}/", -1, errors.BadArgumentsError),
    ):
        results = ask(zk, Transaction([CheckVersion(path, version), SetData(root, b"", -1)]))
        check_equal(type(results[0]), want, f"check {path} {version}")
        assert (want is bool) == (type(results[1]) is not errors.RuntimeInconsistency)
    check_equal(zk.exists(root).version, 2)


def test_multi_empty(t):
    zk, _ = start_at_root(t)
    check_equal(zk.transaction().commit(), [])
    check_equal(zk.transaction().commit(), [])


def test_multi_sees_its_own_steps(t):
    zk, root = start_at_root(t)
    a = f"{root}/a"
    ops = zk.transaction()
    ops.create(a, b"1")
    ops.delete(a, version=0)
    check_equal(ops.commit(), [a, True])
    check_equal((zk.exists(a), zk.exists(root).cversion, zk.exists(root).numChildren), (None, 2, 0))
    ops = zk.transaction()
    ops.create(a, b"1")
    ops.create(f"{a}/b", b"")
    ops.create(f"{a}/b/c", b"")
    ops.delete(f"{a}/b/c")
    ops.delete(f"{a}/b")
    ops.set_data(a, b"2", version=0)
    ops.delete(a, version=1)
    ops.create(a, b"3", ephemeral=True)
    check_equal([type(result).__name__ for result in ops.commit()], ["str"] * 3 + ["bool"] * 2 + ["ZnodeStat", "bool", "str"])
    data, stat = zk.get(a)
    check_equal((data, stat.version, stat.ephemeralOwner), (b"3", 0, zk.client_id[0]))
    ops = zk.transaction()
    ops.delete(a)
    ops.check(a, -1)
    check_equal([type(result) for result in ops.commit()], [errors.RolledBackError, errors.NoNodeError])
    ops = zk.transaction()
    ops.create(a)
    ops.delete(a)
    check_equal([type(result) for result in ops.commit()], [errors.NodeExistsError, errors.RuntimeInconsistency])
    assert zk.exists(a)


def test_multi_that_failed_leaves_nothing_behind(t):
    """ZOOKEEPER-2052: a pending delete of a failed multi made the node undeletable."""
    zk, root = start_at_root(t)
    zk.create(f"{root}/p/c", makepath=True)
    ops = zk.transaction()
    ops.delete(f"{root}/p/c")
    ops.delete(f"{root}/p")
    ops.delete(MISSING)
    check_equal(type(ops.commit()[2]), errors.NoNodeError)
    fails(errors.NotEmptyError, zk.delete, f"{root}/p")
    zk.delete(f"{root}/p/c")
    zk.delete(f"{root}/p")


def test_multi_is_never_seen_in_half(t):
    """R4: two nodes always change together; whoever reads one new must not then read the other old."""
    writer, root = start_at_root(t)
    reader = start(t)
    a, b = f"{root}/a", f"{root}/b"
    writer.create(a, b"0")
    writer.create(b, b"0")

    def write():
        for number in range(1, 301):
            ops = writer.transaction()
            ops.set_data(a, b"%d" % number)
            ops.set_data(b, b"%d" % number)
            ops.commit()

    join = in_thread(write)
    rounds = 0
    while not join.done() or rounds == 0:
        results = [reader.get_async(path) for path in (a, b, b, a, a, b)]
        seen = [int(result.get(timeout=WAIT)[0]) for result in results]
        check_equal(seen, sorted(seen), "what a, b, b, a, a, b showed")
        rounds += 1
    join()
    check_equal((writer.get(a)[0], reader.get(b)[0]), (b"300", b"300"))


# --- watches ------------------------------------------------------------------------------------------------------------

def test_watch_data(t):
    zk, root = start_at_root(t)
    other = start(t)
    seen = trace(zk)
    path = f"{root}/a"
    other.create(path)
    got = []
    zk.get(path, watch=got.append)
    other.set(path, b"1")
    other.set(path, b"2")
    check_equal(events_of(zk, seen, path), [(CHANGED_EVENT, path)], "once")
    wait_for("the callback", lambda: got)
    check_equal((got[0].type, got[0].path, got[0].state), (EventType.CHANGED, path, "CONNECTED"))
    zk.get(path, watch=nothing)
    other.delete(path)
    check_equal(events_of(zk, seen, path), [(DELETED_EVENT, path)])
    fails(errors.NoNodeError, zk.get, path, watch=nothing)
    other.create(path)
    check_equal(events_of(zk, seen, path), [], "getData of a missing node leaves no watch")


def test_watch_exists(t):
    zk, root = start_at_root(t)
    other = start(t)
    seen = trace(zk)
    path = f"{root}/a"
    # kazoo itself registers the callback of an exists that found nothing; what matters here is what the server sends.
    check_equal(zk.exists(path, watch=nothing), None)
    other.create(path)
    check_equal(events_of(zk, seen, path), [(CREATED_EVENT, path)])
    zk.exists(path, watch=nothing)
    other.create(f"{path}/c")
    other.delete(f"{path}/c")
    other.set(path, b"")
    check_equal(events_of(zk, seen, path), [(CHANGED_EVENT, path)])
    zk.exists(path, watch=nothing)
    other.delete(path)
    check_equal(events_of(zk, seen, path), [(DELETED_EVENT, path)])


def test_watch_children(t):
    zk, root = start_at_root(t)
    other = start(t)
    seen = trace(zk)
    zk.get_children(root, watch=nothing)
    other.set(root, b"x")
    other.create(f"{root}/a")
    other.create(f"{root}/b")
    check_equal(events_of(zk, seen, root), [(CHILD_EVENT, root)])
    zk.get_children(root, watch=nothing)
    other.set(f"{root}/a", b"x")
    other.create(f"{root}/a/deeper")
    check_equal(events_of(zk, seen, root), [], "neither a child's data nor a grandchild")
    other.delete(f"{root}/b")
    check_equal(events_of(zk, seen, root), [(CHILD_EVENT, root)])
    zk.get_children(f"{root}/a/deeper", watch=nothing)
    other.delete(f"{root}/a/deeper")
    check_equal(events_of(zk, seen, root), [(DELETED_EVENT, f"{root}/a/deeper")])


def test_watch_delete_is_told_once(t):
    zk, root = start_at_root(t)
    seen = trace(zk)
    path = f"{root}/a"
    zk.create(path)
    zk.get(path, watch=nothing)
    zk.exists(path, watch=nothing)
    zk.get_children(path, watch=nothing)
    zk.get_children(root, watch=nothing)
    start(t).delete(path)
    check_equal(events_of(zk, seen, root), [(DELETED_EVENT, path), (CHILD_EVENT, root)])


def test_watch_fires_for_every_connection(t):
    zk, root = start_at_root(t)
    watchers = [start(t) for _ in range(5)]
    traces = [trace(watcher) for watcher in watchers]
    for watcher in watchers:
        watcher.get(root, watch=nothing)
        watcher.get_children(root, watch=nothing)
    zk.set(root, b"x")
    zk.create(f"{root}/a")
    for watcher, seen in zip(watchers, traces):
        check_equal(events_of(watcher, seen, root), [(CHANGED_EVENT, root), (CHILD_EVENT, root)])


def test_watch_not_fired_by_what_changes_nothing(t):
    zk, root = start_at_root(t)
    seen = trace(zk)
    path = f"{root}/a"
    zk.create(path)
    zk.get(path, watch=nothing)
    zk.get_children(root, watch=nothing)
    zk.set_acls(path, world(ALL))
    fails(errors.BadVersionError, zk.set, path, b"", version=9)
    fails(errors.NodeExistsError, zk.create, path)
    ops = zk.transaction()
    ops.set_data(path, b"x")
    ops.create(f"{root}/b")
    ops.check(path, 9)
    ops.commit()
    zk.sync(path)
    check_equal(events_of(zk, seen, path), [])


def test_watch_event_comes_before_the_reply(t):
    zk, root = start_at_root(t)
    seen = trace(zk)
    path = f"{root}/a"
    zk.exists(path, watch=nothing)
    zk.get_children(root, watch=nothing)
    seen.clear()
    zk.create(path)
    check_equal(seen, [("event", CREATED_EVENT, path), ("event", CHILD_EVENT, root), ("reply", "Create", 0)])
    zk.get(path, watch=nothing)
    seen.clear()
    zk.set(path, b"x")
    check_equal(seen, [("event", CHANGED_EVENT, path), ("reply", "SetData", 0)])
    zk.get(path, watch=nothing)
    seen.clear()
    ops = zk.transaction()
    ops.set_data(path, b"y")
    ops.delete(path)
    ops.commit()
    check_equal(seen, [("event", CHANGED_EVENT, path), ("reply", "Transaction", 0)])


def test_watch_event_comes_before_any_later_data(t):
    """R3: a reader polling without a pause must hear of a change before it can read it, or anything written after it."""
    zk, root = start_at_root(t)
    other = start(t)
    watched, later = f"{root}/watched", f"{root}/later"
    zk.create(watched)
    zk.create(later)
    for number in range(100):
        seen = []
        zk.get(watched, watch=lambda event: None)
        read_event = zk._connection._read_watch_event
        zk._connection._read_watch_event = lambda data, offset: (seen.append(True), read_event(data, offset))[1]
        other.set_async(watched, b"%d" % number)
        last = other.set_async(later, b"%d" % number)
        while True:
            # The trace is written by the thread that reads the socket, before the reply behind it is handed over.
            if zk.get(later)[0] == b"%d" % number:
                assert seen, f"round {number}: later data came before the event"
                break
        last.get(timeout=WAIT)
        zk._connection._read_watch_event = read_event


def test_watch_events_come_in_the_order_of_changes(t):
    zk, root = start_at_root(t)
    others = [start(t) for _ in range(3)]
    seen = trace(zk)
    paths = [f"{root}/{number}" for number in range(60)]
    for result in [zk.create_async(path) for path in paths]:
        result.get(timeout=WAIT)
    for path in paths:
        zk.get(path, watch=nothing)
    seen.clear()
    random.Random(2).shuffle(paths)
    results = [(path, others[number % 3].set_async(path, b"x")) for number, path in enumerate(paths)]
    order = [path for _, path in sorted((result.get(timeout=WAIT).mzxid, path) for path, result in results)]
    check_equal(events_of(zk, seen, root), [(CHANGED_EVENT, path) for path in order])


def test_watch_on_ephemerals(t):
    zk, root = start_at_root(t)
    owner = start(t)
    seen = trace(zk)
    owner.create(f"{root}/e", ephemeral=True)
    zk.get(f"{root}/e", watch=nothing)
    zk.get_children(root, watch=nothing)
    stop(owner)
    check_equal(events_of(zk, seen, root), [(DELETED_EVENT, f"{root}/e"), (CHILD_EVENT, root)])


# --- losing the connection ----------------------------------------------------------------------------------------------

def test_reconnect_keeps_session_and_order(t):
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    moving = start(t, via=proxy)
    session, seen = moving.client_id, states(moving)
    for number in range(5):
        moving.set(root, b"%d" % number)
        proxy.cut()
        wait_for("the loss to be noticed", lambda: not moving.connected)
        zk.set(root, b"meanwhile %d" % number)
        proxy.restore()
        wait_for("reconnection", lambda: moving.connected)
        check_equal(moving.get(root)[0], b"meanwhile %d" % number)
        check_equal(moving.client_id, session)
    check_equal(seen, [KazooState.SUSPENDED, KazooState.CONNECTED] * 5)


def test_reconnect_and_set_watches_catches_up(t):
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    watching = start(t, via=proxy)
    seen = trace(watching)
    changed, gone, appeared, parent, same = (f"{root}/{name}" for name in ("changed", "gone", "appeared", "parent", "same"))
    for path in (changed, gone, parent, same):
        zk.create(path)
    watching.get(changed)
    zxid = watching.last_zxid
    proxy.cut()
    wait_for("the loss to be noticed", lambda: not watching.connected)
    zk.set(changed, b"x")
    zk.delete(gone)
    zk.create(appeared)
    zk.create(f"{parent}/c")
    proxy.restore()
    wait_for("reconnection", lambda: watching.connected)
    called = []
    for path in (changed, gone, appeared, same):
        watching._data_watchers[path].add(called.append)
    for path in (parent, same):
        watching._child_watchers[path].add(called.append)
    seen.clear()
    ask(watching, SetWatches(zxid, [changed, gone, same], [appeared], [parent, same]))
    want = [(CHANGED_EVENT, changed), (DELETED_EVENT, gone), (CREATED_EVENT, appeared), (CHILD_EVENT, parent)]
    check_equal(seen, [("event", *event) for event in want] + [("reply", "SetWatches", 0)])
    wait_for("four callbacks", lambda: len(called) == 4)
    seen.clear()
    zk.set(same, b"x")
    zk.create(f"{same}/c")
    zk.set(changed, b"y")
    check_equal(events_of(watching, seen, same), [(CHANGED_EVENT, same), (CHILD_EVENT, same)])


def test_reconnect_with_nothing_missed_is_quiet(t):
    """ZOOKEEPER-1412: a reply zxid ahead of or behind what was read would show here."""
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    watching = start(t, via=proxy)
    seen = trace(watching)
    zk.create(f"{root}/a")
    zk.create(f"{root}/a/b")
    for _ in range(3):
        zk.set(f"{root}/a", b"x")
        watching.get(f"{root}/a")
        zxid = watching.last_zxid
        proxy.cut()
        wait_for("the loss to be noticed", lambda: not watching.connected)
        proxy.restore()
        wait_for("reconnection", lambda: watching.connected)
        seen.clear()
        ask(watching, SetWatches(zxid, [root, f"{root}/a", f"{root}/a/b"], [f"{root}/none"], [root, f"{root}/a"]))
        check_equal(seen, [("reply", "SetWatches", 0)])


def test_reconnect_under_data_and_children_watch(t):
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    watching = start(t, via=proxy)
    data, children = [], []
    watching.DataWatch(f"{root}/a", lambda value, stat: data.append(value) and None)
    watching.ChildrenWatch(root, lambda names: children.append(sorted(names)) and None)
    zk.create(f"{root}/a", b"1")
    wait_for("both", lambda: data[-1:] == [b"1"] and children[-1:] == [["a"]])
    proxy.cut()
    wait_for("the loss to be noticed", lambda: not watching.connected)
    zk.set(f"{root}/a", b"2")
    zk.create(f"{root}/b")
    proxy.restore()
    wait_for("both again", lambda: data[-1:] == [b"2"] and children[-1:] == [["a", "b"]])
    zk.set(f"{root}/a", b"3")
    zk.delete(f"{root}/b")
    wait_for("the watches to live on", lambda: data[-1:] == [b"3"] and children[-1:] == [["a"]])


def test_session_is_taken_over(t):
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    first = start(t, via=proxy)
    _, stat = first.create(f"{root}/e", ephemeral=True, include_data=True)
    first.get(f"{root}/e", watch=nothing)
    session = first.client_id
    proxy.refuse_new()
    second = start(t, client_id=session)
    check_equal(second.client_id, session)
    assert proxy.closed_by_server.wait(WAIT), "the older connection is still open"
    wait_for("the first to notice", lambda: not first.connected)
    check_equal(second.exists(f"{root}/e"), stat)
    second.create(f"{root}/f", ephemeral=True)
    check_equal(zk.exists(f"{root}/f").ephemeralOwner, session[0])
    stop(second)
    zk.sync(root)
    check_equal(zk.get_children(root), [])
    # And back: the first comes with an id that is closed now.
    seen = states(first)
    proxy.restore()
    wait_for("the loss of the session", lambda: KazooState.LOST in seen and first.connected)
    assert first.client_id[0] != session[0]


def test_session_that_is_closed_stays_closed(t):
    zk, root = start_at_root(t)
    first = start(t)
    first.create(f"{root}/e", ephemeral=True)
    session = first.client_id
    stop(first)
    for client_id in (session, (session[0], b"wrong password!!"), (0x0123456789ABCDEF, b"x" * 16)):
        retry = KazooRetry(max_tries=-1, delay=0.01, backoff=1.5, max_delay=0.1)
        second = KazooClient(hosts=f"{t.host}:{t.port}", timeout=10, client_id=client_id, connection_retry=retry)
        t.cleanup(second.close)
        t.cleanup(second.stop)
        second.start(timeout=WAIT)
        assert second.client_id[0] not in (session[0], client_id[0]), "a dead session came back"
    check_equal(zk.get_children(root), [])


def test_session_expires(t):
    zk, root = start_at_root(t)
    proxy = Proxy(t)
    owner = start(t, via=proxy, timeout=2 * t.tick)
    timeout = 2 * t.tick
    seen, session = states(owner), owner.client_id
    path = f"{root}/e"
    owner.create(path, ephemeral=True)
    before = time.monotonic()
    owner.exists(path)
    proxy.cut()
    after = time.monotonic()
    wait_for("the ephemeral to go", lambda: zk.exists(path) is None, timeout + 4 * t.tick + 5)
    now = time.monotonic()
    assert now - before >= timeout, f"gone after {now - before:.2f} s, the timeout is {timeout:g} s"
    assert now - after <= timeout + 2 * t.tick + suite.SCHEDULING_SECONDS, f"gone only after {now - after:.2f} s"
    proxy.restore()
    wait_for("a new session", lambda: KazooState.LOST in seen and owner.connected)
    assert owner.client_id[0] != session[0]
    check_equal(seen[-2:], [KazooState.LOST, KazooState.CONNECTED])
    owner.create(path, ephemeral=True)
    check_equal(zk.exists(path).ephemeralOwner, owner.client_id[0])


def test_session_is_kept_by_pings(t):
    zk, root = start_at_root(t)
    # kazoo's pings are up to 0.4 s early, so its shortest useful timeout is not the server's.
    timeout = max(2 * t.tick, 2.0)
    quiet = start(t, timeout=timeout)
    seen, session = states(quiet), quiet.client_id
    quiet.create(f"{root}/e", ephemeral=True)
    end = time.monotonic() + min(2 * timeout, timeout + 2.5 * t.tick)
    while time.monotonic() < end:
        assert zk.exists(f"{root}/e"), "expired in spite of its pings"
        time.sleep(t.tick / 4)
    check_equal((seen, quiet.client_id), ([], session))


# --- many requests at once ----------------------------------------------------------------------------------------------

def test_pipeline_reads_its_own_writes(t):
    """R1: a thousand writes and reads in one go, answered in order, each read showing the write before it."""
    zk, root = start_at_root(t)
    seen = trace(zk)
    results = []
    for number in range(1000):
        results.append((zk.set_async(root, b"%d" % number), zk.get_async(root)))
    zxid = 0
    for number, (written, read) in enumerate(results):
        stat = written.get(timeout=WAIT)
        check_equal(stat.version, number + 1)
        check_equal(read.get(timeout=WAIT), (b"%d" % number, stat))
        assert stat.mzxid > zxid
        zxid = stat.mzxid
    check_equal([entry[1] for entry in seen], ["SetData", "GetData"] * 1000)


def test_pipelines_side_by_side(t):
    _, root = start_at_root(t)

    def work(who):
        zk = start(t)
        path = f"{root}/{who}"
        results = [zk.create_async(path)]
        for number in range(100):
            results += [zk.set_async(path, b"%d" % number, version=number), zk.get_async(path), zk.exists_async(root)]
        results += [zk.delete_async(path, version=100), zk.exists_async(path)]
        values = [result.get(timeout=WAIT) for result in results]
        check_equal(values[0], path)
        check_equal([value[0] for value in values[2:-2:3]], [b"%d" % number for number in range(100)])
        check_equal(values[-1], None)

    for join in [in_thread(work, who) for who in range(6)]:
        join()


def test_pipeline_goes_on_past_failures(t):
    zk, root = start_at_root(t)
    results = []
    for number in range(200):
        results.append(zk.create_async(f"{root}/{number}"))
        results.append(zk.create_async(f"{root}/{number}"))
        results.append(zk.delete_async(f"{root}/{number}", version=3))
        results.append(zk.delete_async(f"{root}/{number}"))
    for number, result in enumerate(results):
        want = (None, errors.NodeExistsError, errors.BadVersionError, None)[number % 4]
        if want:
            fails(want, result.get, timeout=WAIT)
        else:
            result.get(timeout=WAIT)
    check_equal(zk.exists(root).cversion, 400)


def test_sync_then_read_shows_what_was_acknowledged(t):
    writer, root = start_at_root(t)
    reader = start(t)
    for number in range(100):
        writer.set(root, b"%d" % number)
        synced, read = reader.sync_async(root), reader.get_async(root)
        check_equal((synced.get(timeout=WAIT), read.get(timeout=WAIT)[0]), (root, b"%d" % number))


# --- recipes ------------------------------------------------------------------------------------------------------------

def test_recipe_lock(t):
    zk, root = start_at_root(t)
    zk.create(f"{root}/value", b"0")

    def work(client, who):
        for _ in range(5):
            with client.Lock(f"{root}/lock", who):
                value = int(client.get(f"{root}/value")[0])
                client.set(f"{root}/value", b"%d" % (value + 1))

    for join in [in_thread(work, start(t), f"client {number}") for number in range(4)]:
        join()
    check_equal((zk.get(f"{root}/value")[0], zk.get_children(f"{root}/lock")), (b"20", []))


def test_recipe_lock_goes_on_when_its_holder_dies(t):
    _, root = start_at_root(t)
    holder, waiter = start(t), start(t)
    assert holder.Lock(f"{root}/lock", "holder").acquire(timeout=WAIT)
    lock = waiter.Lock(f"{root}/lock", "waiter")
    join = in_thread(lambda: lock.acquire(timeout=WAIT))
    wait_for("both to queue", lambda: len(lock.contenders()) == 2)
    check_equal(lock.contenders(), ["holder", "waiter"])
    assert not join.done()
    stop(holder)
    assert join()
    lock.release()


def test_recipe_read_and_write_lock(t):
    _, root = start_at_root(t)
    readers = [start(t).ReadLock(f"{root}/lock", "reader") for _ in range(2)]
    writer = start(t).WriteLock(f"{root}/lock", "writer")
    for reader in readers:
        assert reader.acquire(timeout=WAIT)
    join = in_thread(lambda: writer.acquire(timeout=WAIT))
    wait_for("the writer to queue", lambda: "writer" in writer.contenders())
    for reader in readers:
        assert not join.done()
        reader.release()
    assert join()
    assert not readers[0].acquire(blocking=False)
    writer.release()
    assert readers[0].acquire(timeout=WAIT)


def test_recipe_semaphore(t):
    _, root = start_at_root(t)
    semaphores = [start(t).Semaphore(f"{root}/semaphore", f"s{number}", max_leases=2) for number in range(3)]
    assert semaphores[0].acquire(timeout=WAIT) and semaphores[1].acquire(timeout=WAIT)
    assert not semaphores[2].acquire(blocking=False)
    join = in_thread(lambda: semaphores[2].acquire(timeout=WAIT))
    semaphores[0].release()
    assert join()
    check_equal(sorted(semaphores[1].lease_holders()), ["s1", "s2"])


def test_recipe_election(t):
    _, root = start_at_root(t)
    reigns, crowned, guard = [], threading.Event(), threading.Lock()

    def reign(who):
        assert guard.acquire(blocking=False), "two leaders"
        reigns.append(who)
        crowned.wait(WAIT)
        guard.release()

    elections = [start(t).Election(f"{root}/election", str(number)) for number in range(3)]
    joins = [in_thread(election.run, reign, number) for number, election in enumerate(elections)]
    wait_for("all to stand and one to lead", lambda: len(reigns) == 1 and len(elections[0].contenders()) == 3)
    check_equal(elections[0].contenders()[0], str(reigns[0]))
    crowned.set()
    for join in joins:
        join()
    check_equal(sorted(reigns), [0, 1, 2])


def test_recipe_data_and_children_watch(t):
    zk, root = start_at_root(t)
    other = start(t)
    data, children = [], []
    zk.DataWatch(f"{root}/a", lambda value, stat: data.append(value) and None)
    zk.ChildrenWatch(root, lambda names: children.append(len(names)) and None)
    check_equal((data, children), ([None], [0]))
    other.create(f"{root}/a", b"0")
    for number in range(50):
        other.set(f"{root}/a", b"%d" % number)
        other.create(f"{root}/c-", sequence=True)
    wait_for("the last values", lambda: data[-1:] == [b"49"] and children[-1:] == [51])
    values = [int(value) for value in data if value is not None]
    check_equal((values, children), (sorted(values), sorted(children)), "what was seen never goes back")
    other.delete(f"{root}/a")
    wait_for("the end", lambda: data[-1] is None and children[-1] == 50)


def test_recipe_queue(t):
    _, root = start_at_root(t)
    producer, consumers = start(t).Queue(f"{root}/queue"), [start(t).Queue(f"{root}/queue") for _ in range(3)]
    for number in range(30):
        producer.put(b"%02d" % number)
    producer.put(b"first", priority=10)
    check_equal((len(producer), consumers[0].get()), (31, b"first"))

    def consume(queue):
        values = []
        while (value := queue.get()) is not None:
            values.append(value)
        return values

    parts = [join() for join in [in_thread(consume, queue) for queue in consumers]]
    for part in parts:
        check_equal(part, sorted(part))
    check_equal(sorted(sum(parts, [])), [b"%02d" % number for number in range(30)], "each once")


def test_recipe_locking_queue(t):
    _, root = start_at_root(t)
    producer, one, two = (start(t).LockingQueue(f"{root}/queue") for _ in range(3))
    producer.put_all([b"a", b"b"])
    check_equal((one.get(timeout=WAIT), two.get(timeout=WAIT)), (b"a", b"b"))
    assert one.consume() and two.consume()
    join = in_thread(lambda: one.get(timeout=WAIT))
    producer.put(b"c")
    check_equal(join(), b"c")
    one.release()
    check_equal(two.get(timeout=WAIT), b"c")
    assert two.consume()
    check_equal(len(producer), 0)


def test_recipe_counter(t):
    _, root = start_at_root(t)

    def work(zk):
        counter = zk.Counter(f"{root}/counter")
        for _ in range(20):
            counter += 1
        return counter.value

    values = [join() for join in [in_thread(work, start(t)) for _ in range(3)]]
    check_equal(max(values), 60)
    check_equal(start(t).Counter(f"{root}/counter").value, 60)


def test_recipe_barriers(t):
    _, root = start_at_root(t)
    keeper, waiter = start(t).Barrier(f"{root}/barrier"), start(t).Barrier(f"{root}/barrier")
    keeper.create()
    assert not waiter.wait(0)
    join = in_thread(lambda: waiter.wait(WAIT))
    assert keeper.remove()
    assert join() and waiter.wait(0)
    inside = []

    def meet(zk, who):
        barrier = zk.DoubleBarrier(f"{root}/double", 3, identifier=who)
        barrier.enter()
        inside.append(who)
        count = barrier.participating and len(inside)
        barrier.leave()
        return count, len(inside)

    for join in [in_thread(meet, start(t), f"p{number}") for number in range(3)]:
        _, at_leave = join()
        check_equal(at_leave, 3, "nobody leaves before all have entered")


def test_recipe_party(t):
    _, root = start_at_root(t)
    parties = [start(t).Party(f"{root}/party", f"m{number}") for number in range(3)]
    for party in parties:
        party.join()
    check_equal(sorted(parties[0]), ["m0", "m1", "m2"])
    parties[1].leave()
    check_equal(sorted(parties[2]), ["m0", "m2"])


def test_recipe_tree_cache(t):
    zk, root = start_at_root(t)
    other = start(t)
    other.create(f"{root}/t/a/b", b"1", makepath=True)
    cache = TreeCache(zk, f"{root}/t")
    t.cleanup(cache.close)
    cache.start()

    def shows(path, data):
        entry = cache.get_data(path)
        return (entry.data if entry else None) == data

    wait_for("the tree", lambda: shows(f"{root}/t/a/b", b"1"))
    for number in range(30):
        other.set(f"{root}/t/a/b", b"%d" % number)
        other.create(f"{root}/t/a/{number}", b"x")
    wait_for("the changes", lambda: shows(f"{root}/t/a/b", b"29") and len(cache.get_children(f"{root}/t/a") or ()) == 31)
    other.delete(f"{root}/t", recursive=True)
    wait_for("the end", lambda: cache.get_data(f"{root}/t") is None)


# --- four-letter words --------------------------------------------------------------------------------------------------

def test_words(t):
    zk = start(t)
    patterns = {
        "ruok": r"imok", "isro": r"rw", "srvr": r"Zookeeper version: .*Mode: .*Node count: \d+\n",
        "stat": r"Zookeeper version: .*Clients:\n.*Node count: \d+\n", "mntr": r"zk_version\t.*\nzk_server_state\t.*",
        "conf": r".*clientPort=\d+\n.*tickTime=\d+\n.*", "cons": r" /.*sid=0x[0-9a-f]+.*",
    }
    allowed = 0
    for word, pattern in patterns.items():
        answer = zk.command(word.encode())
        if answer == f"{word} is not executed because it is not in the whitelist.\n":
            assert word != "srvr", "srvr is always allowed"
            continue
        assert re.fullmatch(pattern, answer, re.DOTALL), f"{word}: {answer[:300]!r}"
        allowed += 1
    assert allowed
    # The session on the other connection does not care.
    assert zk.exists("/")


def add_options(parser):
    parser.add_argument("--super", metavar="USER:PASSWORD", help="who may do everything there")


if __name__ == "__main__":
    suite.main(__name__, add_options)
