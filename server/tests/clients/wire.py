"""The ZooKeeper client protocol as bytes: just enough to say exactly what goes over a socket. Standard library only.

`jute` values are built by small functions that return bytes, so that a case can also build what is wrong on purpose.
`Connection` is one TCP connection: it sends what it is told, reads frames, and can insist on the end of the stream.

Not here: retries, reconnection, watch tables, request queues. A case sees every frame in the order of arrival.
"""

import collections
import itertools
import socket
import struct
import time

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN, SYNC = range(1, 10)
PING, GET_CHILDREN2, CHECK, MULTI, CREATE2, RECONFIG = range(11, 17)
CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL = 19, 20, 21
AUTH, SET_WATCHES, WHO_AM_I = 100, 101, 107
CREATE_SESSION, CLOSE_SESSION, ERROR = -10, -11, -1

OK, RUNTIME_INCONSISTENCY, MARSHALLING, UNIMPLEMENTED, BAD_ARGUMENTS = 0, -2, -5, -6, -8
NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, SESSION_EXPIRED, INVALID_ACL, AUTH_FAILED = -110, -111, -112, -114, -115

NODE_CREATED, NODE_DELETED, NODE_DATA_CHANGED, NODE_CHILDREN_CHANGED = 1, 2, 3, 4
PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL = 0, 1, 2, 3
READ, WRITE, MAY_CREATE, MAY_DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31

FRAME_BYTES_MAX = 0xFFFFF  # jute.maxbuffer as shipped
WATCH_XID = -1


# --- values -------------------------------------------------------------------------------------------------------------

def int32(value):
    return struct.pack("!i", value)


def int64(value):
    return struct.pack("!q", value)


def boolean(value):
    return bytes([value])


def buffer(data):
    return int32(-1) if data is None else int32(len(data)) + bytes(data)


def string(text):
    return buffer(text.encode() if isinstance(text, str) else text)


def vector(items, encode=string):
    return int32(-1) if items is None else int32(len(items)) + b"".join(encode(item) for item in items)


def acl(perms=ALL, scheme="world", who="anyone"):
    return int32(perms) + string(scheme) + string(who)


OPEN = vector([acl()], bytes)


def frame(body):
    return int32(len(body)) + body


def request(xid, op, body=b""):
    return frame(int32(xid) + int32(op) + body)


def create(path, data=b"", flags=PERSISTENT, acls=OPEN):
    return string(path) + buffer(data) + acls + int32(flags)


def delete(path, version=-1):
    return string(path) + int32(version)


def set_data(path, data, version=-1):
    return string(path) + buffer(data) + int32(version)


def watched(path, watch=0):
    """The body of exists, getData, getChildren and getChildren2."""
    return string(path) + boolean(watch)


def set_acl(path, acls, version=-1):
    return string(path) + acls + int32(version)


def set_watches(relative_zxid, data=(), exist=(), child=()):
    return int64(relative_zxid) + vector(data) + vector(exist) + vector(child)


def multi_header(kind, done, err=-1):
    return int32(kind) + boolean(done) + int32(err)


MULTI_END = multi_header(-1, 1)


def multi(*ops):
    """Each op is (opcode, body)."""
    return b"".join(multi_header(op, 0) + body for op, body in ops) + MULTI_END


def connect_request(timeout_ms=10000, session=0, password=bytes(16), last_zxid=0, read_only=0, version=0):
    """The body of a ConnectRequest; `read_only=None` leaves the flag out, as 3.3 clients do."""
    body = int32(version) + int64(last_zxid) + int32(timeout_ms) + int64(session) + buffer(password)
    return body if read_only is None else body + boolean(read_only)


# --- answers ------------------------------------------------------------------------------------------------------------

Stat = collections.namedtuple(
    "Stat", "czxid mzxid ctime mtime version cversion aversion owner data_length num_children pzxid"
)
Reply = collections.namedtuple("Reply", "xid zxid err body")
Event = collections.namedtuple("Event", "kind state path zxid")
Session = collections.namedtuple("Session", "id password timeout_ms read_only length")


class Reader:
    """Reads values off the front of some bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert len(self.data) - self.at >= count, f"{count} bytes wanted, {len(self.data) - self.at} left"
        self.at += count
        return self.data[self.at - count : self.at]

    def int32(self):
        return struct.unpack("!i", self.take(4))[0]

    def int64(self):
        return struct.unpack("!q", self.take(8))[0]

    def boolean(self):
        return self.take(1)[0]

    def buffer(self):
        length = self.int32()
        return None if length == -1 else self.take(length)

    def string(self):
        raw = self.buffer()
        return None if raw is None else raw.decode()

    def strings(self):
        return [self.string() for _ in range(self.int32())]

    def acls(self):
        return [(self.int32(), self.string(), self.string()) for _ in range(self.int32())]

    def stat(self):
        return Stat(*struct.unpack("!qqqqiiiqiiq", self.take(68)))

    def end(self):
        assert self.at == len(self.data), f"{len(self.data) - self.at} bytes too many"


def stat_of(reply):
    """The Stat that is the whole body of a reply."""
    reader = Reader(reply.body)
    stat = reader.stat()
    reader.end()
    return stat


def data_of(reply):
    reader = Reader(reply.body)
    data, stat = reader.buffer(), reader.stat()
    reader.end()
    return data, stat


def results_of(reply):
    """The results of a multi: (type, value), an error's value being its code."""
    reader, results = Reader(reply.body), []
    while True:
        kind, done, err = reader.int32(), reader.boolean(), reader.int32()
        if done:
            assert (kind, err) == (-1, -1), f"terminator with type {kind}, err {err}"
            reader.end()
            return results
        if kind == ERROR:
            value = reader.int32()
            assert value == err, f"an error result with header {err} and body {value}"
        elif kind == CREATE:
            value = reader.string()
        elif kind == CREATE2:
            value = (reader.string(), reader.stat())
        elif kind == SET_DATA:
            value = reader.stat()
        else:
            value = None
        results.append((kind, value))


class Closed(AssertionError):
    """The server ended the stream where a frame was expected."""


class Connection:
    """One TCP connection, unbuffered on the way out."""

    def __init__(self, host, port, seconds=10.0):
        self.sock = socket.create_connection((host, port), timeout=seconds)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seconds = seconds
        self.session = None
        self._xids = itertools.count(1)

    def send(self, data):
        self.sock.sendall(data)

    def send_slowly(self, data):
        """One byte at a time. The pause keeps the kernel from joining them; there is nothing that could be waited for."""
        for byte in data:
            self.sock.sendall(bytes([byte]))
            time.sleep(0.0005)

    def read_exactly(self, count, what="a frame"):
        data = b""
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except socket.timeout:
                raise AssertionError(f"no answer within {self.seconds:g} s ({len(data)} of {count} bytes of {what})") from None
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed(f"closed after {len(data)} of {count} bytes of {what}")
            data += piece
        return data

    def read_frame(self):
        return self.read_exactly(struct.unpack("!i", self.read_exactly(4))[0])

    def read(self):
        """The next frame after the handshake: a Reply, or an Event."""
        raw = self.read_frame()
        reader = Reader(raw)
        xid, zxid, err = reader.int32(), reader.int64(), reader.int32()
        if xid == WATCH_XID and len(raw) > 16:
            kind, state, path = reader.int32(), reader.int32(), reader.string()
            reader.end()
            assert err == 0, f"a notification with err {err}"
            return Event(kind, state, path, zxid)
        return Reply(xid, zxid, err, raw[16:])

    def read_to_end(self):
        """All bytes up to the end of the stream, and whether it was an orderly end (False: a reset)."""
        data = b""
        while True:
            try:
                piece = self.sock.recv(65536)
            except socket.timeout:
                raise AssertionError(f"still open after {self.seconds:g} s, with {len(data)} bytes: {data[:64].hex()}") from None
            except ConnectionResetError:
                return data, False
            if not piece:
                return data, True
            data += piece

    def expect_closed(self, orderly=False):
        """Nothing but the end may follow. `orderly` refuses a reset, which could have destroyed a last reply."""
        data, was_orderly = self.read_to_end()
        assert data == b"", f"{len(data)} bytes where the end was expected: {data[:64].hex()}"
        assert was_orderly or not orderly, "reset instead of an orderly end"

    def handshake(self, **fields):
        self.send(frame(connect_request(**fields)))
        return self.read_session()

    def read_session(self):
        raw = self.read_frame()
        reader = Reader(raw)
        version, timeout_ms, session = reader.int32(), reader.int32(), reader.int64()
        password = reader.buffer()
        read_only = reader.boolean() if reader.at < len(raw) else None
        reader.end()
        assert version == 0, f"protocolVersion {version}"
        self.session = Session(session, password, timeout_ms, read_only, len(raw))
        return self.session

    def next_xid(self):
        return next(self._xids)

    def post(self, op, body=b""):
        """Sends a request and returns its xid."""
        xid = self.next_xid()
        self.send(request(xid, op, body))
        return xid

    def call(self, op, body=b"", expect=OK):
        """Sends a request and returns its reply, which must be the next frame."""
        xid = self.post(op, body)
        reply = self.read()
        assert isinstance(reply, Reply), f"{reply} where a reply was expected"
        assert reply.xid == xid, f"xid {reply.xid}, want {xid}"
        if expect is not None:
            assert reply.err == expect, f"op {op}: err {reply.err}, want {expect}"
            assert reply.err == OK or reply.body == b"", f"an error reply with body {reply.body.hex()}"
        return reply

    def close_session(self):
        if self.session and self.session.id:
            self.call(CLOSE_SESSION)
        self.sock.close()

    def close(self):
        self.sock.close()
