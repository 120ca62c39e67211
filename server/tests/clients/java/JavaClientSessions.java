import static org.apache.zookeeper.KeeperException.Code;

import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.HostProvider;
import org.apache.zookeeper.client.StaticHostProvider;
import org.apache.zookeeper.client.ZKClientConfig;
import org.apache.zookeeper.data.Stat;

/**
 * The fourth part of {@link JavaClient}: connections and sessions.
 *
 * <p>What this proves: that after a connection was lost the session goes on with its ephemerals, identities and watches, and hears what
 * it missed; that a session can move between servers and be taken over, and ends when it is closed, or not heard of for its timeout.
 *
 * <p>The idea: connections are lost in a TCP proxy of this process, which can also lose answers alone.
 */
final class JavaClientSessions {
    private JavaClientSessions() {}

    static void addTo(Suite suite) {
        suite.add("session-expires", JavaClientSessions::sessionExpires);
        suite.add("reconnect-with-watches", JavaClientSessions::reconnectWithWatches);
        suite.add("reconnect-with-very-many-watches", JavaClientSessions::reconnectWithVeryManyWatches);
        suite.add("reconnect-again-and-again", JavaClientSessions::reconnectAgainAndAgain);
        suite.add("reconnect-with-identities", JavaClientSessions::reconnectWithIdentities);
        suite.add("calls-whose-answers-are-lost", JavaClientSessions::callsWhoseAnswersAreLost);
        suite.add("other-servers", JavaClientSessions::otherServers);
        suite.add("take-a-session-over", JavaClientSessions::takeASessionOver);
        suite.add("session-with-a-wrong-password", JavaClientSessions::sessionWithAWrongPassword);
        suite.add("session-expired-by-its-client", JavaClientSessions::sessionExpiredByItsClient);
        suite.add("every-constructor", JavaClientSessions::everyConstructor);
        suite.add("close", JavaClientSessions::close);
    }

    // ---- connections

    private static void reconnectWithWatches() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS);
                JavaClient.Client other = new JavaClient.Client(1)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            for (String name : List.of("changed", "deleted", "parent", "quiet", "persistent", "recursive")) {
                JavaClientWatches.createdBy(zk, base + "/" + name);
            }
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            Watcher watcher = heard::put;
            zk.getData(base + "/changed", watcher, null);
            zk.exists(base + "/deleted", watcher);
            zk.exists(base + "/created", watcher);
            zk.exists(base + "/not-created", watcher);
            zk.getChildren(base + "/parent", watcher);
            zk.getData(base + "/quiet", watcher, null);
            zk.getChildren(base + "/quiet", watcher);
            zk.addWatch(base + "/persistent", watcher, AddWatchMode.PERSISTENT);
            zk.addWatch(base + "/recursive", watcher, AddWatchMode.PERSISTENT_RECURSIVE);
            String ephemeral = zk.create(base + "/ephemeral", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
            long session = zk.getSessionId();
            proxy.cut();
            Suite.equal(client.heard.take("the end of the connection").getState(), KeeperState.Disconnected, "the state");
            other.zk.setData(base + "/changed", null, -1);
            other.zk.delete(base + "/deleted", -1);
            JavaClientWatches.createdBy(other.zk, base + "/created");
            JavaClientWatches.createdBy(other.zk, base + "/parent/child");
            JavaClientWatches.createdBy(other.zk, base + "/recursive/unheard");
            if (JavaClient.servers.length > 1) {
                // Its server must have all that before it resumes the watches; this is not its connection.
                try (JavaClient.Client same = new JavaClient.Client(0)) {
                    same.zk.sync(base);
                }
            }
            proxy.restore();
            Suite.equal(client.heard.take("the connection to come back").getState(), KeeperState.SyncConnected, "the state");
            Suite.equal(zk.getSessionId(), session, "the session");
            List<String> events = JavaClientWatches.heardBefore(client, heard, base);
            events.removeIf(event -> event.startsWith("None"));
            Suite.equal(JavaClient.sorted(events), List.of("NodeChildrenChanged /parent", "NodeCreated /created",
                "NodeDataChanged /changed", "NodeDeleted /deleted"), "what was missed");
            Suite.equal(events.size(), 4, "each of it once: " + events);
            // Those that heard nothing, and the persistent ones, still listen; the others do not.
            for (String name : List.of("changed", "quiet", "persistent", "recursive", "recursive/unheard")) {
                other.zk.setData(base + "/" + name, null, -1);
            }
            JavaClientWatches.createdBy(other.zk, base + "/not-created");
            JavaClientWatches.createdBy(other.zk, base + "/quiet/child");
            JavaClientWatches.createdBy(other.zk, base + "/persistent/child");
            JavaClientWatches.createdBy(other.zk, base + "/recursive/child");
            JavaClientWatches.createdBy(other.zk, base + "/parent/second");
            zk.sync(base);
            Suite.equal(JavaClientWatches.heardBefore(client, heard, base), List.of("NodeDataChanged /quiet", "NodeDataChanged /persistent",
                "NodeDataChanged /recursive", "NodeDataChanged /recursive/unheard", "NodeCreated /not-created",
                "NodeChildrenChanged /quiet", "NodeChildrenChanged /persistent", "NodeCreated /recursive/child"), "later events");
            Suite.equal(other.zk.exists(ephemeral, false).getEphemeralOwner(), session, "the owner of the ephemeral");
        }
    }

    /** More than fit into one setWatches: the client sends several. */
    private static void reconnectWithVeryManyWatches() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[1 % JavaClient.servers.length]);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS);
                JavaClient.Client other = new JavaClient.Client(0)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            Set<String> want = new TreeSet<>();
            JavaClient.Reply last = null;
            for (int i = 0; i < 3000; i++) {
                String path = base + "/" + "long".repeat(30) + i;
                want.add(path);
                last = new JavaClient.Reply();
                zk.exists(path, heard::put, last.stats, last);
            }
            last.error(Code.NONODE);
            proxy.cut();
            client.heard.take("the end of the connection");
            List<String> paths = new ArrayList<>(want);
            for (int i = 0; i < paths.size(); i += 100) {
                List<Op> ops = new ArrayList<>();
                for (String path : paths.subList(i, i + 100)) {
                    if (path.endsWith("7")) {
                        ops.add(Op.create(path, null, JavaClient.OPEN, CreateMode.PERSISTENT));
                    }
                }
                other.zk.multi(ops);
            }
            proxy.restore();
            Suite.equal(client.heard.take("the connection to come back").getState(), KeeperState.SyncConnected, "the state");
            for (int i = 0; i < paths.size(); i += 100) {
                List<Op> ops = new ArrayList<>();
                for (String path : paths.subList(i, i + 100)) {
                    if (!path.endsWith("7")) {
                        ops.add(Op.create(path, null, JavaClient.OPEN, CreateMode.PERSISTENT));
                    }
                }
                other.zk.multi(ops);
            }
            List<String> got = new ArrayList<>();
            while (got.size() < 3000) {
                WatchedEvent event = heard.take("event " + got.size());
                if (event.getType() != EventType.None) {
                    Suite.equal(event.getType(), EventType.NodeCreated, "the event of " + event.getPath());
                    got.add(event.getPath());
                }
            }
            Suite.equal(new TreeSet<>(got), want, "the paths that were heard of");
        }
    }

    /** A recursive watch and writes of its own, while the connection is lost again and again. */
    private static void reconnectAgainAndAgain() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            long session = zk.getSessionId();
            int made = 0;
            for (int round = 0; round < 8; round++) {
                try {
                    for (int i = 0; i < 5; i++) {
                        zk.create(base + "/n", null, JavaClient.OPEN, CreateMode.EPHEMERAL_SEQUENTIAL);
                        made++;
                    }
                } catch (KeeperException.ConnectionLossException lost) {
                    made++; // Perhaps: counted below.
                }
                proxy.disconnect();
                JavaClient.onceConnected(() -> zk.exists(base, false));
            }
            Suite.equal(zk.getSessionId(), session, "the session");
            Suite.equal(zk.getEphemerals().size(), zk.getChildren(base, false).size(), "the ephemerals of the session, and the children");
            Suite.check(zk.getChildren(base, false).size() <= made && made == 40, "the nodes that were made: " + made);
        }
    }

    private static void reconnectWithIdentities() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS)) {
            ZooKeeper zk = client.zk;
            zk.addAuthInfo("digest", JavaClient.bytes("eve:secret"));
            String path = zk.create(JavaClient.fresh(zk) + "/hers", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            for (int i = 0; i < 3; i++) {
                proxy.disconnect();
                Suite.equal(client.heard.take("the end of the connection").getState(), KeeperState.Disconnected, "the state");
                Suite.equal(client.heard.take("the connection to come back").getState(), KeeperState.SyncConnected, "the state");
                zk.setData(path, null, -1);
                Suite.equal(JavaClient.who(zk), List.of("digest:eve", "ip:127.0.0.1"), "who I am");
            }
            zk.setACL(path, JavaClient.OPEN, -1);
        }
    }

    /** Writes that the server has carried out, and whose answers never come: the client is told of the loss, the writes are there. */
    private static void callsWhoseAnswersAreLost() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS);
                JavaClient.Client other = new JavaClient.Client(1)) {
            String base = JavaClient.fresh(client.zk);
            proxy.loseAnswers();
            List<JavaClient.Reply> replies = new ArrayList<>();
            for (int i = 0; i < 20; i++) {
                JavaClient.Reply reply = new JavaClient.Reply();
                client.zk.create(base + "/" + i, null, JavaClient.OPEN, CreateMode.PERSISTENT, reply.string, reply);
                replies.add(reply);
            }
            Suite.waitFor("the writes to be carried out", () -> {
                other.zk.sync(base);
                return other.zk.getChildren(base, false).size() == 20;
            });
            proxy.disconnect();
            proxy.restore();
            for (JavaClient.Reply reply : replies) {
                reply.error(Code.CONNECTIONLOSS);
            }
            JavaClient.onceConnected(() -> client.zk.exists(base, false));
            JavaClient.fails(Code.NODEEXISTS, () -> client.zk.create(base + "/0", null, JavaClient.OPEN, CreateMode.PERSISTENT));
        }
    }

    /** The list of servers is replaced under a living session, which moves, through every server that there is. */
    private static void otherServers() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(0)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            String ephemeral = zk.create(base + "/e", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
            zk.addWatch(base, AddWatchMode.PERSISTENT_RECURSIVE);
            long session = zk.getSessionId();
            for (int i = 1; i <= 2; i++) {
                try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[i % JavaClient.servers.length])) {
                    zk.updateServerList(proxy.address());
                    Suite.equal(client.heard.take("the end of the connection").getState(), KeeperState.Disconnected, "the state");
                    Suite.equal(client.heard.take("a connection to another server").getState(), KeeperState.SyncConnected, "the state");
                    Suite.equal(zk.getSessionId(), session, "the session");
                    zk.setData(ephemeral, JavaClient.bytes("" + i), i - 1);
                    Suite.equal(client.heard.take("an event").getType(), EventType.NodeDataChanged, "the event");
                    zk.updateServerList(JavaClient.servers[i % JavaClient.servers.length]);
                    Suite.equal(client.heard.take("the end of the connection").getState(), KeeperState.Disconnected, "the state");
                    Suite.equal(client.heard.take("a connection without the proxy").getState(), KeeperState.SyncConnected, "the state");
                }
            }
        }
    }

    // ---- sessions

    private static void sessionExpires() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]); JavaClient.Client other = new JavaClient.Client(1);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), 2_000)) {
            ZooKeeper zk = client.zk;
            long timeoutMs = zk.getSessionTimeout();
            Suite.equal(timeoutMs, 2_000L, "the timeout (is minSessionTimeout longer?)");
            String base = JavaClient.fresh(zk);
            String ephemeral = zk.create(base + "/e", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
            String lone = zk.create(base + "/lone", null, JavaClient.OPEN, CreateMode.EPHEMERAL_SEQUENTIAL);
            other.zk.sync(base);
            other.zk.addWatch(base, AddWatchMode.PERSISTENT_RECURSIVE);
            // As long as it is heard of, it lives: three times its timeout, with nothing but pings.
            long start = System.nanoTime();
            Suite.waitFor("three timeouts to pass", () -> System.nanoTime() - start > TimeUnit.MILLISECONDS.toNanos(3 * timeoutMs));
            Suite.equal(other.heard.drain(), List.of(), "events while the session is heard of");
            long cut = System.nanoTime();
            proxy.cut();
            List<String> gone = new ArrayList<>();
            for (int i = 0; i < 2; i++) {
                WatchedEvent event = other.heard.take("the ephemerals to go");
                gone.add(event.getType() + " " + event.getPath());
            }
            long tookMs = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - cut);
            Suite.equal(JavaClient.sorted(gone), List.of("NodeDeleted " + ephemeral, "NodeDeleted " + lone), "events");
            Suite.check(tookMs >= timeoutMs / 2 && tookMs <= timeoutMs * 2 + 2_000, "the session expired after " + tookMs + " ms");
            proxy.restore();
            Suite.equal(client.heard.take("an event").getState(), KeeperState.Disconnected, "the state");
            Suite.equal(client.heard.take("the end of the session").getState(), KeeperState.Expired, "the state");
            JavaClient.fails(Code.SESSIONEXPIRED, () -> zk.exists(base, false));
            Suite.equal(zk.getState(), ZooKeeper.States.CLOSED, "the state");
        }
    }

    private static void takeASessionOver() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]);
                JavaClient.Client first = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS);
                JavaClient.Client other = new JavaClient.Client(2)) {
            String base = JavaClient.fresh(first.zk);
            String ephemeral = first.zk.create(base + "/e", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
            long session = first.zk.getSessionId();
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            ZooKeeper second = new ZooKeeper(JavaClient.servers[1 % JavaClient.servers.length], JavaClient.SESSION_MS, heard::put, session,
                first.zk.getSessionPasswd());
            Suite.equal(heard.take("a connection").getState(), KeeperState.SyncConnected, "the state");
            Suite.equal(second.getSessionId(), session, "the session");
            if (JavaClient.servers.length == 1) {
                // The server closes the connection that the session had. (Between servers, it is closed when it is next used.)
                Suite.equal(first.heard.take("the end of the first connection").getState(), KeeperState.Disconnected, "the state");
            }
            proxy.cut(); // Or the first would take it back, for ever.
            JavaClient.onceConnected(() -> second.setData(ephemeral, null, -1)); // The session may have gone back and forth till now.
            second.close();
            other.zk.sync(base);
            Suite.equal(other.zk.exists(ephemeral, false), null, "the ephemeral after the session has ended");
        }
    }

    private static void sessionWithAWrongPassword() throws Exception {
        try (JavaClient.Client owner = new JavaClient.Client(0)) {
            String base = JavaClient.fresh(owner.zk);
            String ephemeral = owner.zk.create(base + "/e", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
            for (long session : new long[] {owner.zk.getSessionId(), 12345}) {
                Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
                ZooKeeper thief = new ZooKeeper(JavaClient.servers[0], JavaClient.SESSION_MS, heard::put, session, new byte[16]);
                Suite.equal(heard.take("an answer").getState(), KeeperState.Expired, "what a thief of session " + session + " is told");
                thief.close();
            }
            // Apache's closes the owner's connection, which comes back.
            Stat stat = JavaClient.onceConnected(() -> owner.zk.exists(ephemeral, false));
            Suite.equal(stat.getEphemeralOwner(), owner.zk.getSessionId(), "the owner");
        }
    }

    private static void sessionExpiredByItsClient() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(1)) {
            long session = client.zk.getSessionId();
            client.zk.exists("/", true);
            client.zk.getTestable().queueEvent(new WatchedEvent(EventType.NodeDataChanged, KeeperState.SyncConnected, "/"));
            Suite.equal(client.heard.take("an event that was put in").getType(), EventType.NodeDataChanged, "the event");
            client.zk.getTestable().closeSocket();
            Suite.equal(client.heard.take("the end of the connection").getState(), KeeperState.Disconnected, "the state");
            Suite.equal(client.heard.take("the connection to come back").getState(), KeeperState.SyncConnected, "the state");
            Suite.equal(client.zk.getSessionId(), session, "the session");
            client.zk.getTestable().injectSessionExpiration();
            Suite.equal(client.heard.take("the end of the session").getState(), KeeperState.Expired, "the state");
        }
    }

    private static void everyConstructor() throws Exception {
        String connect = String.join(",", JavaClient.servers);
        List<InetSocketAddress> addresses = new ArrayList<>();
        for (String server : JavaClient.servers) {
            addresses.add(new InetSocketAddress(server.replaceAll(":.*", ""), Integer.parseInt(server.replaceAll(".*:", ""))));
        }
        ZKClientConfig config = new ZKClientConfig();
        for (int form = 0; form < 10; form++) {
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            Watcher watcher = heard::put;
            HostProvider hosts = new StaticHostProvider(addresses);
            int ms = JavaClient.SESSION_MS;
            ZooKeeper zk = switch (form) {
                case 0 -> new ZooKeeper(connect, ms, watcher);
                case 1 -> new ZooKeeper(connect, ms, watcher, config);
                case 2 -> new ZooKeeper(connect, ms, watcher, true);
                case 3 -> new ZooKeeper(connect, ms, watcher, true, config);
                case 4 -> new ZooKeeper(connect, ms, watcher, true, hosts);
                case 5 -> new ZooKeeper(connect, ms, watcher, true, hosts, config);
                default -> {
                    ZooKeeper owner = new ZooKeeper(connect, ms, watcher);
                    Suite.equal(heard.take("a connection").getState(), KeeperState.SyncConnected, "the state");
                    byte[] password = owner.getSessionPasswd();
                    ZooKeeper heir = form == 6 ? new ZooKeeper(connect, ms, watcher, owner.getSessionId(), password)
                        : form == 7 ? new ZooKeeper(connect, ms, watcher, owner.getSessionId(), password, true)
                        : form == 8 ? new ZooKeeper(connect, ms, watcher, owner.getSessionId(), password, true, hosts)
                        : new ZooKeeper(connect, ms, watcher, owner.getSessionId(), password, true, hosts, config);
                    owner.getTestable().injectSessionExpiration(); // So that it does not want its session back. (This tells no server.)
                    Suite.waitFor("the session's heir to be connected", () -> heir.getState().isConnected());
                    Suite.equal(heir.getSessionId(), owner.getSessionId(), "the session");
                    yield heir;
                }
            };
            Suite.waitFor("a connection", () -> zk.getState() == ZooKeeper.States.CONNECTED);
            Suite.check(zk.getSessionId() != 0 && zk.getSessionTimeout() == ms && zk.getSessionPasswd().length == 16, "the session");
            Suite.check(zk.toString().contains(Long.toHexString(zk.getSessionId())), "toString has the session: " + zk);
            Suite.check(zk.getSaslClient() != null && zk.getClientConfig() != null, "what it was made with");
            Suite.check(JavaClient.onceConnected(() -> zk.exists("/zookeeper", false)) != null, "a call of form " + form);
            zk.close();
        }
    }

    private static void close() throws Exception {
        try (JavaClient.Client other = new JavaClient.Client(1)) {
            for (int form = 0; form < 2; form++) {
                JavaClient.Client client = new JavaClient.Client(0);
                String base = JavaClient.fresh(client.zk);
                String ephemeral = client.zk.create(base + "/e", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
                JavaClient.Reply before = new JavaClient.Reply();
                client.zk.setData(base, null, -1, before.stats, before);
                if (form == 0) {
                    client.zk.close();
                } else {
                    Suite.check(client.zk.close(5_000), "its threads end in time");
                }
                before.value();
                Suite.equal(client.zk.getState(), ZooKeeper.States.CLOSED, "the state");
                JavaClient.fails(Code.SESSIONEXPIRED, () -> client.zk.exists(base, false));
                other.zk.sync(base);
                Suite.equal(other.zk.exists(ephemeral, false), null, "the ephemeral after the session has ended");
                Suite.equal(other.zk.exists(base, false).getVersion(), 1, "what was asked for before the end");
            }
        }
    }
}
