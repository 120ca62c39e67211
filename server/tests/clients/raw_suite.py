"""The client protocol byte by byte: what a server must send, and when it must say nothing and close.

What this proves: the handshake and its refusals, framing however the bytes arrive, xids and zxids, errors for what cannot
be decoded, the results of a multi and the bytes of a notification, which changes fire which watches and in what order,
setWatches, the answers to auth, the end of sessions, four-letter words, and that no garbage stops the server.

Every expectation was checked against a running Apache ZooKeeper 3.9.5. Where this server departs from it on purpose, the
case says so and leaves the point out under `--apache`; where Apache 3.8 differs, the case says that too.

The server must allow 60 connections from this address and carry an otherwise unused tree, or at least none of our names.
With a whitelist of `*` the case about a refused word is skipped. `--sessionless-ms` is the server's sessionlessCnxnTimeout;
without it the case that waits for it is skipped.

Not here: what needs a real client around it (`kazoo_suite.py`, `c_client.sh`), addWatch, containers, TTL, reconfig.
"""

import random
import re
import socket
import sys
import time

sys.dont_write_bytecode = True  # These files are run where they lie.

import suite
import wire
from suite import Skip, alone, check_equal, four_letter_word, wait_for
from wire import Connection, Event, Reply, request

# Asked for where the case wants the longest session the server grants.
LONG_MS = 3_600_000


def open_connection(t):
    """A connection without a handshake."""
    connection = Connection(t.host, t.port)
    t.cleanup(connection.close)
    return connection


def client(t, **fields):
    """A connection with a session, closed with the case."""
    connection = open_connection(t)
    fields.setdefault("timeout_ms", LONG_MS)
    session = connection.handshake(**fields)
    assert session.id != 0 and session.timeout_ms > 0, f"refused: {session}"
    t.cleanup(connection.close_session)
    return connection


def at_root(t, connection):
    """Makes the case's root and sees to its removal; returns its path."""
    connection.call(wire.CREATE, wire.create(t.root))
    t.cleanup(lambda: remove_tree(t, t.root))
    return t.root


def remove_tree(t, root):
    connection = Connection(t.host, t.port)
    connection.handshake(timeout_ms=LONG_MS)

    def remove(path):
        reply = connection.call(wire.GET_CHILDREN, wire.watched(path), expect=None)
        for child in wire.Reader(reply.body).strings() if reply.err == wire.OK else []:
            remove(f"{path}/{child}")
        connection.call(wire.DELETE, wire.delete(path), expect=None)

    remove(root)
    connection.close_session()


def client_at_root(t):
    connection = client(t)
    return connection, at_root(t, connection)


def assert_serving(t):
    """A new client gets a session, writes and reads."""
    connection = client(t)
    path = f"{t.root}-alive"
    connection.call(wire.CREATE, wire.create(path, b"1", flags=wire.EPHEMERAL_SEQUENTIAL))
    connection.call(wire.GET_DATA, wire.watched("/"))
    connection.close_session()


def events_before(connection, path):
    """All events that arrive before a read of `path` is answered, as (kind, path). The read reflects what was done so far."""
    connection.post(wire.SYNC, wire.string(path))
    last = connection.post(wire.EXISTS, wire.watched(path))
    events = []
    while True:
        frame = connection.read()
        if isinstance(frame, Event):
            events.append((frame.kind, frame.path))
        elif frame.xid == last:
            return events


# --- the handshake ------------------------------------------------------------------------------------------------------

def test_connect_44_bytes_is_answered_with_36(t):
    connection = open_connection(t)
    body = wire.connect_request(read_only=None)
    check_equal(len(body), 44, "our own length")
    connection.send(wire.frame(body))
    session = connection.read_session()
    check_equal((session.length, session.read_only, len(session.password)), (36, None, 16))
    connection.call(wire.GET_DATA, wire.watched("/"))
    connection.close_session()


def test_connect_45_bytes_is_answered_with_37(t):
    connection = open_connection(t)
    body = wire.connect_request(read_only=0)
    check_equal(len(body), 45, "our own length")
    connection.send(wire.frame(body))
    session = connection.read_session()
    check_equal((session.length, session.read_only, len(session.password)), (37, 0, 16))
    assert session.id != 0 and session.password != bytes(16)
    connection.close_session()


def test_connect_willing_to_read_only_gets_a_full_session(t):
    connection = client(t, read_only=1)
    check_equal(connection.session.read_only, 0)
    at_root(t, connection)


def test_connect_version_and_password_of_a_new_session_are_ignored(t):
    for fields in ({"version": 7}, {"password": b""}, {"password": None}, {"password": b"x" * 20}):
        connection = client(t, **fields)
        check_equal(len(connection.session.password), 16)
        connection.call(wire.GET_DATA, wire.watched("/"))


def test_connect_timeout_is_clamped(t):
    tick = t.tick_ms
    for asked, granted in (
        (1, 2 * tick),
        (0, 2 * tick),
        (-5, 2 * tick),
        (2 * tick + 1, 2 * tick + 1),
        (5 * tick, 5 * tick),
        (20 * tick, 20 * tick),
        (20 * tick + 1, 20 * tick),
        (10_000_000, 20 * tick),
    ):
        connection = client(t, timeout_ms=asked)
        check_equal(connection.session.timeout_ms, granted, f"granted for {asked}")
        connection.close_session()


def test_connect_session_ids_differ(t):
    ids = [client(t).session.id for _ in range(10)]
    check_equal(len(set(ids)), 10, "different ids")


def test_connect_with_an_unknown_session_is_refused(t):
    for read_only, length in ((0, 37), (None, 36)):
        connection = open_connection(t)
        session = connection.handshake(session=0x0123456789ABCDEF, password=b"p" * 16, read_only=read_only)
        check_equal(session, wire.Session(0, bytes(16), 0, None if read_only is None else 0, length))
        connection.expect_closed(orderly=True)


def test_connect_with_a_wrong_password_is_refused(t):
    live = client(t)
    connection = open_connection(t)
    session = connection.handshake(session=live.session.id, password=b"wrong password!!")
    check_equal(session, wire.Session(0, bytes(16), 0, 0, 37))
    connection.expect_closed(orderly=True)
    # Deliberate deviation: Apache closes the live connection before it looks at the password.
    if t.apache is None:
        live.call(wire.GET_DATA, wire.watched("/"))
        return
    live.expect_closed()
    again = open_connection(t)
    check_equal(again.handshake(session=live.session.id, password=live.session.password).id, live.session.id)
    again.close_session()


def test_connect_with_last_zxid_ahead_is_closed(t):
    connection = open_connection(t)
    connection.send(wire.frame(wire.connect_request(last_zxid=0x7FFF_0000_0000_0000)))
    connection.expect_closed()
    live = client(t)
    connection = open_connection(t)
    connection.send(wire.frame(wire.connect_request(
        session=live.session.id, password=live.session.password, last_zxid=0x7FFF_0000_0000_0000)))
    connection.expect_closed()


def test_connect_with_last_zxid_just_seen_is_welcome(t):
    connection, root = client_at_root(t)
    zxid = connection.call(wire.SET_DATA, wire.set_data(root, b"x")).zxid
    client(t, last_zxid=zxid)
    session = connection.session
    connection.close()
    again = open_connection(t)
    check_equal(again.handshake(session=session.id, password=session.password, last_zxid=zxid).id, session.id)
    check_equal(wire.data_of(again.call(wire.GET_DATA, wire.watched(root)))[0], b"x")


def test_connect_again_keeps_id_and_password_and_renegotiates_the_timeout(t):
    connection = client(t, timeout_ms=3 * t.tick_ms)
    first = connection.session
    connection.close()
    second = open_connection(t).handshake(session=first.id, password=first.password, timeout_ms=4 * t.tick_ms)
    check_equal((second.id, second.password, second.timeout_ms), (first.id, first.password, 4 * t.tick_ms))


def test_connect_takes_over_from_an_older_connection(t):
    old, root = client_at_root(t)
    old.call(wire.CREATE, wire.create(f"{root}/e", flags=wire.EPHEMERAL))
    old.call(wire.GET_DATA, wire.watched(root, 1))
    new = open_connection(t)
    session = new.handshake(session=old.session.id, password=old.session.password)
    check_equal((session.id, session.password), (old.session.id, old.session.password))
    old.expect_closed()
    check_equal(wire.stat_of(new.call(wire.EXISTS, wire.watched(f"{root}/e"))).owner, session.id, "owner")
    # Watches belong to the connection: the reply is the next frame.
    new.call(wire.SET_DATA, wire.set_data(root, b"x"))
    old.session = None


def test_connect_again_with_requests_right_behind_it(t):
    first, root = client_at_root(t)
    session = first.session
    first.close()
    connection = open_connection(t)
    connection.send(
        wire.frame(wire.connect_request(session=session.id, password=session.password, timeout_ms=LONG_MS))
        + request(1, wire.SET_DATA, wire.set_data(root, b"early")) + request(2, wire.GET_DATA, wire.watched(root)))
    check_equal(connection.read_session().id, session.id)
    reply = connection.read()
    check_equal((reply.xid, reply.err), (1, 0))
    check_equal(wire.data_of(connection.read())[0], b"early")
    connection.close_session()


def test_connect_with_requests_right_behind_it(t):
    connection = open_connection(t)
    path = t.root
    connection.send(
        wire.frame(wire.connect_request())
        + request(1, wire.CREATE, wire.create(path, b"early", flags=wire.EPHEMERAL))
        + request(2, wire.GET_DATA, wire.watched(path))
        + request(-2, wire.PING)
    )
    session = connection.read_session()
    assert session.id != 0
    replies = [connection.read() for _ in range(3)]
    check_equal([(reply.xid, reply.err) for reply in replies], [(1, 0), (2, 0), (-2, 0)])
    data, stat = wire.data_of(replies[1])
    check_equal((data, stat.owner), (b"early", session.id))
    connection.close_session()


# --- framing ------------------------------------------------------------------------------------------------------------

def test_frames_one_byte_at_a_time(t):
    connection = open_connection(t)
    connection.send_slowly(wire.frame(wire.connect_request()))
    assert connection.read_session().id != 0
    connection.send_slowly(request(1, wire.CREATE, wire.create(t.root, b"slow", flags=wire.EPHEMERAL)))
    connection.send_slowly(request(2, wire.GET_DATA, wire.watched(t.root)))
    reply = connection.read()
    check_equal((reply.xid, reply.err), (1, 0))
    check_equal(wire.data_of(connection.read())[0], b"slow")
    connection.close_session()


def test_frames_many_in_one_segment(t):
    connection, root = client_at_root(t)
    requests, kinds = [], []
    for number in range(1, 301):
        op, body = (
            (wire.SET_DATA, wire.set_data(root, b"%d" % number)),
            (wire.GET_DATA, wire.watched(root)),
            (wire.PING, b""),
        )[number % 3]
        requests.append(request(number, op, body))
        kinds.append(op)
    connection.send(b"".join(requests))
    written, zxid = b"", 0
    for number, op in enumerate(kinds, 1):
        reply = connection.read()
        check_equal((reply.xid, reply.err), (-2 if op == wire.PING else number, 0), f"reply {number}")
        assert reply.zxid >= zxid, f"zxid went from {zxid:#x} to {reply.zxid:#x}"
        zxid = reply.zxid
        if op == wire.SET_DATA:
            written = b"%d" % number
        elif op == wire.GET_DATA and written:
            check_equal(wire.data_of(reply)[0], written, f"read {number}")


def test_frames_cut_at_every_place(t):
    connection = client(t)
    whole = request(1, wire.EXISTS, wire.watched("/")) + request(2, wire.PING)
    for cut in range(1, len(whole)):
        connection.send(whole[:cut])
        connection.send(whole[cut:])
        check_equal([connection.read().xid, connection.read().xid], [1, -2], f"cut at {cut}")


def test_frame_of_the_largest_size(t):
    connection, root = client_at_root(t)
    room = wire.FRAME_BYTES_MAX - len(request(0, 0, wire.set_data(root, b""))) + 4
    stat = wire.stat_of(connection.call(wire.SET_DATA, wire.set_data(root, b"z" * room)))
    check_equal(stat.data_length, room)
    check_equal(wire.data_of(connection.call(wire.GET_DATA, wire.watched(root)))[0], b"z" * room)
    connection.send(request(9, wire.SET_DATA, wire.set_data(root, b"z" * (room + 1)))[:4])
    connection.expect_closed()
    connection.session = None
    assert_serving(t)


def test_frame_with_trailing_bytes(t):
    connection, root = client_at_root(t)
    for op, body in (
        (wire.EXISTS, wire.watched(root)),
        (wire.SET_DATA, wire.set_data(root, b"1")),
        (wire.CREATE, wire.create(f"{root}/a")),
        (wire.MULTI, wire.multi((wire.DELETE, wire.delete(f"{root}/a")))),
        (wire.SYNC, wire.string(root)),
    ):
        connection.call(op, body + b"trailing")
    connection.send(request(7, wire.PING, b"trailing"))
    check_equal(connection.read().xid, -2)


def test_frame_never_finished_does_not_hold_up_others(t):
    other, root = client_at_root(t)
    waiting = client(t)
    unfinished = request(1, wire.GET_DATA, wire.watched(root))
    waiting.send(unfinished[:-3])
    nameless = open_connection(t)
    nameless.send(wire.frame(wire.connect_request())[:20])
    for number in range(50):
        other.call(wire.SET_DATA, wire.set_data(root, b"%d" % number))
    assert_serving(t)
    waiting.send(unfinished[-3:])
    check_equal(wire.data_of(waiting.read())[0], b"49")
    nameless.send(wire.frame(wire.connect_request())[20:])
    assert nameless.read_session().id != 0
    nameless.close_session()


def test_slow_reader_does_not_hold_up_others(t):
    other, root = client_at_root(t)
    other.call(wire.SET_DATA, wire.set_data(root, b"s" * 500_000))
    slow = client(t)
    count = 60
    slow.send(b"".join(request(number, wire.GET_DATA, wire.watched(root)) for number in range(1, count + 1)))
    for number in range(50):
        other.call(wire.CREATE, wire.create(f"{root}/{number}"))
    for number in range(1, count + 1):
        reply = slow.read()
        check_equal((reply.xid, reply.err, len(reply.body)), (number, 0, 4 + 500_000 + 68))


def test_bad_length_closes_before_the_handshake(t):
    for length in (b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x10\x00\x00", b"\x7f\xff\xff\xff", b"GET ", b"xxxx"):
        connection = open_connection(t)
        connection.send(length + b"more")
        connection.expect_closed()
    assert_serving(t)


def test_bad_length_closes_after_the_handshake(t):
    for length in (b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x10\x00\x00", b"\x7f\xff\xff\xff", b"ruok", b"srvr"):
        connection = client(t)
        connection.send(length + b"more")
        connection.expect_closed()
        connection.session = None
    assert_serving(t)


def test_truncated_connect_closes(t):
    whole = wire.connect_request()
    for length in (0, 1, 4, 12, 16, 24, 27, 28, 43):
        connection = open_connection(t)
        connection.send(wire.frame(whole[:length]))
        connection.expect_closed()
    assert_serving(t)


def test_frame_shorter_than_a_header_closes(t):
    for length in range(8):
        connection = client(t)
        connection.send(wire.frame(request(1, wire.PING)[4 : 4 + length]))
        connection.expect_closed()
        connection.session = None
    assert_serving(t)


# --- xid and zxid -------------------------------------------------------------------------------------------------------

def test_ping_is_answered_with_xid_minus_2(t):
    connection = client(t)
    for xid in (-2, 55, 0, -1, -8, 0x7FFFFFFF):
        connection.send(request(xid, wire.PING))
        reply = connection.read()
        check_equal((reply.xid, reply.err, reply.body), (-2, 0, b""))


def test_ping_waits_its_turn(t):
    connection, root = client_at_root(t)
    connection.send(
        request(1, wire.SET_DATA, wire.set_data(root, b"1"))
        + request(-2, wire.PING)
        + request(2, wire.GET_DATA, wire.watched(root))
    )
    replies = [connection.read() for _ in range(3)]
    check_equal([reply.xid for reply in replies], [1, -2, 2])
    assert replies[0].zxid <= replies[1].zxid <= replies[2].zxid


def auth(scheme, data):
    return wire.int32(0) + wire.string(scheme) + wire.buffer(data)


def users(reply):
    """What whoAmI answers, in order."""
    reader = wire.Reader(reply.body)
    count = reader.int32()
    found = sorted((reader.string(), reader.string()) for _ in range(count))
    reader.end()
    return found


def test_auth_is_answered_with_a_header_and_zxid_0(t):
    connection = client(t)
    own = ("ip", connection.sock.getsockname()[0])
    check_equal(users(connection.call(wire.WHO_AM_I)), [own])
    for xid, scheme, data in ((-4, "digest", b"u:p"), (77, "digest", b"nocolon"), (-4, "digest", b""), (-4, "ip", None)):
        connection.send(request(xid, wire.AUTH, auth(scheme, data)))
        reply = connection.read()
        check_equal((reply.xid, reply.zxid, reply.err, reply.body), (xid, 0, wire.OK, b""))
    check_equal(users(connection.call(wire.WHO_AM_I)), [("digest", ""), ("digest", "nocolon"), ("digest", "u"), own])


def test_auth_that_fails_is_answered_and_ends_the_connection(t):
    for scheme, data in (("nope", b"x"), ("world", b"anyone"), ("super", b"x"), ("digest", None), (None, b"u:p")):
        connection = open_connection(t)
        session = connection.handshake(timeout_ms=LONG_MS)
        connection.send(request(-4, wire.AUTH, auth(scheme, data)))
        reply = connection.read()
        check_equal((reply.xid, reply.zxid, reply.err, reply.body), (-4, 0, wire.AUTH_FAILED, b""), scheme)
        connection.expect_closed()
        again = client(t, session=session.id, password=session.password)
        check_equal(users(again.call(wire.WHO_AM_I)), [("ip", again.sock.getsockname()[0])], "the session lives, who it was does not")


def test_xid_is_echoed_whatever_it_is(t):
    connection, root = client_at_root(t)
    for xid in (0, -1, -2, -4, -8, -100, 1, 0x7FFFFFFF, -0x80000000):
        for op, body in (
            (wire.EXISTS, wire.watched(root)),
            (wire.SET_DATA, wire.set_data(root, b"")),
            (wire.GET_CHILDREN2, wire.watched(root)),
            (wire.SYNC, wire.string(root)),
        ):
            connection.send(request(xid, op, body))
            reader = wire.Reader(connection.read_frame())
            check_equal((reader.int32(), reader.int64() > 0, reader.int32()), (xid, True, 0), f"xid {xid}, op {op}")


def test_write_replies_carry_the_writes_own_zxid(t):
    connection, root = client_at_root(t)
    reply = connection.call(wire.CREATE2, wire.create(f"{root}/a"))
    reader = wire.Reader(reply.body)
    check_equal(reader.string(), f"{root}/a")
    check_equal(reader.stat().czxid, reply.zxid)
    reply = connection.call(wire.SET_DATA, wire.set_data(f"{root}/a", b"x"))
    check_equal(wire.stat_of(reply).mzxid, reply.zxid)
    reply = connection.call(wire.DELETE, wire.delete(f"{root}/a"))
    check_equal(wire.stat_of(connection.call(wire.EXISTS, wire.watched(root))).pzxid, reply.zxid)
    reply = connection.call(wire.MULTI, wire.multi((wire.SET_DATA, wire.set_data(root, b"y"))))
    check_equal(wire.results_of(reply)[0][1].mzxid, reply.zxid)


def test_zxid_never_goes_back_on_a_connection(t):
    reading, root = client_at_root(t)
    writing = client(t)
    zxid = 0
    for number in range(100):
        writing.post(wire.SET_DATA, wire.set_data(root, b"%d" % number))
        for op, body in ((wire.PING, b""), (wire.GET_DATA, wire.watched(root)), (wire.EXISTS, wire.watched("/nope-x"))):
            reading.post(op, body)
        for _ in range(3):
            reply = reading.read()
            assert reply.zxid >= zxid, f"{reply.zxid:#x} after {zxid:#x}"
            zxid = reply.zxid
    written = 0
    for _ in range(100):
        reply = writing.read()
        assert reply.err == 0 and reply.zxid > written
        written = reply.zxid
    reply = reading.call(wire.GET_DATA, wire.watched(root))
    check_equal(wire.data_of(reply)[1].mzxid, written)
    assert reply.zxid >= written


def test_failed_write_consumes_a_zxid(t):
    connection, root = client_at_root(t)

    def three():
        good, bad = wire.set_data(root, b""), wire.create(root)
        connection.send(
            request(1, wire.SET_DATA, good) + request(2, wire.CREATE, bad) + request(3, wire.SET_DATA, good)
            + request(4, wire.MULTI, wire.multi((wire.DELETE, wire.delete(f"{root}/none")))) + request(5, wire.SET_DATA, good)
        )
        replies = [connection.read() for _ in range(5)]
        check_equal([reply.err for reply in replies], [0, wire.NODE_EXISTS, 0, 0, 0])
        return [reply.zxid - replies[0].zxid for reply in replies] == [0, 1, 2, 3, 4]

    # Other clients' writes may come between; not every time.
    wait_for("five writes, two of them failing, with consecutive zxids", three)


def test_reads_consume_no_zxid(t):
    connection, root = client_at_root(t)

    def three():
        connection.send(
            request(1, wire.SET_DATA, wire.set_data(root, b""))
            + request(2, wire.GET_DATA, wire.watched(root, 1)) + request(3, wire.SYNC, wire.string(root))
            + request(4, wire.PING) + request(5, wire.GET_ACL, wire.string(root))
            + request(6, wire.GET_CHILDREN2, wire.watched(root)) + request(7, wire.SET_WATCHES, wire.set_watches(1 << 62))
            + request(8, wire.CREATE, wire.create(root))
        )
        replies = []
        while len(replies) < 8:
            frame = connection.read()
            if isinstance(frame, Reply):
                replies.append(frame)
        return [reply.zxid - replies[0].zxid for reply in replies] == [0] * 7 + [1]

    wait_for("six reads between two writes with consecutive zxids", three)


# --- what is refused ----------------------------------------------------------------------------------------------------

def expect_unimplemented_and_closed(connection, op, body=b""):
    connection.send(request(7, op, body))
    reply = connection.read()
    check_equal(reply, Reply(7, -1, wire.UNIMPLEMENTED, b""), f"op {op}")
    connection.expect_closed()


def test_unknown_opcodes_are_refused_and_closed(t):
    for op in (0, 10, 23, 99, 108, 200, -3, 0x7FFFFFFF, -0x80000000):
        connection = client(t)
        expect_unimplemented_and_closed(connection, op, wire.string("/"))
        # The session outlives the refusal.
        again = open_connection(t)
        check_equal(again.handshake(session=connection.session.id, password=connection.session.password).id,
                    connection.session.id)
        again.close_session()
        connection.session = None


def test_check_alone_is_refused_and_closed(t):
    t.skip_on_apache38("a lone check is logged and makes the log unreadable")
    connection, root = client_at_root(t)
    expect_unimplemented_and_closed(connection, wire.CHECK, wire.string(root) + wire.int32(0))


def test_create_session_from_a_client_is_refused_and_closed(t):
    t.skip_on_apache("createSession is accepted from a client")
    expect_unimplemented_and_closed(client(t), wire.CREATE_SESSION, wire.int32(10000))


def test_delete_container_from_a_client_is_refused_and_closed(t):
    t.skip_on_apache("deleteContainer is accepted from a client")
    connection, root = client_at_root(t)
    other = client(t)
    expect_unimplemented_and_closed(connection, wire.DELETE_CONTAINER, wire.string(root))
    other.call(wire.EXISTS, wire.watched(root))


def test_undecodable_bodies_are_marshalling_errors(t):
    connection, root = client_at_root(t)
    long_string = wire.int32(1000) + b"/short"
    negative_string = wire.int32(-2) + b"/x"
    bodies = [
        (wire.DELETE, b""), (wire.DELETE, wire.string(root)), (wire.DELETE, long_string),
        (wire.EXISTS, b""), (wire.EXISTS, wire.string(root)), (wire.EXISTS, b"\x00\x00"), (wire.EXISTS, negative_string + b"\0"),
        (wire.GET_DATA, b""), (wire.GET_DATA, wire.string(root)), (wire.GET_DATA, long_string),
        (wire.SET_DATA, b""), (wire.SET_DATA, wire.string(root) + wire.buffer(b"x")),
        (wire.SET_DATA, wire.string(root) + wire.int32(-7)), (wire.SET_DATA, wire.string(root) + wire.int32(0x7FFFFFFF)),
        (wire.GET_ACL, b""), (wire.GET_ACL, long_string),
        (wire.SET_ACL, wire.string(root)), (wire.SET_ACL, wire.string(root) + wire.int32(0x7FFFFFFF)),
        (wire.SET_ACL, wire.string(root) + wire.int32(1) + wire.int32(31)),
        (wire.GET_CHILDREN, b""), (wire.GET_CHILDREN, long_string), (wire.GET_CHILDREN2, b""),
        (wire.SYNC, b""), (wire.SYNC, long_string),
        (wire.CREATE, b""), (wire.CREATE, wire.create(f"{root}/c")[:-1]), (wire.CREATE, wire.create(f"{root}/c")[:-4]),
        (wire.CREATE2, wire.create(f"{root}/c")[:-5]),
        (wire.SET_WATCHES, b""), (wire.SET_WATCHES, wire.set_watches(0)[:-4]),
        (wire.SET_WATCHES, wire.set_watches(0, data=None)), (wire.SET_WATCHES, wire.set_watches(0, child=None)),
        (wire.SET_WATCHES, wire.int64(0) + wire.int32(0x7FFFFFFF)),
    ]
    for op, body in bodies:
        reply = connection.call(op, body, expect=None)
        check_equal((reply.err, reply.body), (wire.MARSHALLING, b""), f"op {op} with {body.hex() or 'nothing'}")
    # The connection lives on, and nothing was done.
    check_equal(wire.stat_of(connection.call(wire.EXISTS, wire.watched(root))).version, 0)
    connection.call(wire.EXISTS, wire.watched(f"{root}/c"), expect=wire.NO_NODE)


def test_negative_vector_counts_are_empty_vectors(t):
    connection, root = client_at_root(t)
    connection.call(wire.SET_WATCHES, wire.int64(0) + wire.int32(-7) * 3)
    connection.call(wire.SET_ACL, wire.string(root) + wire.int32(-5) + wire.int32(-1), expect=wire.INVALID_ACL)
    connection.call(wire.SET_ACL, wire.string(root) + wire.int32(-1) + wire.int32(-1), expect=wire.INVALID_ACL)
    connection.call(wire.CREATE, wire.create(f"{root}/a", acls=wire.vector(None)), expect=wire.INVALID_ACL)


def test_null_paths(t):
    connection = client(t)
    for op, body, err in (
        (wire.EXISTS, wire.watched(None), wire.MARSHALLING),
        (wire.GET_DATA, wire.watched(None), wire.MARSHALLING),
        (wire.GET_CHILDREN, wire.watched(None), wire.MARSHALLING),
        (wire.GET_CHILDREN2, wire.watched(None), wire.MARSHALLING),
        (wire.CREATE, wire.create(None), wire.MARSHALLING),
        (wire.CREATE2, wire.create(None), wire.MARSHALLING),
        (wire.DELETE, wire.delete(None), wire.MARSHALLING),
        (wire.SET_DATA, wire.set_data(None, b""), wire.BAD_ARGUMENTS),
        (wire.SET_ACL, wire.set_acl(None, wire.OPEN), wire.BAD_ARGUMENTS),
        (wire.GET_ACL, wire.string(None), wire.MARSHALLING),
        (wire.SET_WATCHES, wire.set_watches(0, data=[None]), wire.MARSHALLING),
        (wire.SET_WATCHES, wire.set_watches(0, exist=[None]), wire.MARSHALLING),
    ):
        reply = connection.call(op, body, expect=None)
        check_equal((reply.err, reply.body), (err, b""), f"op {op}")
    check_equal(connection.call(wire.SYNC, wire.string(None)).body, wire.int32(-1), "sync's echo")
    for op, body in (
        (wire.CREATE, wire.create(None)), (wire.DELETE, wire.delete(None)), (wire.SET_DATA, wire.set_data(None, b"")),
        (wire.CHECK, wire.string(None) + wire.int32(-1)),
    ):
        reply = connection.call(wire.MULTI, wire.multi((op, body)), expect=None)
        # 3.8 adds the body of an empty MultiResponse.
        check_equal((reply.err, b"" if t.apache38 else reply.body), (wire.MARSHALLING, b""), f"op {op} in a multi")


def test_null_in_an_acl(t):
    connection, root = client_at_root(t)
    for acl in (wire.acl(31, None, "anyone"), wire.acl(31, None, None)):
        connection.call(wire.CREATE, wire.create(f"{root}/a", acls=wire.vector([acl], bytes)), expect=wire.INVALID_ACL)
        connection.call(wire.SET_ACL, wire.set_acl(root, wire.vector([acl], bytes)), expect=wire.INVALID_ACL)
    # Apache trips over a null id of scheme world (-5); refusing it as an invalid ACL is what it does for a null scheme.
    nobody = wire.vector([wire.acl(31, "world", None)], bytes)
    reply = connection.call(wire.CREATE, wire.create(f"{root}/a", acls=nobody), expect=None)
    assert reply.err in (wire.MARSHALLING, wire.INVALID_ACL) and reply.body == b"", reply
    connection.call(wire.EXISTS, wire.watched(f"{root}/a"), expect=wire.NO_NODE)


def test_ill_formed_paths(t):
    connection, root = client_at_root(t)
    connection.call(wire.CREATE, wire.create(f"{root}/a"))
    for path in ("", "relative", f"{root}/nul\0", f"{root}//b", f"{root}/a/", f"{root}/.", f"{root}/..", f"{root}/./b"):
        for op in (wire.SET_DATA, wire.SET_ACL):
            body = wire.set_data(path, b"") if op == wire.SET_DATA else wire.set_acl(path, wire.OPEN)
            connection.call(op, body, expect=wire.BAD_ARGUMENTS)
    for path, err in (
        ("", wire.BAD_ARGUMENTS), ("relative", wire.BAD_ARGUMENTS), (f"{root}/nul\0", wire.BAD_ARGUMENTS),
        ("/", wire.BAD_ARGUMENTS), ("/zookeeper", wire.BAD_ARGUMENTS), ("/zookeeper/quota", wire.BAD_ARGUMENTS),
        ("/zookeeper/config", wire.BAD_ARGUMENTS), (f"{root}/", wire.NO_NODE), (f"{root}/a/", wire.NO_NODE),
    ):
        reply = connection.call(wire.DELETE, wire.delete(path), expect=None)
        check_equal(reply.err, err, f"delete {path!r}")
    for path, err in ((f"{root}/nul\0", wire.BAD_ARGUMENTS), ("relative", wire.NO_NODE), (f"{root}/", wire.NO_NODE)):
        reply = connection.call(wire.EXISTS, wire.watched(path), expect=None)
        check_equal(reply.err, err, f"exists {path!r}")
    for path in ("relative", f"{root}/", f"{root}//a"):
        connection.call(wire.GET_DATA, wire.watched(path), expect=wire.NO_NODE)
        connection.call(wire.GET_CHILDREN, wire.watched(path), expect=wire.NO_NODE)
    for path in ("", "relative", f"{root}//", "/no/such/node"):
        check_equal(connection.call(wire.SYNC, wire.string(path)).body, wire.string(path), "sync's echo")


def test_paths_that_are_not_proper_utf8(t):
    connection, root = client_at_root(t)
    for name in (
        b"\xff", b"\xc3", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf0\x9f\x98\x80",
        b"\xf4\x90\x80\x80", b"\x80",
    ):
        reply = connection.call(wire.CREATE, wire.create(root.encode() + b"/a" + name), expect=None)
        check_equal(reply.err, wire.BAD_ARGUMENTS, f"create {name.hex()}")
    check_equal(wire.Reader(connection.call(wire.GET_CHILDREN, wire.watched(root)).body).strings(), [])


def test_create_flags(t):
    connection, root = client_at_root(t)
    for op in (wire.CREATE, wire.CREATE2):
        for flags in (7, -1, 100, 0x7FFFFFFF):
            connection.call(op, wire.create(f"{root}/f", flags=flags), expect=wire.BAD_ARGUMENTS)
        for flags in (5, 6):  # TTL, which is off unless the server is told otherwise; the opcode is the wrong one besides
            reply = connection.call(op, wire.create(f"{root}/f", flags=flags), expect=None)
            assert reply.err in (wire.UNIMPLEMENTED, wire.BAD_ARGUMENTS) and reply.body == b"", reply
    connection.call(wire.EXISTS, wire.watched(f"{root}/f"), expect=wire.NO_NODE)


def test_any_non_zero_byte_is_true(t):
    connection, root = client_at_root(t)
    connection.call(wire.GET_DATA, wire.watched(root, 7))
    connection.post(wire.SET_DATA, wire.set_data(root, b"x"))
    check_equal(connection.read()[:3], (wire.NODE_DATA_CHANGED, 3, root))


def test_null_and_empty_data(t):
    connection, root = client_at_root(t)
    for number, data in enumerate((None, b"", b"x")):
        path = f"{root}/{number}"
        connection.call(wire.CREATE, wire.create(path, data))
        got, stat = wire.data_of(connection.call(wire.GET_DATA, wire.watched(path)))
        check_equal((got, stat.data_length), (data, len(data or b"")))
        for other in (b"", None, b"y", data):
            connection.call(wire.SET_DATA, wire.set_data(path, other))
            got, stat = wire.data_of(connection.call(wire.GET_DATA, wire.watched(path)))
            check_equal((got, stat.data_length), (other, len(other or b"")))


# --- multi --------------------------------------------------------------------------------------------------------------

def test_multi_failure_bytes(t):
    connection, root = client_at_root(t)
    reply = connection.call(wire.MULTI, wire.multi(
        (wire.CREATE, wire.create(f"{root}/a")),
        (wire.SET_DATA, wire.set_data(f"{root}/missing", b"")),
        (wire.DELETE, wire.delete(root)),
    ))
    check_equal(reply.body.hex(" "), bytes.fromhex(
        "ffffffff 00 00000000 00000000"
        "ffffffff 00 ffffff9b ffffff9b"
        "ffffffff 00 fffffffe fffffffe"
        "ffffffff 01 ffffffff"
    ).hex(" "))
    connection.call(wire.EXISTS, wire.watched(f"{root}/a"), expect=wire.NO_NODE)


def test_multi_success_bytes(t):
    connection, root = client_at_root(t)
    ops = [
        (wire.CREATE, wire.create(f"{root}/a", b"1")),
        (wire.CREATE2, wire.create(f"{root}/b-", flags=wire.SEQUENTIAL)),
        (wire.SET_DATA, wire.set_data(f"{root}/a", b"22", 0)),
        (wire.CHECK, wire.string(f"{root}/a") + wire.int32(1)),
        (wire.DELETE, wire.delete(f"{root}/a", 1)),
    ]
    reply = connection.call(wire.MULTI, wire.multi(*ops))
    results = wire.results_of(reply)
    if t.apache38:  # ZOOKEEPER-4026: 3.8 answers create2 as create.
        check_equal(results[1], (wire.CREATE, f"{root}/b-0000000001"))
    else:
        check_equal(results[1][0], wire.CREATE2)
        path, stat = results[1][1]
        check_equal((path, stat.czxid, stat.version), (f"{root}/b-0000000001", reply.zxid, 0))
    check_equal(results[0], (wire.CREATE, f"{root}/a"))
    check_equal(results[2][0], wire.SET_DATA)
    check_equal(results[2][1]._replace(ctime=0, mtime=0), wire.Stat(
        czxid=reply.zxid, mzxid=reply.zxid, ctime=0, mtime=0, version=1, cversion=0, aversion=0, owner=0,
        data_length=2, num_children=0, pzxid=reply.zxid))
    check_equal(results[3:], [(wire.CHECK, None), (wire.DELETE, None)])
    # A result header is type, done, err: 9 bytes; each result's type is the request's.
    reader = wire.Reader(reply.body)
    check_equal((reader.int32(), reader.boolean(), reader.int32()), (1, 0, 0))


def test_multi_empty(t):
    connection, root = client_at_root(t)

    def consumes_a_zxid():
        write = wire.set_data(root, b"")
        connection.send(
            request(1, wire.SET_DATA, write) + request(2, wire.MULTI, wire.MULTI_END) + request(3, wire.SET_DATA, write))
        replies = [connection.read() for _ in range(3)]
        check_equal((replies[1].err, replies[1].body.hex()), (0, "ffffffff01ffffffff"))
        return [reply.zxid - replies[0].zxid for reply in replies] == [0, 1, 2]

    wait_for("an empty multi between two writes with consecutive zxids", consumes_a_zxid)


def test_multi_headers_are_read_loosely(t):
    connection, root = client_at_root(t)
    body = wire.string(root) + wire.int32(-1)
    connection.call(wire.MULTI, wire.multi_header(wire.CHECK, 0, 5) + body + wire.multi_header(0, 1, 0))
    connection.call(wire.MULTI, wire.multi_header(wire.CHECK, 0, -1) + body + wire.multi_header(99, 7, 5) + b"trailing")


def test_multi_that_does_not_decode(t):
    connection, root = client_at_root(t)
    good = wire.multi_header(wire.SET_DATA, 0) + wire.set_data(root, b"x")
    bodies = {
        "nothing": b"",
        "no terminator": good,
        "half a terminator": good + wire.MULTI_END[:-1],
        "a truncated op": good[:-2],
        "a read": good + wire.multi_header(wire.GET_DATA, 0) + wire.watched(root) + wire.MULTI_END,
        "only a read": wire.multi((wire.GET_DATA, wire.watched(root))),
        "exists": wire.multi((wire.EXISTS, wire.watched(root))),
        "getChildren": good + wire.multi_header(wire.GET_CHILDREN, 0) + wire.watched(root) + wire.MULTI_END,
        "setACL": wire.multi((wire.SET_ACL, wire.set_acl(root, wire.OPEN))),
        "deleteContainer": wire.multi((wire.DELETE_CONTAINER, wire.string(root))),
        "an unknown op": wire.multi((99, wire.string(root))),
        "a multi": wire.multi((wire.MULTI, wire.MULTI_END)),
        "closeSession": wire.multi((wire.CLOSE_SESSION, b"")),
    }
    for what, body in bodies.items():
        reply = connection.call(wire.MULTI, body, expect=None)
        check_equal((reply.err, reply.body), (wire.MARSHALLING, b""), what)
    check_equal(wire.stat_of(connection.call(wire.EXISTS, wire.watched(root))).version, 0, "version")


def test_multi_with_an_unknown_create_flag(t):
    connection, root = client_at_root(t)
    reply = connection.call(
        wire.MULTI, wire.multi((wire.CREATE, wire.create(f"{root}/a", flags=7))), expect=None)
    if t.apache38:
        check_equal(wire.results_of(reply), [(wire.ERROR, wire.BAD_ARGUMENTS)])
    else:
        check_equal((reply.err, reply.body), (wire.MARSHALLING, b""))


def test_multi_errors_of_each_kind(t):
    connection, root = client_at_root(t)
    connection.call(wire.CREATE, wire.create(f"{root}/a"))
    connection.call(wire.CREATE, wire.create(f"{root}/a/b"))
    connection.call(wire.CREATE, wire.create(f"{root}/e", flags=wire.EPHEMERAL))
    ok = (wire.CHECK, wire.string(root) + wire.int32(-1))
    for op, body, err in (
        (wire.CREATE, wire.create(f"{root}/a"), wire.NODE_EXISTS),
        (wire.CREATE, wire.create(f"{root}/x/y"), wire.NO_NODE),
        (wire.CREATE, wire.create(f"{root}/e/y"), wire.NO_CHILDREN_FOR_EPHEMERALS),
        (wire.CREATE, wire.create(f"{root}//y"), wire.NO_NODE),
        (wire.CREATE, wire.create(f"{root}/.."), wire.BAD_ARGUMENTS),
        (wire.CREATE, wire.create(f"{root}/y", acls=wire.vector([])), wire.INVALID_ACL),
        (wire.CREATE2, wire.create(f"{root}/a"), wire.NODE_EXISTS),
        (wire.DELETE, wire.delete(f"{root}/a"), wire.NOT_EMPTY),
        (wire.DELETE, wire.delete(f"{root}/a", 3), wire.BAD_VERSION),
        (wire.DELETE, wire.delete(f"{root}/x"), wire.NO_NODE),
        (wire.SET_DATA, wire.set_data(f"{root}/a", b"", 3), wire.BAD_VERSION),
        (wire.SET_DATA, wire.set_data(f"{root}/x", b""), wire.NO_NODE),
        (wire.SET_DATA, wire.set_data(f"{root}/", b""), wire.BAD_ARGUMENTS),
        (wire.CHECK, wire.string(f"{root}/a") + wire.int32(3), wire.BAD_VERSION),
        (wire.CHECK, wire.string(f"{root}/x") + wire.int32(-1), wire.NO_NODE),
        (wire.CHECK, wire.string(f"{root}/") + wire.int32(-1), wire.BAD_ARGUMENTS),
    ):
        reply = connection.call(wire.MULTI, wire.multi(ok, (op, body), ok))
        check_equal(wire.results_of(reply), [(-1, 0), (-1, err), (-1, wire.RUNTIME_INCONSISTENCY)], f"op {op}, {err}")


# --- notifications and watches ------------------------------------------------------------------------------------------

def test_notification_bytes(t):
    watching, root = client_at_root(t)
    watching.call(wire.GET_DATA, wire.watched(root, 1))
    zxid = client(t).call(wire.SET_DATA, wire.set_data(root, b"x")).zxid
    path = root.encode()
    # Before ZOOKEEPER-4655 (3.9.0) the zxid was always -1.
    want = wire.int32(-1) + wire.int64(-1 if t.apache38 else zxid) + wire.int32(0)
    want += wire.int32(3) + wire.int32(3) + wire.int32(len(path)) + path
    check_equal(watching.read_frame().hex(), want.hex())


def test_notification_of_a_catch_up_has_zxid_minus_1(t):
    connection, root = client_at_root(t)
    connection.post(wire.SET_WATCHES, wire.set_watches(0, data=[root]))
    check_equal(connection.read(), Event(wire.NODE_DATA_CHANGED, 3, root, -1))
    check_equal(connection.read().err, 0)


def test_watch_kinds_and_what_fires_them(t):
    """Which change fires which one-shot watch, one row at a time."""
    watching, root = client_at_root(t)
    acting = client(t)
    node, child, missing = f"{root}/n", f"{root}/n/c", f"{root}/m"

    def create(path):
        acting.call(wire.CREATE, wire.create(path))

    def delete(path):
        acting.call(wire.DELETE, wire.delete(path))

    def change(path):
        acting.call(wire.SET_DATA, wire.set_data(path, b""))

    def change_acl(path):
        acting.call(wire.SET_ACL, wire.set_acl(path, wire.OPEN))

    kinds = {
        "getData": wire.GET_DATA, "exists": wire.EXISTS, "getChildren": wire.GET_CHILDREN, "getChildren2": wire.GET_CHILDREN2,
    }
    created, deleted, changed, children = 1, 2, 3, 4
    rows = [
        ("getData", node, change, node, [(changed, node)]),
        ("getData", node, delete, node, [(deleted, node)]),
        ("getData", node, create, child, []),
        ("getData", node, change_acl, node, []),
        ("exists", node, change, node, [(changed, node)]),
        ("exists", node, delete, node, [(deleted, node)]),
        ("exists", node, create, child, []),
        ("exists", missing, create, missing, [(created, missing)]),
        ("getChildren", node, create, child, [(children, node)]),
        ("getChildren", node, change, node, []),
        ("getChildren", node, delete, node, [(deleted, node)]),
        ("getChildren2", node, create, child, [(children, node)]),
        ("getChildren2", node, delete, node, [(deleted, node)]),
        ("getChildren", root, change, node, []),
        ("getChildren", root, create, child, []),
        ("getChildren", root, delete, node, [(children, root)]),
        ("getChildren", root, create, missing, [(children, root)]),
    ]
    for kind, watched, act, acted_on, events in rows:
        create(node)
        watching.call(kinds[kind], wire.watched(watched, 1), expect=wire.NO_NODE if watched == missing else wire.OK)
        act(acted_on)
        what = f"{kind} watch on {watched}, then {act.__name__} {acted_on}"
        check_equal(events_before(watching, acted_on), events, what)
        # One shot: nothing more comes when everything is cleaned away (a watch that did not fire is used up by this).
        for path in (child, node, missing):
            acting.call(wire.DELETE, wire.delete(path), expect=None)
        late = events_before(watching, node)
        if events:
            check_equal(late, [], f"{what}, a second time")


def test_watch_on_a_missing_node(t):
    watching, root = client_at_root(t)
    acting = client(t)
    path = f"{root}/m"
    for op in (wire.GET_DATA, wire.GET_CHILDREN, wire.GET_CHILDREN2):
        watching.call(op, wire.watched(path, 1), expect=wire.NO_NODE)
    acting.call(wire.CREATE, wire.create(path))
    acting.call(wire.DELETE, wire.delete(path))
    check_equal(events_before(watching, path), [], "only exists registers on a missing node")
    watching.call(wire.EXISTS, wire.watched(path, 1), expect=wire.NO_NODE)
    acting.call(wire.CREATE, wire.create(path))
    check_equal(events_before(watching, path), [(wire.NODE_CREATED, path)])


def test_watches_of_one_connection_count_once(t):
    watching, root = client_at_root(t)
    acting = client(t)
    watching.call(wire.GET_DATA, wire.watched(root, 1))
    watching.call(wire.GET_DATA, wire.watched(root, 1))
    watching.call(wire.EXISTS, wire.watched(root, 1))
    acting.call(wire.SET_DATA, wire.set_data(root, b"1"))
    acting.call(wire.SET_DATA, wire.set_data(root, b"2"))
    check_equal(events_before(watching, root), [(wire.NODE_DATA_CHANGED, root)])


def test_one_node_deleted_per_connection(t):
    watching, root = client_at_root(t)
    acting = client(t)
    path = f"{root}/n"
    acting.call(wire.CREATE, wire.create(path))
    watching.call(wire.GET_DATA, wire.watched(path, 1))
    watching.call(wire.GET_CHILDREN, wire.watched(path, 1))
    watching.call(wire.GET_CHILDREN, wire.watched(root, 1))
    acting.call(wire.DELETE, wire.delete(path))
    acting.call(wire.CREATE, wire.create(path))
    acting.call(wire.CREATE, wire.create(f"{path}/c"))
    check_equal(events_before(watching, path), [(wire.NODE_DELETED, path), (wire.NODE_CHILDREN_CHANGED, root)])


def test_watch_without_the_flag_is_none(t):
    watching, root = client_at_root(t)
    for op in (wire.GET_DATA, wire.EXISTS, wire.GET_CHILDREN, wire.GET_CHILDREN2):
        watching.call(op, wire.watched(root, 0))
    acting = client(t)
    acting.call(wire.SET_DATA, wire.set_data(root, b"1"))
    acting.call(wire.CREATE, wire.create(f"{root}/a"))
    check_equal(events_before(watching, root), [])


def test_event_comes_before_the_writers_own_reply(t):
    connection, root = client_at_root(t)
    path = f"{root}/n"
    connection.call(wire.EXISTS, wire.watched(path, 1), expect=wire.NO_NODE)
    connection.call(wire.GET_CHILDREN, wire.watched(root, 1))
    connection.post(wire.CREATE, wire.create(path))
    frames = [connection.read() for _ in range(3)]
    check_equal([frame[0] if isinstance(frame, Event) else "reply" for frame in frames],
                [wire.NODE_CREATED, wire.NODE_CHILDREN_CHANGED, "reply"])
    if not t.apache38:
        check_equal([frame.zxid for frame in frames], [frames[2].zxid] * 3, "zxids")
    connection.call(wire.GET_DATA, wire.watched(path, 1))
    connection.send(request(50, wire.SET_DATA, wire.set_data(path, b"x")) + request(51, wire.GET_DATA, wire.watched(path)))
    kinds = [type(connection.read()).__name__ for _ in range(3)]
    check_equal(kinds, ["Event", "Reply", "Reply"])


def test_event_comes_before_anyones_read_of_the_change(t):
    """R3: pipelined reads race with another client's writes; no read shows a change whose event has not come."""
    watching, root = client_at_root(t)
    acting = client(t)
    for number in range(200):
        watching.call(wire.GET_DATA, wire.watched(root, 1))
        acting.post(wire.SET_DATA, wire.set_data(root, b"%d" % number))
        for _ in range(4):
            watching.post(wire.GET_DATA, wire.watched(root))
        told, replies = False, 0
        while replies < 4:
            frame = watching.read()
            if isinstance(frame, Event):
                assert not told, "a second event"
                told = True
                continue
            replies += 1
            seen = wire.data_of(frame)[0] == b"%d" % number
            assert told or not seen, f"round {number}: the new data came before its event"
        check_equal(acting.read().err, 0)
        if not told:
            check_equal(watching.read()[:3], (wire.NODE_DATA_CHANGED, 3, root))


def test_events_come_in_the_order_of_the_changes(t):
    watching, root = client_at_root(t)
    acting = client(t)
    paths = [f"{root}/{number}" for number in range(30)]
    for path in paths:
        acting.call(wire.CREATE, wire.create(path))
    for path in paths:
        watching.call(wire.GET_DATA, wire.watched(path, 1))
    order = list(paths)
    random.Random(1).shuffle(order)
    for path in order:
        acting.post(wire.SET_DATA, wire.set_data(path, b"x"))
    events = [watching.read() for _ in order]
    check_equal([event.path for event in events], order)
    if not t.apache38:
        check_equal([event.zxid for event in events], [acting.read().zxid for _ in order], "zxids")


def test_events_of_a_multi(t):
    watching, root = client_at_root(t)
    acting = client(t)
    new, changed, gone = f"{root}/new", f"{root}/changed", f"{root}/gone"
    acting.call(wire.CREATE, wire.create(changed))
    acting.call(wire.CREATE, wire.create(gone))
    watching.call(wire.EXISTS, wire.watched(new, 1), expect=wire.NO_NODE)
    watching.call(wire.GET_DATA, wire.watched(changed, 1))
    watching.call(wire.GET_DATA, wire.watched(gone, 1))
    failing = [(wire.CREATE, wire.create(new)), (wire.SET_DATA, wire.set_data(changed, b"")), (wire.DELETE, wire.delete(gone, 9))]
    check_equal(wire.results_of(acting.call(wire.MULTI, wire.multi(*failing)))[2], (-1, wire.BAD_VERSION))
    check_equal(events_before(watching, root), [], "a failed multi")
    reply = acting.call(wire.MULTI, wire.multi(*failing[:2], (wire.DELETE, wire.delete(gone))))
    events = [watching.read() for _ in range(3)]
    check_equal([event[:3] for event in events], [(1, 3, new), (3, 3, changed), (2, 3, gone)])
    if not t.apache38:
        check_equal([event.zxid for event in events], [reply.zxid] * 3, "zxids")


def test_events_of_a_closing_session(t):
    watching, root = client_at_root(t)
    owner = client(t)
    paths = [f"{root}/e{number}" for number in range(3)]
    for path in paths:
        owner.call(wire.CREATE, wire.create(path, flags=wire.EPHEMERAL))
        watching.call(wire.EXISTS, wire.watched(path, 1))
    watching.call(wire.GET_CHILDREN, wire.watched(root, 1))
    zxid = owner.call(wire.CLOSE_SESSION).zxid
    owner.session = None
    events = [watching.read() for _ in range(4)]
    check_equal(sorted(event.path for event in events), [root, *paths])
    # The parent's one-shot watch fires with the first of them; their order is left open.
    check_equal([event.kind for event in events], [2, 4, 2, 2])
    if not t.apache38:
        check_equal([event.zxid for event in events], [zxid] * 4, "zxids")
    check_equal(events_before(watching, root), [])


def test_events_need_read_permission(t):
    watching, root = client_at_root(t)
    acting = client(t)
    path = f"{root}/hidden"
    unreadable = wire.vector([wire.acl(wire.ALL & ~wire.READ)], bytes)
    watching.call(wire.EXISTS, wire.watched(path, 1), expect=wire.NO_NODE)
    acting.call(wire.CREATE, wire.create(path, acls=unreadable))
    check_equal(events_before(watching, root), [], "creation of an unreadable node")
    # The watch is used up all the same.
    acting.call(wire.DELETE, wire.delete(path))
    acting.call(wire.CREATE, wire.create(path))
    check_equal(events_before(watching, path), [])
    watching.call(wire.GET_CHILDREN, wire.watched(path, 1))
    acting.call(wire.SET_ACL, wire.set_acl(path, unreadable))
    acting.call(wire.CREATE, wire.create(f"{path}/c"))
    check_equal(events_before(watching, root), [], "a child below an unreadable node")
    acting.call(wire.SET_ACL, wire.set_acl(path, wire.OPEN))


# --- setWatches ---------------------------------------------------------------------------------------------------------

def test_set_watches_registers_quietly_when_nothing_changed(t):
    connection, root = client_at_root(t)
    node, missing = f"{root}/n", f"{root}/m"
    connection.call(wire.CREATE, wire.create(node))
    zxid = connection.call(wire.GET_DATA, wire.watched(node)).zxid
    session = connection.session
    connection.close()
    connection.session = None
    connection = open_connection(t)
    connection.handshake(session=session.id, password=session.password, last_zxid=zxid, timeout_ms=LONG_MS)
    t.cleanup(connection.close_session)
    for xid in (-8, 77):  # the C client's, and what Java and Go send
        connection.send(request(xid, wire.SET_WATCHES, wire.set_watches(zxid, [node], [missing], [root, node])))
        reply = connection.read()
        check_equal((reply[0], reply[2:]), (xid, (0, b"")), "no event, only the reply")
    acting = client(t)
    acting.call(wire.SET_DATA, wire.set_data(node, b"x"))
    acting.call(wire.CREATE, wire.create(missing))
    acting.call(wire.CREATE, wire.create(f"{node}/c"))
    check_equal(events_before(connection, node), [
        (wire.NODE_DATA_CHANGED, node), (wire.NODE_CREATED, missing), (wire.NODE_CHILDREN_CHANGED, root),
        (wire.NODE_CHILDREN_CHANGED, node)])


def test_set_watches_catches_up_before_its_reply(t):
    connection, root = client_at_root(t)
    acting = client(t)
    names = ("changed", "gone", "appeared", "still-missing", "parent", "lost-parent", "same")
    changed, gone, appeared, missing, parent, lost_parent, same = (f"{root}/{name}" for name in names)
    for path in (changed, gone, parent, lost_parent, same):
        acting.call(wire.CREATE, wire.create(path))
    zxid = connection.call(wire.GET_DATA, wire.watched(root)).zxid
    acting.call(wire.SET_DATA, wire.set_data(changed, b"x"))
    acting.call(wire.DELETE, wire.delete(gone))
    acting.call(wire.CREATE, wire.create(appeared))
    acting.call(wire.CREATE, wire.create(f"{parent}/c"))
    acting.call(wire.DELETE, wire.delete(lost_parent))
    connection.send(request(5, wire.SET_WATCHES, wire.set_watches(
        zxid, data=[changed, gone, same], exist=[appeared, missing], child=[parent, lost_parent, same])))
    frames = [connection.read() for _ in range(6)]
    want = [(wire.NODE_DATA_CHANGED, changed), (wire.NODE_DELETED, gone), (wire.NODE_CREATED, appeared),
            (wire.NODE_CHILDREN_CHANGED, parent), (wire.NODE_DELETED, lost_parent)]
    check_equal([(frame.kind, frame.path) for frame in frames[:5]], want)
    check_equal([frame.zxid for frame in frames[:5]], [-1] * 5, "zxids")
    check_equal((frames[5].xid, frames[5].err), (5, 0), "the reply")
    # What was answered is not registered, the rest is.
    acting.call(wire.SET_DATA, wire.set_data(changed, b"y"))
    acting.call(wire.SET_DATA, wire.set_data(appeared, b"y"))
    acting.call(wire.DELETE, wire.delete(f"{parent}/c"))
    check_equal(events_before(connection, parent), [])
    acting.call(wire.SET_DATA, wire.set_data(same, b"y"))
    acting.call(wire.CREATE, wire.create(missing))
    acting.call(wire.CREATE, wire.create(f"{same}/c"))
    check_equal(events_before(connection, same), [
        (wire.NODE_DATA_CHANGED, same), (wire.NODE_CREATED, missing), (wire.NODE_CHILDREN_CHANGED, same)])


def test_set_watches_sees_deleted_children(t):
    """pzxid must move when a child goes, also when it goes with its session (ZOOKEEPER-3145)."""
    connection, root = client_at_root(t)
    owner = client(t)
    owner.call(wire.CREATE, wire.create(f"{root}/e", flags=wire.EPHEMERAL))
    zxid = connection.call(wire.GET_CHILDREN, wire.watched(root)).zxid
    owner.close_session()
    owner.session = None
    connection.post(wire.SET_WATCHES, wire.set_watches(zxid, child=[root]))
    check_equal(connection.read()[:3], (wire.NODE_CHILDREN_CHANGED, 3, root))
    check_equal(connection.read().err, 0)


def test_set_watches_with_many_long_paths(t):
    connection, root = client_at_root(t)
    paths = [f"{root}/{number:04}-{'x' * 100}" for number in range(5000)]
    connection.call(wire.SET_WATCHES, wire.set_watches(0, exist=paths))
    acting = client(t)
    for path in (paths[0], paths[2500], paths[-1]):
        acting.call(wire.CREATE, wire.create(path))
        check_equal(events_before(connection, path), [(wire.NODE_CREATED, path)])


def test_watches_end_with_their_connection(t):
    connection, root = client_at_root(t)
    acting = client(t)
    connection.call(wire.GET_DATA, wire.watched(root, 1))
    session = connection.session
    connection.close()
    again = open_connection(t)
    again.handshake(session=session.id, password=session.password)
    acting.call(wire.SET_DATA, wire.set_data(root, b"x"))
    check_equal(events_before(again, root), [])


# --- the end of sessions ------------------------------------------------------------------------------------------------

def test_close_session_is_answered_then_the_stream_ends(t):
    other, root = client_at_root(t)
    connection = client(t)
    path = f"{root}/e"
    connection.call(wire.CREATE, wire.create(path, flags=wire.EPHEMERAL))
    reply = connection.call(wire.CLOSE_SESSION)
    check_equal(reply.body, b"")
    connection.expect_closed(orderly=True)
    other.call(wire.EXISTS, wire.watched(path), expect=wire.NO_NODE)
    check_equal(wire.stat_of(other.call(wire.EXISTS, wire.watched(root))).pzxid, reply.zxid, "pzxid")
    again = open_connection(t)
    check_equal(again.handshake(session=connection.session.id, password=connection.session.password).timeout_ms, 0)
    again.expect_closed(orderly=True)
    connection.session = None


def test_close_session_comes_last(t):
    other, root = client_at_root(t)
    connection = client(t)
    connection.send(
        request(1, wire.CREATE, wire.create(f"{root}/before"))
        + request(2, wire.CLOSE_SESSION)
        + request(3, wire.CREATE, wire.create(f"{root}/after"))
    )
    check_equal([(reply.xid, reply.err) for reply in (connection.read(), connection.read())], [(1, 0), (2, 0)])
    rest, _ = connection.read_to_end()
    # Apache may still answer -112 to what comes behind; here it is dropped.
    assert rest == b"" or t.apache is not None, f"{len(rest)} bytes behind the reply to closeSession"
    other.call(wire.EXISTS, wire.watched(f"{root}/before"))
    other.call(wire.EXISTS, wire.watched(f"{root}/after"), expect=wire.NO_NODE)
    connection.session = None


def test_session_outlives_its_connection(t):
    other, root = client_at_root(t)
    connection = client(t)
    session = connection.session
    path = f"{root}/e"
    connection.call(wire.CREATE, wire.create(path, flags=wire.EPHEMERAL))
    connection.close()
    again = open_connection(t)
    again.handshake(session=session.id, password=session.password)
    check_equal(wire.stat_of(again.call(wire.EXISTS, wire.watched(path))).owner, session.id)
    other.call(wire.EXISTS, wire.watched(path))
    again.close_session()
    other.call(wire.EXISTS, wire.watched(path), expect=wire.NO_NODE)
    connection.session = None


def test_session_expires_without_a_word(t):
    other, root = client_at_root(t)
    connection = open_connection(t)
    connection.seconds = 30
    connection.sock.settimeout(30)
    session = connection.handshake(timeout_ms=2 * t.tick_ms)
    timeout = session.timeout_ms / 1000
    path = f"{root}/e"
    connection.call(wire.CREATE, wire.create(path, flags=wire.EPHEMERAL))
    other.call(wire.EXISTS, wire.watched(path, 1))
    before = time.monotonic()
    connection.send(request(-2, wire.PING))
    check_equal(connection.read().xid, -2)
    after = time.monotonic()
    connection.expect_closed()
    now = time.monotonic()
    assert now - before >= timeout, f"expired {now - before:.2f} s after a ping, the timeout is {timeout:g} s"
    assert now - after <= timeout + 2 * t.tick + suite.SCHEDULING_SECONDS, f"expired only after {now - after:.2f} s"
    other.sock.settimeout(10)
    check_equal(other.read()[:3], (wire.NODE_DELETED, 3, path))
    other.call(wire.EXISTS, wire.watched(path), expect=wire.NO_NODE)
    again = open_connection(t)
    check_equal(again.handshake(session=session.id, password=session.password).timeout_ms, 0)
    again.expect_closed(orderly=True)


def test_pings_keep_a_session_alive(t):
    connection = client(t, timeout_ms=2 * t.tick_ms)
    end = time.monotonic() + 4.5 * t.tick
    while time.monotonic() < end:
        connection.send(request(-2, wire.PING))
        check_equal(connection.read().xid, -2)
        time.sleep(t.tick / 2)
    connection.call(wire.GET_DATA, wire.watched("/"))


def test_reads_keep_a_session_alive(t):
    connection = client(t, timeout_ms=2 * t.tick_ms)
    end = time.monotonic() + 4.5 * t.tick
    while time.monotonic() < end:
        connection.call(wire.GET_DATA, wire.watched("/"))
        time.sleep(t.tick / 2)
    connection.call(wire.CREATE, wire.create(t.root, flags=wire.EPHEMERAL))


def test_connection_without_a_handshake_is_closed(t):
    limit = t.options.sessionless_ms
    if limit is None:
        raise Skip("--sessionless-ms not given")
    limit /= 1000.0
    begin = time.monotonic()
    silent, half = (Connection(t.host, t.port, seconds=3 * limit + 10) for _ in range(2))
    t.cleanup(silent.close)
    t.cleanup(half.close)
    half.send(wire.frame(wire.connect_request())[:10])
    for connection in (silent, half):
        connection.expect_closed()
        passed = time.monotonic() - begin
        assert limit - 0.05 <= passed <= 2 * limit + suite.SCHEDULING_SECONDS, f"closed after {passed:.2f} s"


# --- four-letter words --------------------------------------------------------------------------------------------------

def test_word_srvr(t):
    connection, root = client_at_root(t)
    zxid = connection.call(wire.SET_DATA, wire.set_data(root, b"x")).zxid
    text = t.word("srvr")
    if t.apache is not None:  # which counts what it refuses as answered
        text = text.replace("Outstanding: -", "Outstanding: ")
    pattern = (
        r"Zookeeper version: \S.*\n"
        r"Latency min/avg/max: \d+/\d+\.\d+/\d+\n"
        r"Received: \d+\nSent: \d+\nConnections: (\d+)\nOutstanding: \d+\n"
        r"Zxid: 0x([0-9a-f]+)\nMode: (standalone|leader|follower|observer)\nNode count: (\d+)\n"
    )
    match = re.fullmatch(pattern + r"(Proposal sizes last/min/max: -?\d+/-?\d+/-?\d+\n)?", text)
    assert match, f"not as expected: {text!r}"
    assert int(match[1]) >= 1 and int(match[4]) >= 5, text
    assert int(match[2], 16) >= zxid, f"Zxid {match[2]} after a write with {zxid:#x}"


def test_word_stat(t):
    connection = client(t)
    text = t.word("stat")
    port = connection.sock.getsockname()[1]
    head, _, rest = text.partition("Clients:\n")
    assert re.fullmatch(r"Zookeeper version: \S.*\n", head), text
    clients, _, rest = rest.partition("\n\n")
    lines = clients.split("\n")
    for line in lines:
        assert re.fullmatch(r" /\S+:\d+\[\d+\]\(queued=\d+,recved=\d+,sent=\d+\)", line), line
    assert any(f":{port}[" in line for line in lines), f"port {port} is not among {lines}"
    assert re.match(r"Latency min/avg/max: ", rest) and "\nMode: " in rest and re.search(r"\nNode count: \d+\n", rest), rest


def test_word_cons(t):
    connection = client(t, timeout_ms=10 * t.tick_ms)
    connection.call(wire.GET_DATA, wire.watched("/"))
    port = connection.sock.getsockname()[1]
    text = t.word("cons")
    assert text.endswith("\n"), text
    line = next((line for line in text.split("\n") if f":{port}[" in line), None)
    assert line, f"port {port} is not in {text!r}"
    fields = re.fullmatch(r" /\S+:\d+\[\d+\]\((.*)\)", line)
    assert fields, line
    pairs = [field.split("=", 1) for field in fields[1].split(",")]
    check_equal([key for key, _ in pairs], [
        "queued", "recved", "sent", "sid", "lop", "est", "to", "lcxid", "lzxid", "lresp", "llat", "minlat", "avglat", "maxlat"])
    values = dict(pairs)
    check_equal((values["sid"], values["lop"], values["to"], values["lcxid"]),
                (f"{connection.session.id:#x}", "GETD", str(10 * t.tick_ms), "0x1"))


def test_word_mntr(t):
    client(t)
    text = t.word("mntr")
    values = {}
    for line in text.rstrip("\n").split("\n"):
        assert re.fullmatch(r"zk_[A-Za-z0-9_.:-]+\t.+", line), f"not a line of mntr: {line!r}"
        key, value = line.split("\t", 1)
        values[key] = value
    for key in (
        "zk_version", "zk_server_state", "zk_avg_latency", "zk_max_latency", "zk_min_latency", "zk_packets_received",
        "zk_packets_sent", "zk_num_alive_connections", "zk_outstanding_requests", "zk_znode_count", "zk_watch_count",
        "zk_ephemerals_count", "zk_approximate_data_size",
    ):
        assert key in values, f"no {key} in mntr"
    assert values["zk_server_state"] in ("standalone", "leader", "follower", "observer"), values["zk_server_state"]
    assert int(values["zk_num_alive_connections"]) >= 1 and int(values["zk_znode_count"]) >= 5


def test_word_conf(t):
    text = t.word("conf")
    values = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    for key in (
        "clientPort", "dataDir", "dataLogDir", "tickTime", "maxClientCnxns", "minSessionTimeout", "maxSessionTimeout", "serverId",
    ):
        assert key in values, f"no {key} in {text!r}"
    check_equal(int(values["tickTime"]), t.tick_ms, "tickTime")
    check_equal((int(values["minSessionTimeout"]), int(values["maxSessionTimeout"])), (2 * t.tick_ms, 20 * t.tick_ms))


def test_word_ruok_and_isro(t):
    check_equal(t.word("ruok"), "imok")
    check_equal(t.word("isro"), "rw")


def test_word_however_it_arrives(t):
    whole = t.word("ruok")
    connection = open_connection(t)
    connection.send_slowly(b"ruok")
    check_equal(connection.read_to_end()[0].decode(), whole)
    for trailing in (b"\n", b"\r\n", b" and more"):
        connection = open_connection(t)
        connection.send(b"ruok" + trailing)
        check_equal(connection.read_exactly(4, "imok").decode(), whole)
        connection.expect_closed()
    half_closed = open_connection(t)
    half_closed.send(b"srvr")
    half_closed.sock.shutdown(socket.SHUT_WR)
    data, _ = half_closed.read_to_end()
    assert data.startswith(b"Zookeeper version: "), data


def test_word_not_whitelisted(t):
    for word in ("wchs", "dirs", "envi", "hash", "gtmk"):
        answer = four_letter_word(t.host, t.port, word.encode()).decode()
        if "whitelist" in answer:
            check_equal(answer, f"{word} is not executed because it is not in the whitelist.\n")
            connection = open_connection(t)
            connection.send_slowly(word.encode())
            check_equal(connection.read_to_end()[0].decode(), answer)
            return
    raise Skip("the server refuses none of the words tried")


# --- garbage ------------------------------------------------------------------------------------------------------------

FUZZ_CONNECTIONS = 200


def fuzz_bytes(rng, root, apache):
    """What one hostile connection sends: noise, a handshake and noise, or a handshake and damaged requests."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 400))
    hello = bytearray(wire.frame(wire.connect_request(timeout_ms=rng.randrange(-(1 << 31), 1 << 31))))
    if kind == 1:
        for _ in range(rng.randrange(1, 6)):
            hello[rng.randrange(len(hello))] = rng.randrange(256)
        return bytes(hello)
    if kind == 2:
        body = b"".join(wire.frame(rng.randbytes(rng.randrange(60))) for _ in range(rng.randrange(1, 6)))
        return bytes(hello) + body + rng.randbytes(rng.randrange(8))
    bodies = [
        (wire.CREATE, wire.create(f"{root}/{rng.randrange(20)}", rng.randbytes(5), flags=rng.randrange(4))),
        (wire.CREATE2, wire.create(f"{root}/{rng.randrange(20)}")),
        (wire.SET_DATA, wire.set_data(root, rng.randbytes(9))),
        (wire.GET_DATA, wire.watched(root, 1)),
        (wire.GET_CHILDREN2, wire.watched(root, 1)),
        (wire.SET_ACL, wire.set_acl(root, wire.OPEN)),
        (wire.SET_WATCHES, wire.set_watches(0, [root], [f"{root}/x"], [root])),
        (wire.MULTI, wire.multi((wire.SET_DATA, wire.set_data(root, b"")), (wire.CHECK, wire.string(root) + wire.int32(0)))),
        (wire.SYNC, wire.string(root)),
    ]
    sent = bytes(hello)
    for number in range(rng.randrange(1, 8)):
        op, body = rng.choice(bodies)
        damaged = bytearray(body)
        for _ in range(rng.randrange(4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            # Apache can be stopped for good by opcode 21, and 3.8 also by 13 (also inside a multi): not sent to it.
            op = rng.choice((2, 10, 16, 17, 18, 99, -1) if apache else (0, 2, 10, 13, 16, 17, 18, 19, 20, 21, 22, 99, -1, -10))
        if apache and op == wire.MULTI:
            damaged = damaged[: rng.randrange(len(damaged))]
        if rng.random() < 0.2:
            damaged = damaged[: rng.randrange(len(damaged) + 1)]
        sent += request(number, op, bytes(damaged))
    return sent if rng.random() < 0.5 else sent[: rng.randrange(len(sent))]


@alone
def test_garbage_does_not_stop_the_server(t):
    steady, root = client_at_root(t)
    for seed in range(FUZZ_CONNECTIONS):
        rng = random.Random(seed)
        connection = Connection(t.host, t.port)
        try:
            connection.send(fuzz_bytes(rng, root, t.apache is not None))
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:  # Closed before all was sent: that is an answer too.
            pass
        try:
            connection.read_to_end()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
        finally:
            connection.close()
        if seed % 20 == 0:
            steady.send(request(-2, wire.PING))
            check_equal(steady.read().xid, -2, f"ping after seed {seed}")
    assert_serving(t)
    # The root may have gone with the garbage's version or ACL, but not the connection that was there before.
    steady.call(wire.EXISTS, wire.watched("/"))


@alone
def test_many_connections_come_and_go(t):
    steady, root = client_at_root(t)
    for number in range(300):
        connection = Connection(t.host, t.port)
        if number % 3:
            connection.handshake()
            connection.call(wire.GET_DATA, wire.watched(root, 1))
        if number % 3 == 1:
            connection.close_session()
        connection.close()
    acting = client(t)
    acting.call(wire.SET_DATA, wire.set_data(root, b"x"))
    check_equal(wire.data_of(steady.call(wire.GET_DATA, wire.watched(root)))[0], b"x")


def add_options(parser):
    parser.add_argument("--sessionless-ms", type=int, help="the server's sessionlessCnxnTimeout")


if __name__ == "__main__":
    suite.main(__name__, add_options)
