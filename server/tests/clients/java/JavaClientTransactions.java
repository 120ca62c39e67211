import static org.apache.zookeeper.KeeperException.Code;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AsyncCallback.StatCallback;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZKUtil;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/**
 * The second part of {@link JavaClient}: calls that are about more than one node, or more than one call.
 *
 * <p>What this proves: a multi is done as a whole or not at all, and says of each operation what became of it; reads of many nodes at
 * once; containers and nodes with a time to live go; calls that are under way together come back in their order; whole trees; a root of
 * one's own.
 */
final class JavaClientTransactions {
    private JavaClientTransactions() {}

    static void addTo(Suite suite) {
        suite.add("multi", JavaClientTransactions::multi);
        suite.add("multi-that-fails", JavaClientTransactions::multiThatFails);
        suite.add("multi-read", JavaClientTransactions::multiRead);
        suite.add("transaction", JavaClientTransactions::transaction);
        suite.add("containers-and-ttl-go", JavaClientTransactions::containersAndTtlGo);
        suite.add("pipelined-calls-come-back-in-order", JavaClientTransactions::pipelinedCallsComeBackInOrder);
        suite.add("trees-listed-and-deleted", JavaClientTransactions::treesListedAndDeleted);
        suite.add("chroot", JavaClientTransactions::chroot);
    }

    // ---- transactions

    private static void multi() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(1)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            byte[] data = JavaClient.bytes("d");
            zk.create(base + "/gone", null, JavaClient.OPEN, CreateMode.PERSISTENT);
            List<OpResult> results = zk.multi(List.of(
                Op.create(base + "/flag", data, JavaClient.OPEN, CreateMode.PERSISTENT.toFlag()),
                Op.create(base + "/mode", data, JavaClient.OPEN, CreateMode.EPHEMERAL),
                Op.create(base + "/seq", data, JavaClient.OPEN, CreateMode.PERSISTENT_SEQUENTIAL),
                Op.create(base + "/container", data, JavaClient.OPEN, CreateMode.CONTAINER),
                Op.create(base + "/ttl", data, JavaClient.OPEN, CreateMode.PERSISTENT_WITH_TTL, 60_000),
                Op.create(base + "/ttl-flag", data, JavaClient.OPEN, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL.toFlag(), 60_000),
                Op.create(base + "/flag/child", data, JavaClient.OPEN, CreateMode.PERSISTENT),
                Op.check(base + "/flag", 0),
                Op.setData(base + "/flag", JavaClient.bytes("longer"), 0),
                Op.check(base + "/flag", 1),
                Op.delete(base + "/gone", 0)));
            List<String> made = List.of("flag", "mode", "seq", "container", "ttl", "ttl-flag", "flag/child");
            long zxid = zk.exists(base + "/mode", false).getCzxid();
            for (int i = 0; i < made.size(); i++) {
                OpResult.CreateResult result = (OpResult.CreateResult) results.get(i);
                Suite.check(result.getPath().startsWith(base + "/" + made.get(i)), "the path " + result.getPath());
                Stat now = zk.exists(result.getPath(), false);
                Suite.equal(now.getCzxid(), zxid, "all of it has one zxid");
                if (made.get(i).contains("ttl") || made.get(i).equals("container")) {
                    Suite.equal(result.getStat(), now, "the Stat of " + result.getPath());
                }
            }
            Suite.check(results.get(7) instanceof OpResult.CheckResult && results.get(9) instanceof OpResult.CheckResult, "checks");
            Suite.equal(((OpResult.SetDataResult) results.get(8)).getStat(), zk.exists(base + "/flag", false), "the Stat of setData");
            Suite.check(results.get(10) instanceof OpResult.DeleteResult, "delete");
            Suite.equal(zk.exists(base + "/gone", false), null, "a deleted node");
            Suite.equal(zk.getChildren(base, false).size(), 6, "children");
            JavaClient.Reply reply = new JavaClient.Reply();
            zk.multi(List.of(Op.check(base, 0), Op.setData(base, data, 0)), reply.multi, reply);
            List<?> answered = (List<?>) reply.value();
            Suite.equal(((OpResult.SetDataResult) answered.get(1)).getStat(), zk.exists(base, false), "the Stat, called back");
            Suite.equal(zk.multi(List.of()), List.of(), "no operation at all");
        }
    }

    private static void multiThatFails() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(2)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Stat before = zk.exists(base, false);
            List<Op> ops = List.of(
                Op.create(base + "/a", null, JavaClient.OPEN, CreateMode.PERSISTENT),
                Op.setData(base, JavaClient.bytes("x"), -1),
                Op.check(base, 7),
                Op.delete(base + "/missing", -1));
            List<Code> want = List.of(Code.OK, Code.OK, Code.BADVERSION, Code.RUNTIMEINCONSISTENCY);
            KeeperException problem = Suite.thrown(KeeperException.class, "a multi that must fail", () -> zk.multi(ops));
            Suite.equal(problem.code(), Code.BADVERSION, "the code");
            Suite.equal(codes(problem.getResults()), want, "the result of each");
            JavaClient.Reply reply = new JavaClient.Reply();
            zk.multi(ops, reply.multi, reply);
            reply.error(Code.BADVERSION);
            Suite.equal(codes((List<?>) reply.value), want, "the result of each, called back");
            for (CreateMode mode : List.of(CreateMode.PERSISTENT, CreateMode.EPHEMERAL, CreateMode.CONTAINER)) {
                List<Op> exists = List.of(Op.setData(base, null, -1), Op.create(base, null, JavaClient.OPEN, mode));
                JavaClient.fails(Code.NODEEXISTS, () -> zk.multi(exists));
            }
            Suite.equal(zk.exists(base, false), before, "nothing has changed");
            Suite.equal(zk.getChildren(base, false), List.of(), "nothing was made");
        }
    }

    private static List<Code> codes(List<?> results) {
        List<Code> codes = new ArrayList<>();
        for (Object result : results) {
            codes.add(result instanceof OpResult.ErrorResult error ? Code.get(error.getErr()) : Code.OK);
        }
        return codes;
    }

    private static void multiRead() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(0)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            zk.create(base + "/a", JavaClient.bytes("A"), JavaClient.OPEN, CreateMode.PERSISTENT);
            zk.create(base + "/locked", null, JavaClient.list(Perms.ADMIN, "world", "anyone"), CreateMode.PERSISTENT);
            List<Op> ops = List.of(Op.getData(base + "/a"), Op.getChildren(base), Op.getData(base + "/x"), Op.getChildren(base + "/x"),
                Op.getData(base + "/locked"));
            List<OpResult> results = zk.multi(ops);
            OpResult.GetDataResult data = (OpResult.GetDataResult) results.get(0);
            Suite.equal(JavaClient.text(data.getData()), "A", "the data");
            Suite.equal(data.getStat(), zk.exists(base + "/a", false), "the Stat");
            OpResult.GetChildrenResult children = (OpResult.GetChildrenResult) results.get(1);
            Suite.equal(JavaClient.sorted(children.getChildren()), List.of("a", "locked"), "the children");
            Suite.equal(codes(results), List.of(Code.OK, Code.OK, Code.NONODE, Code.NONODE, Code.NOAUTH), "the result of each");
            JavaClient.Reply reply = new JavaClient.Reply();
            zk.multi(ops, reply.multi, reply);
            reply.error(Code.NONODE); // The first of them; only those who are called back are told.
            Suite.equal(codes((List<?>) reply.value), codes(results), "the result of each, called back");
            zk.setACL(base + "/locked", JavaClient.OPEN, -1);
            Suite.thrown(IllegalArgumentException.class, "reads and writes at once", () ->
                zk.multi(List.of(Op.getData(base), Op.setData(base, null, -1))));
        }
    }

    private static void transaction() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(1)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            List<OpResult> results = zk.transaction()
                .create(base + "/a", JavaClient.bytes("a"), JavaClient.OPEN, CreateMode.PERSISTENT)
                .check(base + "/a", 0)
                .setData(base + "/a", JavaClient.bytes("b"), 0)
                .create(base + "/b", null, JavaClient.OPEN, CreateMode.PERSISTENT)
                .delete(base + "/b", -1)
                .commit();
            Suite.equal(results.size(), 5, "results");
            Suite.equal(JavaClient.text(zk.getData(base + "/a", false, null)), "b", "the data");
            JavaClient.Reply reply = new JavaClient.Reply();
            zk.transaction().delete(base + "/a", 1).delete(base, -1).commit(reply.multi, reply);
            reply.value();
            Suite.equal(zk.exists(base, false), null, "a deleted node");
        }
    }

    // ---- time, order, size

    private static void containersAndTtlGo() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(2)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            String ttl = zk.create(base + "/ttl", null, JavaClient.OPEN, CreateMode.PERSISTENT_WITH_TTL, new Stat(), 500);
            String long_ = zk.create(base + "/long", null, JavaClient.OPEN, CreateMode.PERSISTENT_WITH_TTL, new Stat(), 600_000);
            String parent = zk.create(base + "/parent", null, JavaClient.OPEN, CreateMode.PERSISTENT_WITH_TTL, new Stat(), 1);
            zk.create(parent + "/child", null, JavaClient.OPEN, CreateMode.EPHEMERAL);
            String unused = zk.create(base + "/unused", null, JavaClient.OPEN, CreateMode.CONTAINER);
            String used = zk.create(base + "/used", null, JavaClient.OPEN, CreateMode.CONTAINER);
            zk.create(used + "/child", null, JavaClient.OPEN, CreateMode.PERSISTENT);
            zk.exists(used, heard::put);
            zk.delete(used + "/child", -1);
            WatchedEvent event = heard.take("a container to go whose last child has gone");
            Suite.equal(event.getType() + " " + event.getPath(), "NodeDeleted " + used, "the event");
            Suite.waitFor("a node to go whose time is over", () -> zk.exists(ttl, false) == null);
            Suite.equal(JavaClient.sorted(zk.getChildren(base, false)), List.of("long", "parent", "unused"), "what must stay");
            zk.delete(parent + "/child", -1);
            Suite.waitFor("a node to go whose time is over, after its child", () -> zk.getChildren(base, false).size() == 2);
            Suite.check(zk.exists(long_, false) != null && zk.exists(unused, false) != null, "what must stay");
        }
    }

    private static void pipelinedCallsComeBackInOrder() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(0)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            int calls = 3000;
            List<Integer> order = Collections.synchronizedList(new ArrayList<>());
            Map<Integer, Integer> versions = Collections.synchronizedMap(new HashMap<>());
            CountDownLatch left = new CountDownLatch(calls);
            for (int i = 0; i < calls; i++) {
                int number = i;
                StatCallback callback = (rc, path, ctx, stat) -> {
                    order.add(number);
                    versions.put(number, stat == null ? rc : stat.getVersion());
                    left.countDown();
                };
                if (i % 3 == 0) {
                    zk.setData(base, JavaClient.bytes("" + i), -1, callback, null);
                } else {
                    zk.exists(base, false, callback, null);
                }
            }
            Suite.check(left.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), left.getCount() + " callbacks are missing");
            for (int i = 0; i < calls; i++) {
                Suite.equal(order.get(i), i, "callback number " + i);
                Suite.equal(versions.get(i), i / 3 + 1, "the version that call " + i + " saw"); // A read sees the writes before it.
            }
        }
    }

    private static void treesListedAndDeleted() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(1)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            JavaClient.Reply last = new JavaClient.Reply();
            for (int i = 0; i < 40; i++) {
                zk.create(base + "/" + i, null, JavaClient.OPEN, CreateMode.PERSISTENT, new JavaClient.Reply().string, null);
                for (int j = 0; j < 40; j++) {
                    JavaClient.Reply reply = i == 39 && j == 39 ? last : new JavaClient.Reply();
                    zk.create(base + "/" + i + "/" + j, null, JavaClient.OPEN, CreateMode.PERSISTENT, reply.string, reply);
                }
            }
            last.value();
            Suite.equal(zk.getAllChildrenNumber(base), 1640, "nodes");
            Suite.equal(ZKUtil.listSubTreeBFS(zk, base).size(), 1641, "nodes listed");
            JavaClient.Reply reply = new JavaClient.Reply();
            ZKUtil.deleteRecursive(zk, base + "/0", reply.done, reply);
            reply.value();
            Suite.check(ZKUtil.deleteRecursive(zk, base, 50), "all were deleted");
            Suite.equal(zk.exists(base, false), null, "a deleted tree");
        }
    }

    private static void chroot() throws Exception {
        try (JavaClient.Client outside = new JavaClient.Client(0)) {
            String base = JavaClient.fresh(outside.zk);
            try (JavaClient.Client inside = new JavaClient.Client(JavaClient.servers[0] + base, JavaClient.SESSION_MS)) {
                ZooKeeper zk = inside.zk;
                Suite.equal(zk.create("/a", null, JavaClient.OPEN, CreateMode.EPHEMERAL), "/a", "the path");
                Suite.check(outside.zk.exists(base + "/a", true) != null, "it is below the root");
                Suite.equal(zk.getChildren("/", true), List.of("a"), "the children of the root");
                OpResult result = zk.multi(List.of(Op.create("/s", null, JavaClient.OPEN, CreateMode.PERSISTENT_SEQUENTIAL))).get(0);
                String made = ((OpResult.CreateResult) result).getPath(); // The client (3.9.5) forgets to take the chroot off.
                Suite.check(made.equals("/s0000000001") || made.equals(base + "/s0000000001"), "the path of a multi: " + made);
                WatchedEvent event = inside.heard.take("an event");
                Suite.equal(event.getType() + " " + event.getPath(), "NodeChildrenChanged /", "the event");
                Suite.equal(outside.zk.exists(base + "/a", false).getEphemeralOwner(), zk.getSessionId(), "the owner");
                Suite.check(java.util.Arrays.equals(zk.getConfig(false, null), outside.zk.getConfig(false, null)),
                    "the configuration has no chroot");
            }
        }
    }
}
