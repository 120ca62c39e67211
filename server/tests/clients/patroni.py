"""Patroni with two PostgreSQL servers, and one coordination server for it to ask who leads.

usage: CORRAL_SERVER=path/of/corral-server VENV/bin/python patroni.py
       ZOOKEEPER_JARS=DIR VENV/bin/python patroni.py       the same with Apache ZooKeeper, for comparison

VENV has `patroni[zookeeper]` and `psycopg2-binary`; PostgreSQL is Debian's. Run by root, PostgreSQL and Patroni are run as
the user postgres, as they refuse to be root.

What this proves: the lock of a leader that is an ephemeral node is held by one at a time; it goes over when its holder dies,
not before its time and soon after; a change of the configuration reaches everybody through watches; sessions, locks and what
was written survive that the coordination server is killed and started again on its data. In terms of the user: there are
never two PostgreSQL servers that take writes, and no acknowledged write is lost (Patroni replicates synchronously).

The idea: a thread writes all the time to whichever server takes writes, and remembers what was acknowledged; another asks
both servers all the time whether they take writes. The cases run one after the other, each on what the one before it left,
and wait for conditions with deadlines. The end of the first that fails is the end of all.

Prints `ok NAME: what was measured` or `FAILED NAME: why` per case; exit status 0 only if nothing failed.
Invariant: whatever was started is gone at the end. This process adopts what its children leave behind, and kills what it finds
below itself. Only a kill -9 of this process itself prevents that.
Not here: ensembles, a divided network, power losses (PostgreSQL runs with fsync=off).
"""

import contextlib
import ctypes
import glob
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import psutil
import psycopg2
from kazoo.client import KazooClient

TTL = 20.0  # The shortest that Patroni takes.
TICK = 1.0  # A session ends within so long after its time.
LOOP = 2.0  # How often Patroni looks by itself.
RETRY = 4.0  # How long a leader stays one without its coordination server.
WAIT = 60.0  # How long one expected thing may take on a busy machine.
SLACK = 10.0  # What a busy machine may add to a time that has an upper bound: the promotion itself, a connection, scheduling.
NAMES = ("a", "b")
SCOPE = "/service/test"


def until(what, condition, seconds=WAIT):
    """Polls until `condition()` is true, and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


def free_ports(count):
    """Below those that the system gives to outgoing connections."""
    ports = []
    while len(ports) < count:
        port = random.randrange(20000, 30000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


class Coordination:
    """The coordination server."""

    def __init__(self, work, port):
        self.work, self.port, self.process = work, port, None
        os.makedirs(f"{work}/coordination")
        with open(f"{work}/zoo.cfg", "w") as file:
            file.write(
                f"tickTime={TICK * 1000:.0f}\ninitLimit=10\nsyncLimit=5\ndataDir={work}/coordination\nclientPort={port}\n"
                "clientPortAddress=127.0.0.1\nmaxSessionTimeout=60000\nadmin.enableServer=false\n"
            )
        jars = os.environ.get("ZOOKEEPER_JARS")
        if jars:
            main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
            self.command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", main, f"{work}/zoo.cfg"]
        else:
            self.command = [os.environ["CORRAL_SERVER"], "--config", f"{work}/zoo.cfg"]

    def start(self):
        with open(f"{self.work}/coordination.log", "a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.work)
        until("the coordination server", self.serves)

    def serves(self):
        assert self.process.poll() is None, "the coordination server has ended"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
                sock.sendall(b"srvr")
                return b"Mode: " in b"".join(iter(lambda: sock.recv(4096), b""))
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()


class Node:
    """A PostgreSQL server and the Patroni that minds it."""

    def __init__(self, name, work, coordination_port, bin_dir):
        self.name, self.work = name, work
        self.port, self.rest = free_ports(2)
        self.data = f"{work}/{name}/data"
        self.log = f"{work}/{name}.log"
        os.makedirs(f"{work}/{name}")
        own(f"{work}/{name}")
        config = {
            "scope": "test",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "zookeeper": {"hosts": [f"127.0.0.1:{coordination_port}"]},
            "bootstrap": {
                "dcs": {
                    "ttl": int(TTL),
                    "loop_wait": int(LOOP),
                    "retry_timeout": int(RETRY),
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"fsync": "off", "shared_buffers": "16MB"}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": self.data,
                "bin_dir": bin_dir,
                "pgpass": f"{work}/{name}/pgpass",
                "authentication": {
                    "superuser": {"username": "postgres", "password": "p"},
                    "replication": {"username": "replicator", "password": "p"},
                },
                "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
                "parameters": {"unix_socket_directories": f"{work}/{name}"},  # pg_rewind bears none among the data.
            },
        }
        with open(f"{work}/{name}.yml", "w") as file:
            json.dump(config, file)  # All of it is YAML, too.

    def start(self):
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        program = os.path.join(os.path.dirname(sys.executable), "patroni")
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [program, f"{self.work}/{self.name}.yml"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=f"{self.work}/{self.name}", start_new_session=True, **user,
            )  # fmt: skip

    def kill(self):
        """What a power loss looks like to everybody else: Patroni first, so that it cannot tell anybody."""
        with open(f"{self.data}/postmaster.pid") as file:
            postmaster = psutil.Process(int(file.readline()))
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in [psutil.Process(self.process.pid), *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        until("the end of its processes", lambda: not any(process.is_running() for process in family))

    def ask(self, path, method="GET", body=None):
        """What its Patroni answers, or `None` for an error: `/primary` is one on a node that does not lead."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.rest}{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
        except OSError:  # An error of HTTP is one, too.
            return None
        return json.loads(text) if text.startswith("{") else text

    def connect(self):
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=2)

    def query(self, sql):
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def takes_writes(self):
        try:
            return not self.query("SELECT pg_is_in_recovery()")[0][0]
        except psycopg2.Error:
            return False


class Writer(threading.Thread):
    """Writes one row after the other to whoever takes writes, and remembers which were acknowledged."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.acknowledged, self.ended = [], False
        self.where = {
            "host": ",".join("127.0.0.1" for _ in nodes), "port": ",".join(str(node.port) for node in nodes), "user": "postgres",
            "dbname": "postgres", "target_session_attrs": "read-write", "connect_timeout": 2,
        }  # fmt: skip

    def run(self):
        number = 0
        while not self.ended:
            try:
                with contextlib.closing(psycopg2.connect(**self.where)) as connection, connection.cursor() as cursor:
                    connection.autocommit = True
                    while not self.ended:
                        number += 1
                        cursor.execute("INSERT INTO rows VALUES (%s)", (number,))
                        self.acknowledged.append(number)
                        time.sleep(0.005)
            except psycopg2.Error:
                time.sleep(0.05)

    def goes_on(self):
        """Waits until something is acknowledged that was begun after now."""
        enough = len(self.acknowledged) + 2
        until("writes to go on", lambda: len(self.acknowledged) >= enough)


class Witness(threading.Thread):
    """Asks all the time who takes writes. That two do is proved by three answers: one, the other, and the one again."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.ended, self.looks, self.two = nodes, False, 0, 0

    def run(self):
        one, other = self.nodes
        while not self.ended:
            if one.takes_writes() and other.takes_writes() and one.takes_writes():
                self.two += 1
            self.looks += 1
            time.sleep(0.02)


class Cluster:
    def __init__(self, work):
        bin_dir = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.coordination = Coordination(work, *free_ports(1))
        self.nodes = [Node(name, work, self.coordination.port, bin_dir) for name in NAMES]
        self.writer, self.witness = Writer(self.nodes), Witness(self.nodes)

    def leader(self):
        """The node that Patroni calls the leader and that takes writes, if it is one."""
        leaders = [node for node in self.nodes if node.ask("/primary") and node.takes_writes()]
        return leaders[0] if len(leaders) == 1 else None

    def whole(self):
        """The leader, if the other one follows it synchronously."""
        leader = self.leader()
        cluster = leader and leader.ask("/cluster")
        if not cluster:
            return None
        members = {member["name"]: (member["role"], member["state"]) for member in cluster["members"]}
        other = self.other(leader)
        expected = {leader.name: ("leader", "running"), other.name: ("sync_standby", "streaming")}
        timelines = {member.get("timeline") for member in cluster["members"]}
        streams = leader.query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'")[0][0]
        return leader if members == expected and len(timelines) == 1 and streams == 1 else None

    def other(self, node):
        return next(other for other in self.nodes if other is not node)

    def timeline(self, node):
        return node.ask("/patroni")["timeline"]

    def all_there(self, node):
        """Whatever was acknowledged until now is on that node: a standby may show it a moment later."""
        expected = set(self.writer.acknowledged)
        rows = until("acknowledged rows", lambda: (rows := {row for (row,) in node.query("SELECT id FROM rows")}) >= expected and rows)
        return f"{len(expected)} acknowledged, {len(rows)} there"

    # -- the cases, in their order --

    def bootstrap(self):
        """Both start at once with nothing, and one of them makes the database."""
        self.coordination.start()
        for node in self.nodes:
            node.start()
        leader = until("a leader and a standby", self.whole, 2 * WAIT)
        with contextlib.closing(leader.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE rows (id bigint PRIMARY KEY)")
        self.writer.start()
        self.witness.start()
        self.writer.goes_on()
        systems = {node.query("SELECT system_identifier FROM pg_control_system()")[0][0] for node in self.nodes}
        assert len(systems) == 1, systems
        return f"{leader.name} leads; {self.all_there(self.other(leader))}"

    def nodes_of_patroni(self):
        """What lies in the coordination server: the lock belongs to the session that its holder's own node belongs to."""
        leader = self.leader()
        with self.client() as client:
            value, lock = client.get(f"{SCOPE}/leader")
            assert value.decode() == leader.name, value
            owners = {name: client.get(f"{SCOPE}/members/{name}")[1].ephemeralOwner for name in client.get_children(f"{SCOPE}/members")}
            assert set(owners) == set(NAMES) and len(set(owners.values())) == 2 and 0 not in owners.values(), owners
            assert lock.ephemeralOwner == owners[leader.name], (lock, owners)
            assert client.get(f"{SCOPE}/initialize")[1].ephemeralOwner == 0
            return " ".join(sorted(client.get_children(SCOPE)))

    def configuration(self):
        """A change through one node reaches both."""
        value = f"{random.randrange(1000, 9000)}kB"
        answer = self.leader().ask("/config", "PATCH", {"postgresql": {"parameters": {"work_mem": value}}})
        assert answer["postgresql"]["parameters"]["work_mem"] == value, answer
        begin = time.monotonic()
        until("both to have it", lambda: all(node.query("SHOW work_mem") == [(value,)] for node in self.nodes), LOOP + SLACK)
        return f"after {time.monotonic() - begin:.1f} s"

    def switchover(self):
        """The lock is handed over on request."""
        old = self.leader()
        new = self.other(old)
        before = self.timeline(old)
        begin = time.monotonic()
        answer = old.ask("/switchover", "POST", {"leader": old.name, "candidate": new.name})
        assert answer and "witched over" in answer, answer
        until("both to have changed places", lambda: self.whole() is new)
        assert self.timeline(new) == before + 1
        self.writer.goes_on()
        return f"whole after {time.monotonic() - begin:.1f} s; {self.all_there(new)}"

    def failover(self):
        """The leader dies without a word: its session ends when its time is over, not before, and the other one takes its place."""
        old = self.whole()
        new = self.other(old)
        before = self.timeline(old)
        with self.client() as client:
            gone = threading.Event()
            client.get(f"{SCOPE}/leader", watch=lambda event: event.type == "DELETED" and gone.set())
            begin = time.monotonic()
            old.kill()
            assert gone.wait(TTL + TICK + SLACK), "the lock of a dead leader stays"
            free = time.monotonic() - begin
        until("the other one to lead", lambda: self.leader() is new, LOOP + SLACK)
        led = time.monotonic() - begin
        self.writer.goes_on()
        assert self.timeline(new) == before + 1
        assert free > TTL * 0.6, f"the lock went after {free:.1f} s"
        assert free < TTL + TICK + 4, f"the lock stayed for {free:.1f} s"
        return f"lock free after {free:.1f} s, the other one led after {led:.1f} s; {self.all_there(new)}"

    def comes_back(self):
        """The dead one comes back as a standby."""
        leader = self.leader()
        begin = time.monotonic()
        self.other(leader).start()
        until("it to follow", lambda: self.whole() is leader, 2 * WAIT)
        return f"after {time.monotonic() - begin:.1f} s; {self.all_there(self.other(leader))}"

    def restart(self):
        """The coordination server is killed and started again: sessions, the lock and the leader stay as they are."""
        leader = self.whole()
        before, lock = self.timeline(leader), self.lock()
        begin = time.monotonic()
        self.coordination.kill()
        self.coordination.start()
        down = time.monotonic() - begin
        assert self.lock() == lock, "the lock is another one's"
        # Until every session that did not come back is over.
        end = time.monotonic() + TTL + 2 * TICK
        while time.monotonic() < end:
            assert self.lock() == lock, "the lock is another one's"
            assert leader.takes_writes(), "the leader does not take writes any more"
            time.sleep(0.2)
        until("both to be there", lambda: self.whole() is leader)
        assert self.timeline(leader) == before
        self.writer.goes_on()
        return f"served again after {down:.1f} s; {leader.name} still leads; {self.all_there(self.other(leader))}"

    def outage(self):
        """The coordination server is away for longer than any session lives: nobody leads. It comes back with all sessions and
        the lock, and one does."""
        lock = self.lock()
        begin = time.monotonic()
        self.coordination.kill()
        until("the leader to step back", lambda: not any(node.takes_writes() for node in self.nodes), TTL + SLACK)
        stepped = time.monotonic() - begin
        while time.monotonic() < begin + TTL + 2 * TICK:
            assert not any(node.takes_writes() for node in self.nodes), "one leads without the lock"
            time.sleep(0.2)
        self.coordination.start()
        begin = time.monotonic()
        assert self.lock() == lock, "the lock is another one's"
        leader = until("a leader and a standby", self.whole, TTL + WAIT)
        self.writer.goes_on()
        return f"nobody led after {stepped:.1f} s; whole {time.monotonic() - begin:.1f} s after its return; {self.all_there(leader)}"

    def never_two(self):
        """At no time did two take writes, and nothing that was acknowledged is lost."""
        self.writer.ended = self.witness.ended = True
        self.writer.join(WAIT)
        self.witness.join(WAIT)
        assert self.witness.two == 0, f"two took writes in {self.witness.two} of {self.witness.looks} looks"
        return f"{self.witness.looks} looks; " + "; ".join(f"{node.name}: {self.all_there(node)}" for node in self.nodes)

    # -- what they use --

    @contextlib.contextmanager
    def client(self):
        client = KazooClient(f"127.0.0.1:{self.coordination.port}", timeout=20)
        client.start(timeout=WAIT)
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def lock(self):
        with self.client() as client:
            value, stat = client.get(f"{SCOPE}/leader")
            return value, stat.czxid, stat.ephemeralOwner


CASES = ("bootstrap", "nodes_of_patroni", "configuration", "switchover", "failover", "comes_back", "restart", "outage", "never_two")


def own(path):
    """Gives it to the user who runs PostgreSQL."""
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)


def reap(*_):
    """Whatever was adopted and has ended: Patroni waits until the PostgreSQL that it stopped is not even a zombie."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_all():
    def rest():
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        return children

    until("the end of all processes", lambda: not rest(), 20)


def main():
    if not (os.environ.get("CORRAL_SERVER") or os.environ.get("ZOOKEEPER_JARS")):
        sys.exit(__doc__.split("\n\n")[1])
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0):
        sys.exit("this process cannot adopt what its children leave behind")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    signal.signal(signal.SIGCHLD, reap)
    work = tempfile.mkdtemp(prefix="patroni-")
    os.chmod(work, 0o755)
    failed = None
    try:
        cluster = Cluster(work)
        for name in CASES:
            begin = time.monotonic()
            try:
                said = getattr(cluster, name)()
            except Exception as error:
                failed = name
                print(f"FAILED {name}: {type(error).__name__}: {' '.join(str(error).split())[:600]}", flush=True)
                for log in sorted(glob.glob(f"{work}/*.log")):
                    with open(log, errors="replace") as file:
                        lines = [line for line in file.read().splitlines() if "is starting up" not in line]
                        print(f"--- {log}", *lines[-40:], sep="\n", file=sys.stderr)
                break
            print(f"ok {name}: {said} [{time.monotonic() - begin:.1f} s]", flush=True)
    finally:
        end_all()
        shutil.rmtree(work, ignore_errors=True)
    os._exit(1 if failed else 0)  # Threads of a failed case may still wait for something.


if __name__ == "__main__":
    main()
