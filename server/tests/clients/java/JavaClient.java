import static org.apache.zookeeper.KeeperException.Code;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.zookeeper.AsyncCallback.ACLCallback;
import org.apache.zookeeper.AsyncCallback.AllChildrenNumberCallback;
import org.apache.zookeeper.AsyncCallback.Children2Callback;
import org.apache.zookeeper.AsyncCallback.ChildrenCallback;
import org.apache.zookeeper.AsyncCallback.Create2Callback;
import org.apache.zookeeper.AsyncCallback.DataCallback;
import org.apache.zookeeper.AsyncCallback.EphemeralsCallback;
import org.apache.zookeeper.AsyncCallback.MultiCallback;
import org.apache.zookeeper.AsyncCallback.StatCallback;
import org.apache.zookeeper.AsyncCallback.StringCallback;
import org.apache.zookeeper.AsyncCallback.VoidCallback;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZKUtil;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.ClientInfo;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/**
 * usage: java JavaClient HOST:PORT[,HOST:PORT...] [PART-OF-A-NAME]
 *
 * <p>The official Java client against a running server: every public operation of {@code org.apache.zookeeper.ZooKeeper}, in every form
 * that it has (with and without a Stat, a watcher or the default one, waited for or called back).
 *
 * <p>What this proves: the results, errors and Stats that an application gets. Each form is called on its own, and what one form says is
 * compared with what another says, or with what was written.
 *
 * <p>The idea: with several servers, the clients of a case are connected to different ones; a client asks for {@code sync} before it
 * reads what another wrote. Prints {@code ok NAME} or {@code FAILED NAME: why}; exit status 0 only if nothing failed.
 *
 * <p>The server must have {@code extendedTypesEnabled=true}, a short {@code znode.container.checkIntervalMs}, a {@code minSessionTimeout}
 * of a second or so, and allow 60 connections; reconfiguration must be off, which is the default.
 * Not here: transactions, order, size (JavaClientTransactions); watches (JavaClientWatches); lost connections, sessions
 * (JavaClientSessions); SASL and TLS.
 */
public final class JavaClient {
    static final List<ACL> OPEN = Ids.OPEN_ACL_UNSAFE;
    static final int SESSION_MS = 10_000;

    static String[] servers;
    static String root;
    private static final AtomicInteger NEXT = new AtomicInteger();

    public static void main(String[] args) throws Exception {
        quiet();
        servers = args[0].split(",");
        root = "/java-client-" + ProcessHandle.current().pid() + "-" + System.currentTimeMillis();
        Suite suite = new Suite();
        suite.add("create-in-every-mode", JavaClient::createInEveryMode);
        suite.add("create-called-back", JavaClient::createCalledBack);
        suite.add("create-errors", JavaClient::createErrors);
        suite.add("sequence-numbers", JavaClient::sequenceNumbers);
        suite.add("delete", JavaClient::delete);
        suite.add("exists", JavaClient::exists);
        suite.add("get-and-set-data", JavaClient::getAndSetData);
        suite.add("data-of-a-mebibyte", JavaClient::dataOfAMebibyte);
        suite.add("children", JavaClient::children);
        suite.add("ephemerals", JavaClient::ephemerals);
        suite.add("acl", JavaClient::acl);
        suite.add("digest-and-who-am-i", JavaClient::digestAndWhoAmI);
        suite.add("auth-of-an-unknown-scheme", JavaClient::authOfAnUnknownScheme);
        suite.add("config", JavaClient::config);
        suite.add("reconfigure-is-disabled", JavaClient::reconfigureIsDisabled);
        suite.add("sync", JavaClient::sync);
        JavaClientTransactions.addTo(suite);
        JavaClientWatches.addTo(suite);
        JavaClientSessions.addTo(suite);
        try (Client client = new Client(0)) {
            client.zk.create(root, null, OPEN, CreateMode.PERSISTENT);
        }
        int failed = suite.run(8, args.length > 1 ? args[1] : "");
        try (Client client = new Client(0)) {
            ZKUtil.deleteRecursive(client.zk, root, 100);
        }
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1); // A case that was left behind must not hold up the end.
    }

    /** No log: what matters is thrown, and many things are meant to fail. To be called before anything of the client is loaded. */
    static void quiet() {
        System.setProperty("slf4j.internal.verbosity", "ERROR");
        System.setProperty("org.apache.logging.log4j.level", "OFF");
    }

    /** The path of a node of this case alone, which is made. */
    static String fresh(ZooKeeper zk) throws Exception {
        return zk.create(root + "/" + NEXT.incrementAndGet(), bytes("fresh"), OPEN, CreateMode.PERSISTENT);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** A connected client, whose default watcher keeps what it hears. */
    static final class Client implements AutoCloseable {
        final Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
        final ZooKeeper zk;

        /** Connected to that server of those that were given, counted round. */
        Client(int server) throws Exception {
            this(servers[server % servers.length], SESSION_MS);
        }

        Client(String address, int sessionMs) throws Exception {
            zk = new ZooKeeper(address, sessionMs, heard::put);
            Suite.equal(heard.take("a connection to " + address).getState(), KeeperState.SyncConnected, "the first event");
        }

        @Override
        public void close() {
            try {
                zk.close();
            } catch (InterruptedException unexpected) {
                throw new IllegalStateException(unexpected);
            }
        }
    }

    /** What a call that is called back was told. */
    static final class Reply {
        private final CountDownLatch told = new CountDownLatch(1);
        private volatile int rc;
        private volatile Object ctx;
        volatile Object value;
        volatile Stat stat;

        private void set(int rc, Object ctx, Object value, Stat stat) {
            this.rc = rc;
            this.ctx = ctx;
            this.value = value;
            this.stat = stat;
            told.countDown();
        }

        final StringCallback string = (rc, path, ctx, name) -> set(rc, ctx, name, null);
        final Create2Callback create2 = (rc, path, ctx, name, stat) -> set(rc, ctx, name, stat);
        final VoidCallback done = (rc, path, ctx) -> set(rc, ctx, path, null);
        final StatCallback stats = (rc, path, ctx, stat) -> set(rc, ctx, path, stat);
        final DataCallback data = (rc, path, ctx, data, stat) -> set(rc, ctx, text(data), stat);
        final ACLCallback acl = (rc, path, ctx, acl, stat) -> set(rc, ctx, acl, stat);
        final ChildrenCallback children = (rc, path, ctx, children) -> set(rc, ctx, sorted(children), null);
        final Children2Callback children2 = (rc, path, ctx, children, stat) -> set(rc, ctx, sorted(children), stat);
        final AllChildrenNumberCallback number = (rc, path, ctx, number) -> set(rc, ctx, number, null);
        final EphemeralsCallback ephemerals = (rc, ctx, paths) -> set(rc, ctx, sorted(paths), null);
        final MultiCallback multi = (rc, path, ctx, results) -> set(rc, ctx, results, null);

        /** The value, if the call went well. The context of every call is the reply itself. */
        Object value() throws InterruptedException {
            error(Code.OK);
            return value;
        }

        void error(Code want) throws InterruptedException {
            Suite.check(told.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "no callback");
            Suite.equal(Code.get(rc), want, "the code of the callback");
            Suite.check(ctx == this, "the context came back");
        }
    }

    static List<String> sorted(List<String> names) {
        return names == null ? null : new ArrayList<>(new TreeSet<>(names));
    }

    static void fails(Code want, Suite.Thrower call) {
        Suite.equal(Suite.thrown(KeeperException.class, "a call that must fail with " + want, call).code(), want, "the code");
    }

    /** What {@code call} returns as soon as it is not lost with a connection. (A client may call itself connected for a while after.) */
    static <T> T onceConnected(Callable<T> call) throws Exception {
        List<T> got = new ArrayList<>();
        Suite.waitFor("the connection to come back", () -> {
            try {
                return got.add(call.call());
            } catch (KeeperException.ConnectionLossException | KeeperException.SessionMovedException lost) {
                return false;
            }
        });
        return got.get(0);
    }

    // ---- nodes

    private static void checkCreated(ZooKeeper zk, CreateMode mode, String asked, String path, Stat stat) throws Exception {
        Suite.check(path.matches(java.util.regex.Pattern.quote(asked) + (mode.isSequential() ? "\\d{10}" : "")), mode + " made " + path);
        Stat now = new Stat();
        Suite.equal(text(zk.getData(path, false, now)), mode.name(), "the data of " + path);
        if (stat != null) {
            Suite.equal(stat, now, "the Stat of a " + mode);
        }
        Suite.equal(now.getEphemeralOwner(), mode.isEphemeral() ? zk.getSessionId() : 0, "the owner of a " + mode);
        Suite.equal(List.of(now.getVersion(), now.getCversion(), now.getAversion(), now.getNumChildren()), List.of(0, 0, 0, 0), "versions");
        Suite.equal(now.getDataLength(), mode.name().length(), "the length");
        Suite.check(now.getCzxid() > 0 && now.getCzxid() == now.getMzxid() && now.getCzxid() == now.getPzxid(), "the zxids of " + now);
        Suite.check(Math.abs(now.getCtime() - System.currentTimeMillis()) < 60_000 && now.getCtime() == now.getMtime(), "the times");
    }

    private static void createInEveryMode() throws Exception {
        try (Client client = new Client(0)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            for (CreateMode mode : CreateMode.values()) {
                String asked = base + "/" + mode;
                Stat stat = new Stat();
                if (mode.isTTL()) {
                    checkCreated(zk, mode, asked, zk.create(asked, bytes(mode.name()), OPEN, mode, stat, 60_000), stat);
                } else {
                    checkCreated(zk, mode, asked, zk.create(asked, bytes(mode.name()), OPEN, mode, stat), stat);
                    checkCreated(zk, mode, asked + "-", zk.create(asked + "-", bytes(mode.name()), OPEN, mode), null);
                }
            }
            Suite.equal(zk.exists(base, false).getNumChildren(), 12, "the number of children");
        }
    }

    private static void createCalledBack() throws Exception {
        try (Client client = new Client(1)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            for (CreateMode mode : CreateMode.values()) {
                String asked = base + "/" + mode;
                byte[] data = bytes(mode.name());
                Reply second = new Reply();
                if (mode.isTTL()) {
                    zk.create(asked, data, OPEN, mode, second.create2, second, 60_000);
                } else {
                    Reply first = new Reply();
                    zk.create(asked, data, OPEN, mode, first.string, first);
                    checkCreated(zk, mode, asked, (String) first.value(), null);
                    zk.create(asked + "-", data, OPEN, mode, second.create2, second);
                    asked += "-";
                }
                checkCreated(zk, mode, asked, (String) second.value(), second.stat);
            }
            Reply again = new Reply();
            zk.create(base + "/" + CreateMode.PERSISTENT, null, OPEN, CreateMode.PERSISTENT, again.string, again);
            again.error(Code.NODEEXISTS);
        }
    }

    private static void createErrors() throws Exception {
        try (Client client = new Client(2)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            String ephemeral = zk.create(base + "/e", null, OPEN, CreateMode.EPHEMERAL);
            for (CreateMode mode : List.of(CreateMode.PERSISTENT, CreateMode.EPHEMERAL, CreateMode.CONTAINER)) {
                fails(Code.NODEEXISTS, () -> zk.create(base, null, OPEN, mode));
                fails(Code.NONODE, () -> zk.create(base + "/missing/child", null, OPEN, mode));
                fails(Code.NOCHILDRENFOREPHEMERALS, () -> zk.create(ephemeral + "/child", null, OPEN, mode));
                fails(Code.INVALIDACL, () -> zk.create(base + "/x", null, new ArrayList<>(), mode));
                fails(Code.INVALIDACL, () -> zk.create(base + "/x", null, list(Perms.ALL, "nonsense", "x"), mode));
                fails(Code.INVALIDACL, () -> zk.create(base + "/x", null, Ids.CREATOR_ALL_ACL, mode));
            }
            Stat stat = new Stat();
            fails(Code.NODEEXISTS, () -> zk.create(base, null, OPEN, CreateMode.PERSISTENT_WITH_TTL, stat, 1000));
            Suite.thrown(IllegalArgumentException.class, "a TTL that is none", () ->
                zk.create(base + "/x", null, OPEN, CreateMode.PERSISTENT_WITH_TTL, stat, 0));
            Suite.thrown(IllegalArgumentException.class, "a path that is none", () -> zk.create("x", null, OPEN, CreateMode.PERSISTENT));
            Suite.equal(zk.getChildren(base, false), List.of("e"), "nothing else was made");
        }
    }

    private static void sequenceNumbers() throws Exception {
        try (Client one = new Client(0); Client two = new Client(1)) {
            String base = fresh(one.zk);
            two.zk.sync(base);
            List<Reply> replies = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                Reply reply = new Reply();
                (i % 2 == 0 ? one : two).zk.create(base + "/n", null, OPEN, CreateMode.PERSISTENT_SEQUENTIAL, reply.string, reply);
                replies.add(reply);
            }
            TreeSet<String> names = new TreeSet<>();
            for (Reply reply : replies) {
                names.add((String) reply.value());
            }
            TreeSet<String> want = new TreeSet<>();
            for (int i = 0; i < 200; i++) {
                want.add(String.format("%s/n%010d", base, i));
            }
            Suite.equal(names, want, "the names that two clients got");
        }
    }

    private static void delete() throws Exception {
        try (Client client = new Client(0)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            zk.create(base + "/a", null, OPEN, CreateMode.PERSISTENT);
            zk.create(base + "/b", null, OPEN, CreateMode.PERSISTENT);
            fails(Code.NOTEMPTY, () -> zk.delete(base, -1));
            fails(Code.BADVERSION, () -> zk.delete(base + "/a", 1));
            fails(Code.NONODE, () -> zk.delete(base + "/c", -1));
            zk.delete(base + "/a", 0);
            Suite.equal(zk.exists(base + "/a", false), null, "a deleted node");
            Map<Code, String> paths = Map.of(Code.NOTEMPTY, base, Code.NONODE, base + "/a", Code.BADVERSION, base + "/b");
            for (Map.Entry<Code, String> entry : paths.entrySet()) {
                Reply reply = new Reply();
                zk.delete(entry.getValue(), 7, reply.done, reply);
                // A version that is wrong is found before children are.
                reply.error(entry.getKey() == Code.NOTEMPTY ? Code.BADVERSION : entry.getKey());
            }
            Reply reply = new Reply();
            zk.delete(base + "/b", -1, reply.done, reply);
            Suite.equal(reply.value(), base + "/b", "the path of the callback");
            zk.delete(base, -1);
        }
    }

    private static void exists() throws Exception {
        try (Client client = new Client(1)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            Watcher unused = event -> { };
            Stat stat = zk.exists(base, false);
            Suite.equal(zk.exists(base, true), stat, "with the default watcher");
            Suite.equal(zk.exists(base, unused), stat, "with a watcher");
            for (boolean watch : new boolean[] {false, true}) {
                Reply reply = new Reply();
                zk.exists(base, watch, reply.stats, reply);
                Suite.equal(reply.value(), base, "the path");
                Suite.equal(reply.stat, stat, "the Stat");
            }
            Reply reply = new Reply();
            zk.exists(base, unused, reply.stats, reply);
            reply.value();
            Suite.equal(reply.stat, stat, "the Stat");
            Suite.equal(zk.exists(base + "/x", false), null, "a node that is not there");
            Reply missing = new Reply();
            zk.exists(base + "/x", false, missing.stats, missing);
            missing.error(Code.NONODE);
        }
    }

    private static void getAndSetData() throws Exception {
        try (Client client = new Client(2); Client other = new Client(0)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            Stat before = zk.exists(base, false);
            Stat set = zk.setData(base, bytes("one"), 0);
            Suite.equal(set.getVersion(), 1, "the version");
            Suite.check(set.getMzxid() > before.getMzxid() && set.getCzxid() == before.getCzxid() && set.getPzxid() == before.getPzxid(),
                "the zxids of " + set + " after " + before);
            Watcher unused = event -> { };
            Stat stat = new Stat();
            Suite.equal(text(zk.getData(base, false, stat)), "one", "the data");
            Suite.equal(stat, set, "the Stat");
            Suite.equal(text(zk.getData(base, true, null)), "one", "the data, with the default watcher, without a Stat");
            Suite.equal(text(zk.getData(base, unused, stat)), "one", "the data, with a watcher");
            for (int form = 0; form < 3; form++) {
                Reply reply = new Reply();
                if (form < 2) {
                    zk.getData(base, form == 1, reply.data, reply);
                } else {
                    zk.getData(base, unused, reply.data, reply);
                }
                Suite.equal(reply.value(), "one", "the data of a callback");
                Suite.equal(reply.stat, set, "the Stat of a callback");
            }
            fails(Code.BADVERSION, () -> zk.setData(base, bytes("x"), 0));
            fails(Code.NONODE, () -> zk.setData(base + "/x", bytes("x"), -1));
            fails(Code.NONODE, () -> zk.getData(base + "/x", false, null));
            Reply reply = new Reply();
            zk.setData(base, bytes("two"), 1, reply.stats, reply);
            reply.value();
            Suite.equal(reply.stat.getVersion(), 2, "the version of a callback");
            Reply stale = new Reply();
            zk.setData(base, bytes("x"), 1, stale.stats, stale);
            stale.error(Code.BADVERSION);
            Reply missing = new Reply();
            zk.getData(base + "/x", false, missing.data, missing);
            missing.error(Code.NONODE);
            other.zk.sync(base);
            Suite.equal(text(other.zk.getData(base, false, stat)), "two", "what another client reads");
            Suite.equal(stat, reply.stat, "the Stat that another client reads");
            zk.setData(base, null, -1);
            Suite.equal(zk.getData(base, false, null), null, "no data");
            zk.setData(base, new byte[0], -1);
            Suite.equal(zk.getData(base, false, null).length, 0, "data of no length");
        }
    }

    private static void dataOfAMebibyte() throws Exception {
        try (Client client = new Client(0); Client other = new Client(1)) {
            String base = fresh(client.zk);
            byte[] big = new byte[1_000_000];
            new java.util.Random(1).nextBytes(big);
            client.zk.setData(base, big, -1);
            other.zk.sync(base);
            Suite.check(Arrays.equals(other.zk.getData(base, false, null), big), "what was read is what was written");
            // More than the server takes: it closes the connection, and the client finds its session again.
            fails(Code.CONNECTIONLOSS, () -> client.zk.setData(base, new byte[1_100_000], -1));
            Suite.equal(onceConnected(() -> client.zk.exists(base, false)).getVersion(), 1, "the version");
        }
    }

    private static void children() throws Exception {
        try (Client client = new Client(1)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            Watcher unused = event -> { };
            for (String name : List.of("a", "b", "ö")) {
                zk.create(base + "/" + name, null, OPEN, CreateMode.PERSISTENT);
            }
            zk.create(base + "/a/c", null, OPEN, CreateMode.PERSISTENT);
            List<String> want = List.of("a", "b", "ö");
            Stat stat = zk.exists(base, false);
            Suite.equal(List.of(stat.getCversion(), stat.getNumChildren()), List.of(3, 3), "cversion and number");
            Suite.equal(stat.getPzxid(), zk.exists(base + "/ö", false).getCzxid(), "the pzxid");
            Stat said = new Stat();
            Suite.equal(sorted(zk.getChildren(base, false)), want, "children");
            Suite.equal(sorted(zk.getChildren(base, true)), want, "children, with the default watcher");
            Suite.equal(sorted(zk.getChildren(base, unused)), want, "children, with a watcher");
            Suite.equal(sorted(zk.getChildren(base, false, said)), want, "children with a Stat");
            Suite.equal(said, stat, "the Stat");
            Suite.equal(sorted(zk.getChildren(base, unused, said)), want, "children with a Stat and a watcher");
            Suite.equal(said, stat, "the Stat");
            for (int form = 0; form < 6; form++) {
                Reply reply = new Reply();
                switch (form) {
                    case 0, 1 -> zk.getChildren(base, form == 1, reply.children, reply);
                    case 2 -> zk.getChildren(base, unused, reply.children, reply);
                    case 3, 4 -> zk.getChildren(base, form == 4, reply.children2, reply);
                    default -> zk.getChildren(base, unused, reply.children2, reply);
                }
                Suite.equal(reply.value(), want, "the children of callback " + form);
                Suite.equal(reply.stat, form < 3 ? null : stat, "the Stat of callback " + form);
            }
            Suite.equal(zk.getAllChildrenNumber(base), 4, "all below");
            Reply number = new Reply();
            zk.getAllChildrenNumber(base, number.number, number);
            Suite.equal(number.value(), 4, "all below, called back");
            fails(Code.NONODE, () -> zk.getChildren(base + "/x", false));
            fails(Code.NONODE, () -> zk.getChildren(base + "/x", false, said));
            fails(Code.NONODE, () -> zk.getAllChildrenNumber(base + "/x"));
        }
    }

    private static void ephemerals() throws Exception {
        String base;
        try (Client other = new Client(1)) {
            try (Client client = new Client(0)) {
                ZooKeeper zk = client.zk;
                base = fresh(zk);
                List<String> paths = new ArrayList<>();
                for (int i = 0; i < 5; i++) {
                    paths.add(zk.create(base + "/" + (i < 2 ? "x" : "y") + i, null, OPEN, CreateMode.EPHEMERAL));
                }
                Suite.equal(sorted(zk.getEphemerals()), paths, "all ephemerals");
                Suite.equal(sorted(zk.getEphemerals(base + "/x")), paths.subList(0, 2), "those with a prefix");
                Reply all = new Reply();
                zk.getEphemerals(all.ephemerals, all);
                Suite.equal(all.value(), paths, "all ephemerals, called back");
                Reply some = new Reply();
                zk.getEphemerals(base + "/y", some.ephemerals, some);
                Suite.equal(some.value(), paths.subList(2, 5), "those with a prefix, called back");
                Suite.equal(other.zk.getEphemerals(), List.of(), "another session's");
                other.zk.sync(base);
                Suite.equal(other.zk.getChildren(base, false).size(), 5, "children before the session ends");
            }
            other.zk.sync(base);
            Suite.equal(other.zk.getChildren(base, false), List.of(), "children after the session has ended");
        }
    }

    // ---- lists, identities

    /** (The client asks the list whether it contains null, which those of List.of do not bear.) */
    static List<ACL> list(int perms, String scheme, String id) {
        return Arrays.asList(new ACL(perms, new Id(scheme, id)));
    }

    private static void acl() throws Exception {
        try (Client client = new Client(2)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            Stat stat = new Stat();
            Suite.equal(zk.getACL(base, stat), OPEN, "the list");
            Suite.equal(stat, zk.exists(base, false), "the Stat");
            Suite.equal(zk.getACL(base, null), OPEN, "the list without a Stat");
            List<ACL> read = list(Perms.READ | Perms.ADMIN, "world", "anyone");
            Suite.equal(zk.setACL(base, read, 0).getAversion(), 1, "the aversion");
            fails(Code.BADVERSION, () -> zk.setACL(base, read, 0));
            fails(Code.NONODE, () -> zk.setACL(base + "/x", read, -1));
            fails(Code.NONODE, () -> zk.getACL(base + "/x", null));
            fails(Code.INVALIDACL, () -> zk.setACL(base, new ArrayList<>(), -1));
            Reply got = new Reply();
            zk.getACL(base, null, got.acl, got);
            Suite.equal(got.value(), read, "the list, called back");
            Suite.equal(got.stat.getAversion(), 1, "the aversion, called back");
            fails(Code.NOAUTH, () -> zk.setData(base, null, -1));
            fails(Code.NOAUTH, () -> zk.create(base + "/x", null, OPEN, CreateMode.PERSISTENT));
            Reply refused = new Reply();
            zk.setData(base, null, -1, refused.stats, refused);
            refused.error(Code.NOAUTH);
            Reply set = new Reply();
            zk.setACL(base, OPEN, 1, set.stats, set);
            set.value();
            Suite.equal(set.stat.getAversion(), 2, "the aversion, called back");
            zk.setData(base, null, -1);
            String mine = zk.create(base + "/ip", null, list(Perms.ALL, "ip", "127.0.0.0/8"), CreateMode.PERSISTENT);
            zk.setData(mine, bytes("x"), -1);
            String others = zk.create(base + "/ip2", null, list(Perms.ALL, "ip", "10.1.2.3"), CreateMode.PERSISTENT);
            fails(Code.NOAUTH, () -> zk.getData(others, false, null));
            fails(Code.NOAUTH, () -> zk.setACL(others, OPEN, -1));
            zk.delete(others, -1); // The list of its parent says who may.
        }
    }

    private static void digestAndWhoAmI() throws Exception {
        try (Client client = new Client(0); Client other = new Client(1)) {
            ZooKeeper zk = client.zk;
            String base = fresh(zk);
            Suite.equal(who(zk), List.of("ip:127.0.0.1"), "who I am");
            zk.addAuthInfo("digest", bytes("ann:secret"));
            String path = zk.create(base + "/ann", bytes("hers"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            ACL stored = zk.getACL(path, null).get(0);
            Suite.equal(stored.getId().getScheme(), "digest", "the scheme that is stored");
            Suite.check(stored.getId().getId().startsWith("ann:") && !stored.getId().getId().contains("secret"), "the id that is stored");
            zk.addAuthInfo("digest", bytes("bob:more"));
            Suite.equal(who(zk), List.of("digest:ann", "digest:bob", "ip:127.0.0.1"), "who I am");
            other.zk.sync(path);
            fails(Code.NOAUTH, () -> other.zk.getData(path, false, null));
            fails(Code.NOAUTH, () -> other.zk.setData(path, null, -1));
            fails(Code.NOAUTH, () -> other.zk.getChildren(path, false));
            fails(Code.NOAUTH, () -> other.zk.setACL(path, OPEN, -1));
            fails(Code.NOAUTH, () -> other.zk.multi(List.of(Op.setData(path, null, -1))));
            other.zk.addAuthInfo("digest", bytes("ann:wrong"));
            fails(Code.NOAUTH, () -> other.zk.getData(path, false, null));
            other.zk.addAuthInfo("digest", bytes("ann:secret"));
            Suite.equal(text(other.zk.getData(path, false, null)), "hers", "what one reads who is let in");
            other.zk.setACL(path, OPEN, -1);
        }
    }

    static List<String> who(ZooKeeper zk) throws Exception {
        List<String> all = new ArrayList<>();
        for (ClientInfo info : zk.whoAmI()) {
            all.add(info.getAuthScheme() + ":" + info.getUser());
        }
        return sorted(all);
    }

    private static void authOfAnUnknownScheme() throws Exception {
        try (Client client = new Client(2)) {
            client.zk.addAuthInfo("nonsense", bytes("x"));
            Suite.equal(client.heard.take("an event that says so").getState(), KeeperState.AuthFailed, "the event");
            fails(Code.AUTHFAILED, () -> client.zk.exists("/", false));
            Suite.equal(client.zk.getState(), ZooKeeper.States.AUTH_FAILED, "the state");
        }
    }

    // ---- the ensemble

    private static void config() throws Exception {
        try (Client client = new Client(0)) {
            ZooKeeper zk = client.zk;
            Watcher unused = event -> { };
            Stat stat = new Stat();
            Stat again = new Stat();
            String text = text(zk.getConfig(false, stat));
            Suite.equal(text(zk.getConfig(unused, again)), text, "with a watcher");
            Suite.equal(again, stat, "the Stat");
            Suite.equal(text(zk.getData("/zookeeper/config", false, null)), text, "as data");
            for (int form = 0; form < 2; form++) {
                Reply reply = new Reply();
                if (form == 0) {
                    zk.getConfig(true, reply.data, reply);
                } else {
                    zk.getConfig(unused, reply.data, reply);
                }
                Suite.equal(reply.value(), text, "called back");
                Suite.equal(reply.stat, stat, "the Stat, called back");
            }
            Suite.equal(text.lines().filter(line -> line.startsWith("server.")).count() > 1, servers.length > 1, "members in " + text);
            Suite.check(servers.length == 1 || text.contains("version="), "a version in " + text);
        }
    }

    private static void reconfigureIsDisabled() throws Exception {
        ZooKeeperAdmin admin = new ZooKeeperAdmin(servers[0], SESSION_MS, event -> { });
        try {
            String joining = "server.9=127.0.0.1:1:2;3";
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure(joining, null, null, -1, null));
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure(List.of(joining), null, null, -1, new Stat()));
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure(null, "9", null, 5, null));
            Reply one = new Reply();
            admin.reconfigure(null, null, joining, -1, one.data, one);
            one.error(Code.RECONFIGDISABLED);
            Reply two = new Reply();
            admin.reconfigure(null, null, List.of(joining), -1, two.data, two);
            two.error(Code.RECONFIGDISABLED);
            Suite.check(admin.exists("/", false) != null, "the connection stays");
        } finally {
            admin.close();
        }
    }

    private static void sync() throws Exception {
        try (Client writer = new Client(0); Client reader = new Client(1)) {
            String base = fresh(writer.zk);
            for (int i = 0; i < 50; i++) {
                int version = writer.zk.setData(base, bytes("" + i), -1).getVersion();
                if (i % 2 == 0) {
                    reader.zk.sync(base);
                } else {
                    Reply reply = new Reply();
                    reader.zk.sync(base, reply.done, reply);
                    Suite.equal(reply.value(), base, "the path of the callback");
                }
                Suite.equal(reader.zk.exists(base, false).getVersion(), version, "the version after a sync");
            }
        }
    }
}
