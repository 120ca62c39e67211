import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.api.CuratorEvent;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.data.Stat;

/**
 * The third part of {@link CuratorRecipes}: what keeps nodes, or a picture of them, alive.
 *
 * <p>What this proves: caches of every kind, watchers and persistent nodes come through the loss of connections and of sessions;
 * transactions are whole; containers go, and nothing else does; a protected creation whose answer is lost is found again.
 */
final class CuratorNodes {
    private CuratorNodes() {}

    static void addTo(Suite suite) {
        suite.add("caches-and-lost-connections", () -> cachesAnd(false));
        suite.add("caches-and-lost-sessions", () -> cachesAnd(true));
        suite.add("persistent-node", CuratorNodes::persistentNode);
        suite.add("persistent-ttl-node", CuratorNodes::persistentTtlNode);
        suite.add("persistent-watcher", CuratorNodes::persistentWatcher);
        suite.add("transaction", CuratorNodes::transaction);
        suite.add("containers", CuratorNodes::containers);
        suite.add("protected-creation", CuratorNodes::protectedCreation);
        suite.add("operations-in-background", CuratorNodes::operationsInBackground);
        suite.add("ensemble-tracker", CuratorNodes::ensembleTracker);
    }

    // ---- caches, nodes, watchers

    /** The tree is changed by another client while the connection, or the session, of one that has a cache of every kind is lost. */
    private static void cachesAnd(boolean sessions) throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorRecipes.make(path);
        List<CuratorCaches.Follower> followers = new ArrayList<>();
        try (Suite.Proxy proxy = new Suite.Proxy(CuratorRecipes.servers[0]);
                CuratorFramework client = CuratorWorker.connect(proxy.address(), 10_000, false)) {
            CuratorWorker.sync(client, path);
            for (String kind : CuratorCaches.KINDS) {
                followers.add(CuratorCaches.open(client, kind, path));
            }
            for (int round = 0; round < 3; round++) {
                CuratorWorker.mutate(CuratorRecipes.client, path, 60, round);
                if (sessions) {
                    CuratorAlone.loseSession(client, proxy);
                } else {
                    proxy.cut();
                    CuratorWorker.mutate(CuratorRecipes.client, path, 60, 10 + round);
                    proxy.restore();
                }
                CuratorWorker.mutate(CuratorRecipes.client, path, 60, 20 + round);
                Suite.check(client.blockUntilConnected(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "it is connected again");
                for (int i = 0; i < followers.size(); i++) {
                    CuratorCaches.converge(client, followers.get(i), CuratorCaches.KINDS.get(i), path, false);
                }
            }
            for (CuratorCaches.Follower follower : followers) {
                follower.close();
            }
        }
    }

    private static void persistentNode() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorFramework client = CuratorRecipes.client;
        for (CreateMode mode : List.of(CreateMode.EPHEMERAL, CreateMode.PERSISTENT, CreateMode.CONTAINER,
                CreateMode.EPHEMERAL_SEQUENTIAL)) {
            for (boolean guarded : new boolean[] {false, true}) {
                try (PersistentNode node = new PersistentNode(client, mode, guarded, path + mode + guarded, CuratorAlone.bytes("one"))) {
                    node.start();
                    Suite.check(node.waitForInitialCreate(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "it is made");
                    Suite.equal(CuratorAlone.text(client.getData().forPath(node.getActualPath())), "one", "its data");
                    node.setData(CuratorAlone.bytes("two"));
                    Suite.waitFor("its data to be set",
                        () -> CuratorAlone.text(client.getData().forPath(node.getActualPath())).equals("two"));
                    String old = node.getActualPath();
                    long zxid = client.checkExists().forPath(old).getCzxid();
                    client.delete().forPath(old);
                    Suite.waitFor("it to be made again", () -> {
                        Stat stat = client.checkExists().forPath(node.getActualPath());
                        return stat != null && stat.getCzxid() > zxid;
                    });
                    Suite.equal(CuratorAlone.text(client.getData().forPath(node.getActualPath())), "two", "its data");
                    String last = node.getActualPath();
                    node.close();
                    Suite.equal(client.checkExists().forPath(last), null, "a node that was closed");
                }
            }
        }
    }

    /** Its child has a time to live, and is touched as long as the node is open; afterwards both go. */
    private static void persistentTtlNode() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorFramework client = CuratorRecipes.client;
        String child = path + "/" + PersistentTtlNode.DEFAULT_CHILD_NODE_NAME;
        try (PersistentTtlNode node = new PersistentTtlNode(client, path, 1_000, CuratorAlone.bytes("data"))) {
            node.start();
            Suite.check(node.waitForInitialCreate(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "it is made");
            Suite.equal(CuratorAlone.text(client.getData().forPath(path)), "data", "its data");
            Suite.waitFor("its child", () -> client.checkExists().forPath(child) != null);
            Stat first = client.checkExists().forPath(child);
            // Three times its life long it is the same child, and is touched.
            Suite.waitFor("it to be touched for long", () -> {
                Stat now = client.checkExists().forPath(child);
                Suite.check(now != null && now.getCzxid() == first.getCzxid(), "the child is still there: " + now);
                return now.getMtime() - first.getCtime() > 3_000;
            });
        }
        Suite.waitFor("both to go", () -> client.checkExists().forPath(path) == null);
    }

    private static void persistentWatcher() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorRecipes.make(path);
        for (boolean recursive : new boolean[] {false, true}) {
            String base = path + "/" + recursive;
            CuratorRecipes.make(base);
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            AtomicInteger resets = new AtomicInteger();
            Suite.Inbox<ConnectionState> states = new Suite.Inbox<>();
            try (Suite.Proxy proxy = new Suite.Proxy(CuratorRecipes.servers[0]);
                    CuratorFramework client = CuratorWorker.connect(proxy.address(), 10_000, false);
                    PersistentWatcher watcher = new PersistentWatcher(client, base, recursive)) {
                watcher.getListenable().addListener(heard::put);
                watcher.getResetListenable().addListener(resets::incrementAndGet);
                client.getConnectionStateListenable().addListener((ignored, state) -> states.put(state));
                watcher.start();
                Suite.waitFor("the watch to be set", () -> resets.get() > 0);
                changesAreHeard(heard, base, recursive);
                int before = resets.get();
                proxy.disconnect();
                for (ConnectionState state = null; state != ConnectionState.RECONNECTED; ) {
                    state = states.take("the connection to come back, after " + state);
                }
                Suite.waitFor("the watch to be set again", () -> resets.get() > before);
                changesAreHeard(heard, base, recursive);
            }
        }
    }

    private static void changesAreHeard(Suite.Inbox<WatchedEvent> heard, String base, boolean recursive) throws Exception {
        for (int i = 0; i < 3; i++) {
            CuratorRecipes.client.create().forPath(base + "/child", CuratorAlone.bytes("1"));
            CuratorRecipes.client.setData().forPath(base + "/child", CuratorAlone.bytes("2"));
            CuratorRecipes.client.delete().forPath(base + "/child");
            CuratorRecipes.client.setData().forPath(base, CuratorAlone.bytes("3"));
            List<String> want = recursive ? List.of("NodeCreated/child", "NodeDataChanged/child", "NodeDeleted/child", "NodeDataChanged")
                : List.of("NodeChildrenChanged", "NodeChildrenChanged", "NodeDataChanged");
            for (String one : want) {
                WatchedEvent event = heard.take(one);
                while (event.getPath() == null) {
                    event = heard.take(one); // Of the connection.
                }
                Suite.equal(event.getType() + event.getPath().substring(base.length()), one, "the event");
            }
        }
    }

    // ---- the framework

    private static void transaction() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorFramework client = CuratorRecipes.client;
        List<CuratorTransactionResult> results = client.transaction().forOperations(
            client.transactionOp().create().forPath(path, CuratorAlone.bytes("a")),
            client.transactionOp().create().withMode(CreateMode.CONTAINER).forPath(path + "/b"),
            client.transactionOp().create().withTtl(60_000).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath(path + "/c"),
            client.transactionOp().check().withVersion(0).forPath(path),
            client.transactionOp().setData().withVersion(0).forPath(path, CuratorAlone.bytes("z")),
            client.transactionOp().delete().forPath(path + "/b"));
        Suite.equal(results.size(), 6, "results");
        Suite.equal(results.get(0).getResultPath(), path, "a result's path");
        Suite.equal(results.get(4).getResultStat(), stat(client, path, 1), "a result's Stat");
        Suite.thrown(KeeperException.BadVersionException.class, "a transaction that must fail", () -> client.transaction().forOperations(
            client.transactionOp().create().forPath(path + "/x"),
            client.transactionOp().setData().withVersion(0).forPath(path, CuratorAlone.bytes("y"))));
        Suite.equal(client.checkExists().forPath(path + "/x"), null, "what must not have been made");
        CompletableFuture<CuratorEvent> event = new CompletableFuture<>();
        client.transaction().inBackground((ignored, done) -> event.complete(done)).forOperations(
            client.transactionOp().delete().forPath(path + "/c"), client.transactionOp().delete().withVersion(1).forPath(path));
        Suite.equal(event.get(Suite.WAIT_SECONDS, TimeUnit.SECONDS).getResultCode(), 0, "the code in the background");
        Suite.equal(client.checkExists().forPath(path), null, "a deleted node");
    }

    /** The Stat that a node had when it had no children, which came and went in the same transaction as its data. */
    private static Stat stat(CuratorFramework client, String path, int version) throws Exception {
        Stat now = client.checkExists().forPath(path);
        Suite.equal(now.getVersion(), version, "the version");
        return new Stat(now.getCzxid(), now.getMzxid(), now.getCtime(), now.getMtime(), now.getVersion(), 2, now.getAversion(),
            now.getEphemeralOwner(), now.getDataLength(), 2, now.getPzxid());
    }

    private static void containers() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorFramework client = CuratorRecipes.client;
        client.createContainers(path + "/a/b");
        client.createContainers(path + "/a/b");
        Suite.check(client.checkExists().forPath(path + "/a/b") != null, "it is there");
        client.create().creatingParentContainersIfNeeded().forPath(path + "/a/b/c/d");
        client.create().creatingParentsIfNeeded().forPath(path + "-kept/x/y");
        client.checkExists().creatingParentContainersIfNeeded().forPath(path + "/unused/z");
        client.delete().forPath(path + "-kept/x/y");
        client.delete().forPath(path + "/a/b/c/d");
        // One after the other, up to what has another child.
        Suite.waitFor("the containers to go", () -> client.checkExists().forPath(path + "/a") == null);
        Suite.equal(client.getChildren().forPath(path), List.of("unused"), "a container that never had a child stays");
        Suite.check(client.checkExists().forPath(path + "-kept/x") != null, "what is no container stays");
    }

    /** Creation whose answer is lost is found again by its client, not made twice. */
    private static void protectedCreation() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorRecipes.make(path);
        try (Suite.Proxy proxy = new Suite.Proxy(CuratorRecipes.servers[0]);
                CuratorFramework client = CuratorWorker.connect(proxy.address(), 10_000, false)) {
            CuratorWorker.sync(client, path);
            for (int i = 1; i <= 3; i++) {
                proxy.loseAnswers();
                CompletableFuture<String> made = CompletableFuture.supplyAsync(() -> {
                    try {
                        return client.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(path + "/n");
                    } catch (Exception problem) {
                        throw new IllegalStateException(problem);
                    }
                });
                int count = i;
                Suite.waitFor("it to be made", () -> {
                    CuratorWorker.sync(CuratorRecipes.client, path);
                    return CuratorRecipes.client.getChildren().forPath(path).size() == count;
                });
                Suite.check(!made.isDone(), "its client does not know");
                proxy.disconnect();
                proxy.restore();
                String name = made.get(Suite.WAIT_SECONDS, TimeUnit.SECONDS);
                List<String> children = CuratorRecipes.client.getChildren().forPath(path);
                Suite.check(children.size() == i && children.contains(name.substring(path.length() + 1)), name + " is one of " + children);
            }
        }
    }

    private static void operationsInBackground() throws Exception {
        String path = CuratorRecipes.fresh();
        CuratorFramework client = CuratorRecipes.client;
        Suite.Inbox<CuratorEvent> events = new Suite.Inbox<>();
        for (int i = 0; i < 300; i++) {
            client.create().orSetData().creatingParentsIfNeeded().inBackground((ignored, event) -> events.put(event))
                .forPath(path + "/" + i % 100);
        }
        for (int i = 0; i < 300; i++) {
            Suite.equal(events.take("event " + i).getResultCode(), 0, "the code");
        }
        Suite.equal(client.getChildren().forPath(path).size(), 100, "children");
        client.create().idempotent().forPath(path + "/same", CuratorAlone.bytes("x"));
        client.create().idempotent().forPath(path + "/same", CuratorAlone.bytes("x"));
        Stat stat = new Stat();
        client.setData().idempotent().withVersion(0).forPath(path + "/same", CuratorAlone.bytes("y"));
        client.setData().idempotent().withVersion(0).forPath(path + "/same", CuratorAlone.bytes("y"));
        Suite.equal(CuratorAlone.text(client.getData().storingStatIn(stat).forPath(path + "/same")), "y", "the data");
        Suite.equal(stat.getVersion(), 1, "the version");
        client.delete().idempotent().forPath(path + "/nothing");
        client.delete().guaranteed().deletingChildrenIfNeeded().forPath(path);
        Suite.equal(client.checkExists().forPath(path), null, "a deleted tree");
    }

    /** A client that was told one server learns the others from the ensemble's configuration, and stays where it is without one. */
    private static void ensembleTracker() throws Exception {
        String one = CuratorRecipes.servers[0];
        try (CuratorFramework client = CuratorWorker.connect(one, 10_000, true)) {
            Suite.check(client.blockUntilConnected(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "it is connected");
            String config = CuratorAlone.text(client.getConfig().forEnsemble());
            boolean hasClientPorts = config.lines().anyMatch(line -> line.startsWith("server.") && line.contains(";"));
            TreeSet<String> want = new TreeSet<>(hasClientPorts ? List.of(CuratorRecipes.servers) : List.of(one));
            Suite.waitFor("the servers to be " + want, () ->
                new TreeSet<>(List.of(client.getZookeeperClient().getCurrentConnectionString().split(","))).equals(want));
            Suite.check(client.checkExists().forPath("/zookeeper/config") != null, "it can be asked");
        }
    }
}
