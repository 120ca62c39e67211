import java.io.Closeable;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicValue;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.locks.Revoker;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueAllocator;
import org.apache.curator.framework.recipes.queue.QueueSharder;
import org.apache.curator.framework.recipes.queue.QueueSharderPolicies;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedCountListener;
import org.apache.curator.framework.recipes.shared.SharedCountReader;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/**
 * The second part of {@link CuratorRecipes}: recipes in one process, where an order, or a lost session, matters.
 *
 * <p>What this proves: timeouts, participants and revocation of locks; who leads when leaders leave, are interrupted, or lose their
 * session; queues' orders.
 *
 * <p>The idea: connections are lost in a TCP proxy of this process; a session is lost by being taken over, and closed, while its own
 * client is cut off.
 */
final class CuratorAlone {
    private CuratorAlone() {}

    static void addTo(Suite suite) {
        suite.add("lost-session-of-a-leader", CuratorAlone::lostSessionOfALeader);
        suite.add("mutex-one-by-one", CuratorAlone::mutexOneByOne);
        suite.add("mutex-revoked", CuratorAlone::mutexRevoked);
        suite.add("semaphore-of-several-leases", CuratorAlone::semaphoreOfSeveralLeases);
        suite.add("leader-latch-participants", CuratorAlone::leaderLatchParticipants);
        suite.add("leader-selector-interrupted", CuratorAlone::leaderSelectorInterrupted);
        suite.add("atomic-value", CuratorAlone::atomicValue);
        suite.add("shared-count-is-heard", CuratorAlone::sharedCountIsHeard);
        suite.add("queue-order-of-priorities", CuratorAlone::queueOrderOfPriorities);
        suite.add("queue-not-before-its-time", CuratorAlone::queueNotBeforeItsTime);
        suite.add("queue-removed-by-id", CuratorAlone::queueRemovedById);
        suite.add("queue-sharded", CuratorAlone::queueSharded);
        suite.add("queue-simple-calls", CuratorAlone::queueSimpleCalls);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static CuratorFramework connect(int server) {
        return CuratorWorker.connect(CuratorRecipes.servers[server % CuratorRecipes.servers.length], 10_000, false);
    }

    /** Ends the session of a client that is connected through this proxy alone. */
    static void loseSession(CuratorFramework client, Suite.Proxy proxy) throws Exception {
        ZooKeeper zk = client.getZookeeperClient().getZooKeeper();
        proxy.cut();
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper heir = new ZooKeeper(CuratorRecipes.servers[0], 10_000, event -> {
            if (event.getState() == KeeperState.SyncConnected) {
                connected.countDown();
            }
        }, zk.getSessionId(), zk.getSessionPasswd());
        Suite.check(connected.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the session could be taken over");
        Suite.equal(heir.getSessionId(), zk.getSessionId(), "the session that was taken over");
        heir.close();
        proxy.restore();
    }

    /** Who waits for what a victim holds, see {@code victim} of {@link CuratorWorker}. */
    static final class Heirs implements Closeable {
        private final InterProcessMutex mutex;
        private final InterProcessReadWriteLock lock;
        private final InterProcessSemaphoreV2 semaphore;
        private final LeaderLatch latch;
        private final GroupMember member;

        Heirs(CuratorFramework client, String path) throws Exception {
            mutex = new InterProcessMutex(client, path + "/mutex");
            lock = new InterProcessReadWriteLock(client, path + "/lock");
            semaphore = new InterProcessSemaphoreV2(client, path + "/semaphore", 1);
            latch = new LeaderLatch(client, path + "/latch", "heir");
            latch.start();
            member = new GroupMember(client, path + "/group", "heir");
            member.start();
            Suite.waitFor("both members", () -> member.getCurrentMembers().size() == 2);
        }

        boolean haveAny() throws Exception {
            return mutex.acquire(0, TimeUnit.SECONDS) || lock.readLock().acquire(0, TimeUnit.SECONDS)
                || semaphore.acquire(0, TimeUnit.SECONDS) != null || latch.hasLeadership();
        }

        void takeAll() throws Exception {
            Suite.check(mutex.acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the mutex");
            Suite.check(lock.readLock().acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the lock");
            Suite.check(semaphore.acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS) != null, "the lease");
            Suite.check(latch.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "leadership");
            Suite.waitFor("the member to be gone", () -> member.getCurrentMembers().keySet().equals(java.util.Set.of("heir")));
        }

        @Override
        public void close() throws java.io.IOException {
            latch.close();
            member.close();
        }
    }

    // ---- locks and leaders

    private static void mutexOneByOne() throws Exception {
        String path = CuratorRecipes.fresh();
        try (CuratorFramework other = connect(1)) {
            InterProcessMutex mine = new InterProcessMutex(CuratorRecipes.client, path);
            InterProcessMutex others = new InterProcessMutex(other, path);
            mine.acquire();
            Suite.check(mine.isAcquiredInThisProcess() && mine.isOwnedByCurrentThread(), "it is mine");
            Suite.check(!others.acquire(50, TimeUnit.MILLISECONDS), "it is not the other's");
            Suite.equal(mine.getParticipantNodes().size(), 1, "who gave up has left the queue");
            CompletableFuture<Boolean> waiting = CompletableFuture.supplyAsync(() -> {
                try {
                    return others.acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS);
                } catch (Exception problem) {
                    throw new IllegalStateException(problem);
                }
            });
            Suite.waitFor("the other to wait", () -> mine.getParticipantNodes().size() == 2);
            Suite.check(!waiting.isDone(), "the other waits");
            mine.release();
            Suite.check(waiting.get(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the other has it");
            Suite.thrown(IllegalMonitorStateException.class, "a release of what is not held", mine::release);
        }
    }

    private static void mutexRevoked() throws Exception {
        String path = CuratorRecipes.fresh();
        try (CuratorFramework other = connect(2)) {
            InterProcessMutex mine = new InterProcessMutex(CuratorRecipes.client, path);
            CountDownLatch asked = new CountDownLatch(1);
            mine.makeRevocable(lock -> asked.countDown());
            mine.acquire();
            CuratorWorker.sync(other, path);
            Revoker.attemptRevoke(other, mine.getParticipantNodes().iterator().next());
            Suite.check(asked.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the holder is asked to let go");
            mine.release();
        }
    }

    private static void semaphoreOfSeveralLeases() throws Exception {
        String path = CuratorRecipes.fresh();
        try (CuratorFramework other = connect(1)) {
            InterProcessSemaphoreV2 mine = new InterProcessSemaphoreV2(CuratorRecipes.client, path, 3);
            InterProcessSemaphoreV2 others = new InterProcessSemaphoreV2(other, path, 3);
            mine.setNodeData(bytes("mine"));
            Collection<Lease> two = mine.acquire(2);
            Suite.equal(two.size(), 2, "leases");
            Suite.equal(text(two.iterator().next().getData()), "mine", "the data of a lease");
            Suite.equal(others.acquire(2, 100, TimeUnit.MILLISECONDS), null, "two where one is left");
            Lease third = others.acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS);
            Suite.check(third != null, "the third, which was given back");
            Suite.equal(others.acquire(0, TimeUnit.MILLISECONDS), null, "a fourth");
            Suite.waitFor("three participants", () -> mine.getParticipantNodes().size() == 3);
            mine.returnAll(two);
            others.returnAll(others.acquire(2, Suite.WAIT_SECONDS, TimeUnit.SECONDS));
            others.returnLease(third);
        }
    }

    /**
     * Every participant agrees on the one that leads; when it leaves, it is the next that came.
     *
     * <p>A latch that is closed deletes its node first, and tells its listener then: the next may be heard in between.
     */
    private static void leaderLatchParticipants() throws Exception {
        String path = CuratorRecipes.fresh();
        List<CuratorFramework> clients = new ArrayList<>();
        List<LeaderLatch> latches = new ArrayList<>();
        List<String> turns = Collections.synchronizedList(new ArrayList<>());
        try {
            for (int i = 0; i < 5; i++) {
                CuratorFramework client = connect(i);
                clients.add(client);
                LeaderLatch latch = new LeaderLatch(client, path, "p" + i, LeaderLatch.CloseMode.NOTIFY_LEADER);
                latches.add(latch);
                latch.addListener(new LeaderLatchListener() {
                    @Override
                    public void isLeader() {
                        turns.add(latch.getId() + " leads");
                    }

                    @Override
                    public void notLeader() {
                        turns.add(latch.getId() + " does not");
                    }
                });
                latch.start();
                int count = i + 1;
                Suite.waitFor("it to take part", () -> latch.getParticipants().size() == count); // So that their order is known.
            }
            for (int i = 0; i < 5; i++) {
                LeaderLatch leader = latches.get(i);
                Suite.check(leader.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "p" + i + " leads");
                Suite.equal(latches.stream().filter(LeaderLatch::hasLeadership).count(), 1L, "those that lead");
                for (LeaderLatch latch : latches.subList(i, 5)) {
                    String id = leader.getId();
                    Suite.waitFor("all to agree", () -> latch.getLeader().getId().equals(id));
                    Suite.equal(latch.getParticipants().stream().filter(Participant::isLeader).count(), 1L, "participants that lead");
                }
                leader.close();
            }
            Suite.waitFor("all to have been told", () -> turns.size() == 10);
            for (String what : List.of(" leads", " does not")) {
                Suite.equal(turns.stream().filter(turn -> turn.endsWith(what)).toList(),
                    List.of("p0" + what, "p1" + what, "p2" + what, "p3" + what, "p4" + what), "the turns");
            }
            for (int i = 0; i < 5; i++) {
                Suite.check(turns.indexOf("p" + i + " leads") < turns.indexOf("p" + i + " does not"), "the order of " + turns);
            }
        } finally {
            clients.forEach(CuratorFramework::close);
        }
    }

    /** One that leads for ever is interrupted: another leads. */
    private static void leaderSelectorInterrupted() throws Exception {
        String path = CuratorRecipes.fresh();
        Suite.Inbox<String> turns = new Suite.Inbox<>();
        List<LeaderSelector> selectors = new ArrayList<>();
        try (CuratorFramework other = connect(1)) {
            for (String name : List.of("first", "second")) {
                LeaderSelector selector = new LeaderSelector(name.equals("first") ? CuratorRecipes.client : other, path,
                    new LeaderSelectorListenerAdapter() {
                        @Override
                        public void takeLeadership(CuratorFramework client) throws Exception {
                            turns.put(name + " leads");
                            try {
                                Thread.sleep(TimeUnit.HOURS.toMillis(1));
                            } finally {
                                turns.put(name + " does not");
                            }
                        }
                    });
                selector.setId(name);
                selectors.add(selector);
                selector.start();
                int count = selectors.size();
                Suite.waitFor("it to take part", () -> selectors.get(0).getParticipants().size() == count);
            }
            Suite.equal(turns.take("a leader"), "first leads", "who leads");
            Suite.check(selectors.get(0).hasLeadership() && !selectors.get(1).hasLeadership(), "the first leads alone");
            Suite.equal(selectors.get(1).getLeader().getId(), "first", "who leads, says the second");
            for (String next : List.of("second", "first")) {
                LeaderSelector leader = selectors.get(next.equals("second") ? 0 : 1);
                leader.interruptLeadership();
                Suite.equal(turns.take("an end"), leader.getId() + " does not", "who leads no more");
                Suite.equal(turns.take("a leader"), next + " leads", "who leads");
                Suite.waitFor("it to queue again", leader::requeue);
            }
            selectors.forEach(LeaderSelector::close);
        }
    }

    /** The session of a leader ends while it cannot know: it stops leading by itself, another leads, and it comes back as the last. */
    private static void lostSessionOfALeader() throws Exception {
        String path = CuratorRecipes.fresh();
        try (Suite.Proxy proxy = new Suite.Proxy(CuratorRecipes.servers[0]);
                CuratorFramework client = CuratorWorker.connect(proxy.address(), 10_000, false); CuratorFramework other = connect(1);
                LeaderLatch latch = new LeaderLatch(client, path + "/latch", "first");
                PersistentNode node = new PersistentNode(client, CreateMode.EPHEMERAL, false, path + "/node", bytes("here"))) {
            LeaderLatch others = new LeaderLatch(other, path + "/latch", "second");
            Suite.Inbox<ConnectionState> states = new Suite.Inbox<>();
            client.getConnectionStateListenable().addListener((ignored, state) -> states.put(state));
            latch.start();
            Suite.check(latch.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the first leads");
            others.start();
            node.start();
            Suite.check(node.waitForInitialCreate(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "its node is made");
            Suite.waitFor("the second to take part", () -> others.getParticipants().size() == 2);
            long session = client.getZookeeperClient().getZooKeeper().getSessionId();
            loseSession(client, proxy);
            Suite.check(others.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the second leads");
            Suite.check(!latch.hasLeadership(), "the first does not");
            List<ConnectionState> seen = new ArrayList<>();
            while (!seen.contains(ConnectionState.RECONNECTED)) {
                seen.add(states.take("RECONNECTED after " + seen));
            }
            Suite.check(seen.contains(ConnectionState.LOST), "the loss is known: " + seen);
            Suite.check(client.getZookeeperClient().getZooKeeper().getSessionId() != session, "it has another session");
            Suite.waitFor("the first to take part again", () -> others.getParticipants().size() == 2);
            Suite.waitFor("its node to be made again", () -> {
                Stat stat = other.checkExists().forPath(path + "/node");
                return stat != null && stat.getEphemeralOwner() == client.getZookeeperClient().getZooKeeper().getSessionId();
            });
            others.close();
            Suite.check(latch.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the first leads again");
        }
    }

    // ---- counters and queues

    private static void atomicValue() throws Exception {
        String path = CuratorRecipes.fresh();
        DistributedAtomicValue value = new DistributedAtomicValue(CuratorRecipes.client, path, new RetryNTimes(1, 1));
        Suite.check(!value.compareAndSet(bytes("x"), bytes("y")).succeeded(), "the value of none is not x");
        Suite.check(value.initialize(bytes("a")), "the first one makes it");
        Suite.check(!value.initialize(bytes("b")), "the second does not");
        AtomicValue<byte[]> set = value.compareAndSet(bytes("x"), bytes("c"));
        Suite.check(!set.succeeded() && text(set.preValue()).equals("a"), "compared, and not set");
        set = value.compareAndSet(bytes("a"), bytes("c"));
        Suite.check(set.succeeded() && text(set.postValue()).equals("c"), "compared and set");
        Suite.equal(text(value.trySet(bytes("d")).preValue()), "c", "what was there");
        value.forceSet(bytes("e"));
        Suite.equal(text(value.get().postValue()), "e", "the value");
        DistributedAtomicLong number = new DistributedAtomicLong(CuratorRecipes.client, path + "-long", new RetryNTimes(1, 1));
        Suite.equal(number.add(40L).postValue(), 40L, "40 more");
        Suite.equal(number.subtract(50L).postValue(), -10L, "50 less");
        Suite.equal(number.decrement().postValue(), -11L, "one less");
        Suite.equal(number.get().postValue(), -11L, "the value");
    }

    private static void sharedCountIsHeard() throws Exception {
        String path = CuratorRecipes.fresh();
        try (CuratorFramework other = connect(1); SharedCount mine = new SharedCount(CuratorRecipes.client, path, 5);
                SharedCount others = new SharedCount(other, path, 5)) {
            AtomicInteger heard = new AtomicInteger();
            others.addListener(new SharedCountListener() {
                @Override
                public void countHasChanged(SharedCountReader count, int now) {
                    heard.set(now);
                }

                @Override
                public void stateChanged(CuratorFramework client, ConnectionState state) {}
            });
            mine.start();
            others.start();
            Suite.equal(mine.getCount(), 5, "what it begins with");
            for (int i = 10; i < 20; i++) {
                mine.setCount(i);
                int now = i;
                Suite.waitFor("the count to be heard", () -> heard.get() == now && others.getCount() == now);
            }
            Suite.check(others.trySetCount(others.getVersionedValue(), 30), "what is known can be replaced");
            Suite.waitFor("the count", () -> mine.getCount() == 30);
        }
    }

    private static void queueOrderOfPriorities() throws Exception {
        String path = CuratorRecipes.fresh();
        List<String> want = new ArrayList<>();
        try (CuratorQueues.Putter queue = CuratorQueues.open(CuratorRecipes.client, "priority", path, null)) {
            for (int i = 0; i < 40; i++) {
                queue.put("item" + i + "-" + i * 7 % 40);
                want.add("item" + i + "-" + i * 7 % 40);
            }
        }
        want.sort(java.util.Comparator.comparing(CuratorQueues::number));
        List<String> got = Collections.synchronizedList(new ArrayList<>());
        try (CuratorQueues.Putter queue = CuratorQueues.open(CuratorRecipes.client, "priority", path, got::add)) {
            Suite.waitFor("all to be taken", () -> got.size() >= want.size());
        }
        Suite.equal(got, want, "what was taken");
    }

    private static void queueNotBeforeItsTime() throws Exception {
        String path = CuratorRecipes.fresh();
        List<String> got = Collections.synchronizedList(new ArrayList<>());
        List<String> early = Collections.synchronizedList(new ArrayList<>());
        try (CuratorQueues.Putter queue = CuratorQueues.open(CuratorRecipes.client, "delay", path, item -> {
            if (System.currentTimeMillis() < CuratorQueues.number(item)) {
                early.add(item);
            }
            got.add(item.substring(0, item.indexOf('-')));
        })) {
            long now = System.currentTimeMillis();
            for (int i : new int[] {3, 0, 4, 1, 2}) {
                queue.put(i + "-" + (now + 300 + i * 200));
            }
            Suite.waitFor("all to be taken", () -> got.size() == 5);
        }
        Suite.equal(early, List.of(), "what was taken early");
        Suite.equal(got, List.of("0", "1", "2", "3", "4"), "what was taken");
    }

    private static void queueRemovedById() throws Exception {
        String path = CuratorRecipes.fresh();
        try (CuratorQueues.Putter queue = CuratorQueues.open(CuratorRecipes.client, "id", path, null)) {
            for (int i = 0; i < 10; i++) {
                queue.put("item-" + i);
            }
        }
        DistributedIdQueue<String> remover = CuratorQueues.builder(CuratorRecipes.client, path, null).buildIdQueue();
        remover.start();
        for (int i = 0; i < 10; i += 2) {
            Suite.equal(remover.remove("id" + i), 1, "removed by id");
            Suite.equal(remover.remove("id" + i), 0, "removed again");
        }
        remover.close();
        List<String> got = Collections.synchronizedList(new ArrayList<>());
        try (CuratorQueues.Putter queue = CuratorQueues.open(CuratorRecipes.client, "id", path, got::add)) {
            Suite.waitFor("all to be taken", () -> got.size() >= 5 && CuratorRecipes.client.getChildren().forPath(path).isEmpty());
        }
        Suite.equal(got, List.of("item-1", "item-3", "item-5", "item-7", "item-9"), "what was taken");
    }

    /** More queues are made by themselves while one is too long; nothing that was put is lost between them. */
    private static void queueSharded() throws Exception {
        String path = CuratorRecipes.fresh();
        QueueSharderPolicies policies = QueueSharderPolicies.builder().newQueueThreshold(10).thresholdCheckMs(100).maxQueues(3).build();
        QueueAllocator<String, DistributedQueue<String>> allocator =
            (client, queue) -> CuratorQueues.builder(client, queue, null).buildQueue();
        try (QueueSharder<String, DistributedQueue<String>> sharder =
                new QueueSharder<>(CuratorRecipes.client, allocator, path, path + "-leader", policies)) {
            sharder.start();
            AtomicInteger put = new AtomicInteger();
            Suite.waitFor("three queues", () -> {
                sharder.getQueue().put("item-" + put.incrementAndGet());
                return sharder.getShardQty() == 3;
            });
            Suite.waitFor("all that was put", () -> {
                TreeSet<String> there = new TreeSet<>();
                int count = 0;
                for (String queue : sharder.getQueuePaths()) {
                    for (String item : CuratorRecipes.client.getChildren().forPath(queue)) {
                        there.add(text(CuratorRecipes.client.getData().forPath(queue + "/" + item)));
                        count++;
                    }
                }
                return count == put.get() && there.size() == count;
            });
        }
    }

    private static void queueSimpleCalls() throws Exception {
        SimpleDistributedQueue queue = new SimpleDistributedQueue(CuratorRecipes.client, CuratorRecipes.fresh());
        Suite.thrown(java.util.NoSuchElementException.class, "element of none", queue::element);
        Suite.thrown(java.util.NoSuchElementException.class, "remove of none", queue::remove);
        Suite.equal(queue.peek(), null, "peek of none");
        Suite.equal(queue.poll(), null, "poll of none");
        Suite.equal(queue.poll(50, TimeUnit.MILLISECONDS), null, "poll of none for a while");
        for (String item : List.of("a", "b", "c", "d")) {
            queue.offer(bytes(item));
        }
        Suite.equal(text(queue.element()) + text(queue.peek()), "aa", "what is first");
        Suite.equal(text(queue.remove()) + text(queue.take()) + text(queue.poll()), "abc", "what is taken");
        CompletableFuture<String> last = new CompletableFuture<>();
        Suite.equal(text(queue.poll(1, TimeUnit.SECONDS)), "d", "what is taken");
        Thread taker = new Thread(() -> {
            try {
                last.complete(text(queue.take()));
            } catch (Exception problem) {
                last.completeExceptionally(problem);
            }
        });
        taker.setDaemon(true);
        taker.start();
        queue.offer(bytes("e"));
        Suite.equal(last.get(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "e", "what somebody waited for");
    }
}
