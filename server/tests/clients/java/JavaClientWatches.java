import static org.apache.zookeeper.KeeperException.Code;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/**
 * The third part of {@link JavaClient}: watches.
 *
 * <p>What this proves: which events every kind of watch hears, once or for ever, and in which order; that a watch which was removed hears
 * nothing more.
 *
 * <p>The idea: that something is <em>not</em> heard is shown by a fence: a node is made later, and its event comes next, since the events
 * of one connection come in order.
 */
final class JavaClientWatches {
    private JavaClientWatches() {}

    static void addTo(Suite suite) {
        suite.add("watches-hear-once", JavaClientWatches::watchesHearOnce);
        suite.add("watches-of-every-call", JavaClientWatches::watchesOfEveryCall);
        suite.add("persistent-watch", JavaClientWatches::persistentWatch);
        suite.add("persistent-recursive-watch", JavaClientWatches::persistentRecursiveWatch);
        suite.add("an-event-comes-before-what-it-is-about", JavaClientWatches::anEventComesBeforeWhatItIsAbout);
        suite.add("remove-watches", JavaClientWatches::removeWatches);
        suite.add("remove-one-of-two-watchers", JavaClientWatches::removeOneOfTwoWatchers);
        suite.add("remove-watches-that-are-not-there", JavaClientWatches::removeWatchesThatAreNotThere);
        suite.add("remove-watches-without-a-connection", JavaClientWatches::removeWatchesWithoutAConnection);
    }

    /** What those watchers have heard so far and before now, that is before a fence. */
    static List<String> heardBefore(JavaClient.Client client, Suite.Inbox<WatchedEvent> heard, String base) throws Exception {
        String fence = base + "-fence" + System.nanoTime();
        client.zk.exists(fence, heard::put);
        client.zk.create(fence, null, JavaClient.OPEN, CreateMode.PERSISTENT);
        client.zk.delete(fence, -1);
        List<String> all = new ArrayList<>();
        while (true) {
            WatchedEvent event = heard.take("the fence behind " + all);
            if (fence.equals(event.getPath())) {
                return all;
            }
            all.add(event.getType() + " " + shortened(event.getPath(), base));
        }
    }

    private static String shortened(String path, String base) {
        return path == null ? "" : path.equals(base) ? "." : path.substring(base.length());
    }


    private static void watchesHearOnce() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(0); JavaClient.Client other = new JavaClient.Client(1)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Suite.Inbox<WatchedEvent> heard = new Suite.Inbox<>();
            zk.exists(base + "/new", heard::put);
            other.zk.sync(base);
            long zxid = createdBy(other.zk, base + "/new");
            WatchedEvent event = heard.take("an event");
            Suite.equal(event.getType() + " " + event.getPath(), "NodeCreated " + base + "/new", "the event");
            Suite.equal(event.getState(), KeeperState.SyncConnected, "the state");
            Suite.equal(event.getZxid(), zxid, "the zxid of the event");
            // Each of these is set twice with the same watcher, and hears once.
            Watcher data = heard::put;
            zk.getData(base + "/new", data, null);
            zk.getData(base + "/new", data, null);
            other.zk.setData(base + "/new", null, -1);
            other.zk.setData(base + "/new", null, -1);
            Watcher children = heard::put;
            zk.sync(base);
            zk.getChildren(base, children);
            zk.getChildren(base, children);
            createdBy(other.zk, base + "/second");
            createdBy(other.zk, base + "/third");
            zk.sync(base);
            Suite.equal(heardBefore(client, heard, base), List.of("NodeDataChanged /new", "NodeChildrenChanged ."), "events");
            // One change, several watches: the data watch and the child watch of a node that goes hear of it, and that of its parent does.
            zk.getData(base + "/new", heard::put, null);
            zk.getChildren(base + "/new", heard::put);
            zk.getChildren(base, heard::put);
            other.zk.delete(base + "/new", -1);
            zk.sync(base);
            List<String> events = heardBefore(client, heard, base);
            Suite.equal(JavaClient.sorted(events), List.of("NodeChildrenChanged .", "NodeDeleted /new"), "events of a deletion");
            Suite.equal(events.size(), 3, "events of a deletion: " + events);
            // A watch on a node that is not there, and on the children of one without any.
            zk.exists(base + "/none", heard::put);
            zk.getChildren(base + "/third", heard::put);
            other.zk.setData(base + "/third", null, -1);
            other.zk.delete(base + "/third", -1);
            zk.sync(base);
            Suite.equal(heardBefore(client, heard, base), List.of("NodeDeleted /third"), "events");
        }
    }

    static long createdBy(ZooKeeper zk, String path) throws Exception {
        Stat stat = new Stat();
        zk.create(path, null, JavaClient.OPEN, CreateMode.PERSISTENT, stat);
        return stat.getCzxid();
    }

    /** Each call that can leave a watch leaves one, with a watcher and with the default one, waited for and called back. */
    private static void watchesOfEveryCall() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(2)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Watcher own = client.heard::put;
            for (boolean def : new boolean[] {true, false}) {
                for (int form = 0; form < 10; form++) {
                    JavaClient.Reply reply = new JavaClient.Reply();
                    String want = "NodeDataChanged .";
                    switch (form * 2 + (def ? 1 : 0)) {
                        case 0 -> zk.exists(base, own);
                        case 1 -> zk.exists(base, true);
                        case 2 -> zk.exists(base, own, reply.stats, reply);
                        case 3 -> zk.exists(base, true, reply.stats, reply);
                        case 4 -> zk.getData(base, own, null);
                        case 5 -> zk.getData(base, true, null);
                        case 6 -> zk.getData(base, own, reply.data, reply);
                        case 7 -> zk.getData(base, true, reply.data, reply);
                        case 8 -> zk.getChildren(base, own);
                        case 9 -> zk.getChildren(base, true);
                        case 10 -> zk.getChildren(base, own, reply.children, reply);
                        case 11 -> zk.getChildren(base, true, reply.children, reply);
                        case 12 -> zk.getChildren(base, own, new Stat());
                        case 13 -> zk.getChildren(base, true, new Stat());
                        case 14 -> zk.getChildren(base, own, reply.children2, reply);
                        case 15 -> zk.getChildren(base, true, reply.children2, reply);
                        case 16 -> zk.exists(base + "/missing" + form + def, own);
                        default -> {
                            continue; // A watcher of a node that is not there; nothing else has forms left.
                        }
                    }
                    if (form == 8) {
                        createdBy(zk, base + "/missing" + form + def);
                        want = "NodeCreated /missing" + form + def;
                    } else if (form >= 4) {
                        createdBy(zk, base + "/" + form + def);
                        want = "NodeChildrenChanged .";
                    } else {
                        zk.setData(base, null, -1);
                    }
                    Suite.equal(heardBefore(client, client.heard, base), List.of(want), "the events of form " + form + ", " + def);
                }
            }
            // A call that fails leaves none, but for exists.
            JavaClient.fails(Code.NONODE, () -> zk.getData(base + "/later", own, null));
            JavaClient.fails(Code.NONODE, () -> zk.getChildren(base + "/later", own));
            createdBy(zk, base + "/later");
            Suite.equal(heardBefore(client, client.heard, base), List.of(), "the events of calls that failed");
            zk.register(event -> { });
            zk.exists(base, true);
            zk.setData(base, null, -1);
            Suite.equal(heardBefore(client, client.heard, base), List.of(), "what the old default watcher hears");
        }
    }

    /** Both modes in all four forms: with a watcher and the default one, waited for and called back. */
    private static void addWatch(JavaClient.Client client, int form, String path, AddWatchMode mode) throws Exception {
        JavaClient.Reply reply = new JavaClient.Reply();
        switch (form) {
            case 0 -> client.zk.addWatch(path, client.heard::put, mode);
            case 1 -> client.zk.addWatch(path, mode);
            case 2 -> client.zk.addWatch(path, client.heard::put, mode, reply.done, reply);
            default -> client.zk.addWatch(path, mode, reply.done, reply);
        }
        if (form > 1) {
            Suite.equal(reply.value(), path, "the path of the callback");
        }
    }

    private static void changeThings(ZooKeeper zk, String base) throws Exception {
        zk.create(base, null, JavaClient.OPEN, CreateMode.PERSISTENT);
        zk.setData(base, null, -1);
        zk.multi(List.of(Op.create(base + "/a", null, JavaClient.OPEN, CreateMode.PERSISTENT), Op.setData(base + "/a", null, -1)));
        zk.create(base + "/a/b", null, JavaClient.OPEN, CreateMode.PERSISTENT);
        zk.setData(base + "/a/b", null, -1);
        zk.setACL(base + "/a", JavaClient.OPEN, -1);
        zk.delete(base + "/a/b", -1);
        zk.delete(base + "/a", -1);
        zk.delete(base, -1);
    }

    private static void persistentWatch() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(0)) {
            for (int form = 0; form < 4; form++) {
                String base = JavaClient.fresh(client.zk) + "x";
                addWatch(client, form, base, AddWatchMode.PERSISTENT);
                for (int time = 0; time < 2; time++) {
                    changeThings(client.zk, base);
                    Suite.equal(heardBefore(client, client.heard, base), List.of("NodeCreated .", "NodeDataChanged .",
                        "NodeChildrenChanged .", "NodeChildrenChanged .", "NodeDeleted ."),
                        "the events of form " + form + ", time " + time);
                }
            }
        }
    }

    private static void persistentRecursiveWatch() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(1)) {
            for (int form = 0; form < 4; form++) {
                String base = JavaClient.fresh(client.zk) + "x";
                addWatch(client, form, base, AddWatchMode.PERSISTENT_RECURSIVE);
                for (int time = 0; time < 2; time++) {
                    changeThings(client.zk, base);
                    List<String> events = heardBefore(client, client.heard, base);
                    if (events.get(2).equals("NodeDataChanged /a")) {
                        events.add(2, events.remove(3)); // Events of one transaction have no order.
                    }
                    Suite.equal(events, List.of("NodeCreated .", "NodeDataChanged .", "NodeCreated /a", "NodeDataChanged /a",
                        "NodeCreated /a/b", "NodeDataChanged /a/b", "NodeDeleted /a/b", "NodeDeleted /a", "NodeDeleted ."),
                        "the events of form " + form + ", time " + time);
                }
            }
        }
    }

    /** A client that reads what another wrote has heard the event of it before. */
    private static void anEventComesBeforeWhatItIsAbout() throws Exception {
        try (JavaClient.Client reader = new JavaClient.Client(1); JavaClient.Client writer = new JavaClient.Client(0)) {
            String base = JavaClient.fresh(writer.zk);
            reader.zk.sync(base);
            List<String> order = java.util.Collections.synchronizedList(new ArrayList<>());
            reader.zk.addWatch(base, event -> order.add("event " + event.getZxid()), AddWatchMode.PERSISTENT);
            List<Long> zxids = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                JavaClient.Reply reply = new JavaClient.Reply();
                writer.zk.setData(base, null, -1, reply.stats, reply);
                // Reads go on all the while, so that some answer comes right behind an event.
                reader.zk.exists(base, false, (rc, path, ctx, stat) -> order.add("read " + stat.getMzxid()), null);
                reply.value();
                zxids.add(reply.stat.getMzxid());
            }
            reader.zk.sync(base);
            long last = zxids.get(199);
            Suite.waitFor("the last event", () -> order.contains("event " + last));
            Set<String> heard = new TreeSet<>();
            List<Long> events = new ArrayList<>();
            for (String one : new ArrayList<>(order)) {
                if (one.startsWith("event")) {
                    heard.add(one.substring(6));
                    events.add(Long.parseLong(one.substring(6)));
                } else {
                    String zxid = one.substring(5);
                    Suite.check(heard.contains(zxid) || Long.parseLong(zxid) < zxids.get(0), "read " + zxid + " before its event");
                }
            }
            Suite.equal(events, zxids, "the zxids of the events");
        }
    }

    /** Everything that can listen to one node, each with its own inbox, and what one change of the node tells it. */
    private static final class Listeners {
        final Suite.Inbox<WatchedEvent> data = new Suite.Inbox<>();
        final Suite.Inbox<WatchedEvent> children = new Suite.Inbox<>();
        final Suite.Inbox<WatchedEvent> persistent = new Suite.Inbox<>();
        final Suite.Inbox<WatchedEvent> recursive = new Suite.Inbox<>();
        private final Watcher[] watchers = {data::put, children::put, persistent::put, recursive::put};
        private final String path;

        /** The two persistent kinds cannot both listen to one node on one connection, so one of them is chosen. */
        Listeners(ZooKeeper zk, String path, boolean isRecursive) throws Exception {
            this.path = path;
            zk.getData(path, watchers[0], null);
            zk.getChildren(path, watchers[1]);
            if (isRecursive) {
                zk.addWatch(path, watchers[3], AddWatchMode.PERSISTENT_RECURSIVE);
            } else {
                zk.addWatch(path, watchers[2], AddWatchMode.PERSISTENT);
            }
        }

        Watcher of(WatcherType type) {
            return watchers[switch (type) {
                case Data, Any -> 0;
                case Children -> 1;
                case Persistent -> 2;
                case PersistentRecursive -> 3;
            }];
        }

        /** Changes the node's data and children; the events, by listener. */
        List<List<String>> hear(JavaClient.Client client) throws Exception {
            client.zk.setData(path, null, -1);
            createdBy(client.zk, path + "/child" + System.nanoTime());
            List<List<String>> all = new ArrayList<>();
            for (Suite.Inbox<WatchedEvent> inbox : List.of(data, children, persistent, recursive)) {
                all.add(heardBefore(client, inbox, path).stream().map(event -> event.replaceAll(" .*", "")).toList());
            }
            return all;
        }
    }

    private static void removeWatches() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(2)) {
            ZooKeeper zk = client.zk;
            for (WatcherType type : WatcherType.values()) {
                for (int form = 0; form < 4; form++) {
                    boolean isRecursive = type == WatcherType.PersistentRecursive;
                    Listeners listeners = new Listeners(zk, JavaClient.fresh(zk), isRecursive);
                    JavaClient.Reply reply = new JavaClient.Reply();
                    switch (form) {
                        case 0 -> zk.removeWatches(listeners.path, listeners.of(type), type, false);
                        case 1 -> zk.removeWatches(listeners.path, listeners.of(type), type, false, reply.done, reply);
                        case 2 -> zk.removeAllWatches(listeners.path, type, false);
                        default -> zk.removeAllWatches(listeners.path, type, false, reply.done, reply);
                    }
                    if (form % 2 == 1) {
                        Suite.equal(reply.value(), listeners.path, "the path of the callback");
                    }
                    Set<WatcherType> gone = type != WatcherType.Any ? EnumSet.of(type)
                        : form < 2 ? EnumSet.of(WatcherType.Data) : EnumSet.allOf(WatcherType.class);
                    List<List<String>> want = List.of(
                        gone.contains(WatcherType.Data) ? List.of("DataWatchRemoved") : List.of("NodeDataChanged"),
                        gone.contains(WatcherType.Children) ? List.of("ChildWatchRemoved") : List.of("NodeChildrenChanged"),
                        isRecursive ? List.of() : gone.contains(WatcherType.Persistent) ? List.of("PersistentWatchRemoved")
                            : List.of("NodeDataChanged", "NodeChildrenChanged"),
                        !isRecursive ? List.of() : gone.contains(WatcherType.PersistentRecursive) ? List.of("PersistentWatchRemoved")
                            : List.of("NodeDataChanged", "NodeCreated"));
                    Suite.equal(listeners.hear(client), want, "what is heard after removing " + type + " in form " + form);
                }
            }
        }
    }

    private static void removeOneOfTwoWatchers() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(0)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Suite.Inbox<WatchedEvent> kept = new Suite.Inbox<>();
            Suite.Inbox<WatchedEvent> removed = new Suite.Inbox<>();
            Watcher keep = kept::put;
            Watcher remove = removed::put;
            for (Watcher watcher : List.of(keep, remove)) {
                zk.exists(base, watcher);
                zk.getChildren(base, watcher);
                zk.addWatch(base + "/p", watcher, AddWatchMode.PERSISTENT_RECURSIVE);
            }
            zk.removeWatches(base, remove, WatcherType.Data, false);
            zk.removeWatches(base, remove, WatcherType.Children, false);
            zk.removeWatches(base + "/p", remove, WatcherType.PersistentRecursive, false);
            zk.setData(base, null, -1);
            createdBy(zk, base + "/p");
            createdBy(zk, base + "/p/q");
            Suite.equal(heardBefore(client, removed, base),
                List.of("DataWatchRemoved .", "ChildWatchRemoved .", "PersistentWatchRemoved /p"), "the one that is removed");
            Suite.equal(JavaClient.sorted(heardBefore(client, kept, base)),
                List.of("NodeChildrenChanged .", "NodeCreated /p", "NodeCreated /p/q", "NodeDataChanged ."), "the one that is kept");
        }
    }

    private static void removeWatchesThatAreNotThere() throws Exception {
        try (JavaClient.Client client = new JavaClient.Client(1)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Watcher watcher = client.heard::put;
            for (WatcherType type : WatcherType.values()) {
                JavaClient.fails(Code.NOWATCHER, () -> zk.removeWatches(base, watcher, type, false));
                JavaClient.fails(Code.NOWATCHER, () -> zk.removeAllWatches(base, type, false));
                JavaClient.fails(Code.NOWATCHER, () -> zk.removeAllWatches(base, type, true));
            }
            zk.getChildren(base, watcher);
            JavaClient.fails(Code.NOWATCHER, () -> zk.removeWatches(base, watcher, WatcherType.Data, false));
            JavaClient.fails(Code.NOWATCHER, () -> zk.removeWatches(base, event -> { }, WatcherType.Children, false));
            // The client still believes in a watch of its own that has been heard at the server: it asks, and is told.
            zk.removeWatches(base, watcher, WatcherType.Any, false);
            Suite.equal(heardBefore(client, client.heard, base), List.of("ChildWatchRemoved ."), "events");
        }
    }

    private static void removeWatchesWithoutAConnection() throws Exception {
        try (Suite.Proxy proxy = new Suite.Proxy(JavaClient.servers[0]);
                JavaClient.Client client = new JavaClient.Client(proxy.address(), JavaClient.SESSION_MS)) {
            ZooKeeper zk = client.zk;
            String base = JavaClient.fresh(zk);
            Watcher watcher = client.heard::put;
            zk.exists(base, watcher);
            zk.getChildren(base, watcher);
            zk.addWatch(base, watcher, AddWatchMode.PERSISTENT);
            proxy.cut();
            Suite.equal(client.heard.take("the end of the connection").getState(), KeeperState.Disconnected, "the state");
            client.heard.drain(); // Every watcher is told.
            JavaClient.fails(Code.CONNECTIONLOSS, () -> zk.removeWatches(base, watcher, WatcherType.Data, false));
            zk.removeWatches(base, watcher, WatcherType.Data, true);
            zk.removeAllWatches(base, WatcherType.Persistent, true);
            proxy.restore();
            JavaClient.onceConnected(() -> zk.setData(base, null, -1));
            createdBy(zk, base + "/child");
            List<String> heard = heardBefore(client, client.heard, base);
            heard.removeIf(event -> event.startsWith("None"));
            Suite.equal(JavaClient.sorted(heard),
                List.of("DataWatchRemoved .", "NodeChildrenChanged .", "PersistentWatchRemoved ."), "events");
        }
    }
}
