import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.RandomAccessFile;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.curator.RetryLoop;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.CachedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.PromotedToLock;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

/**
 * A process of {@link CuratorRecipes} that contends with others: it carries out tasks that it is given on its standard input, each in a
 * thread and with a session of its own, and ends when that input does.
 *
 * <p>A line is {@code NUMBER TASK ARGUMENT...}; the answer is {@code NUMBER ok RESULT} or {@code NUMBER failed WHY}.
 *
 * <p>What is shared and must be protected is of two kinds: a counter in a node, which is read, and written without a look at its version,
 * so that two who do this at once lose one; and a {@link Gauge}, which sees how many are inside at the same moment.
 *
 * <p>{@code -Dwithout-recipes=true} leaves the recipes out: every case that rests on one must then fail.
 */
public final class CuratorWorker {
    private static final boolean WITHOUT = Boolean.getBoolean("without-recipes");

    private CuratorWorker() {}

    /** Returns what is to be told. */
    private interface Task {
        String run(CuratorFramework client, String[] args) throws Exception;
    }

    private static final Map<String, Task> TASKS = new HashMap<>();

    static {
        TASKS.put("exclusive", CuratorWorker::exclusive);
        TASKS.put("read-together", CuratorWorker::readTogether);
        TASKS.put("read-and-write", CuratorWorker::readAndWrite);
        TASKS.put("semaphore", CuratorWorker::semaphore);
        TASKS.put("select-leader", CuratorWorker::selectLeader);
        TASKS.put("latch", CuratorWorker::latch);
        TASKS.put("barrier", CuratorWorker::barrier);
        TASKS.put("double-barrier", CuratorWorker::doubleBarrier);
        TASKS.put("shared-count", CuratorWorker::sharedCount);
        TASKS.put("increment", CuratorWorker::increment);
        TASKS.put("produce", CuratorQueues::produce);
        TASKS.put("consume", CuratorQueues::consume);
        TASKS.put("simple-produce", CuratorWorker::simpleProduce);
        TASKS.put("simple-consume", CuratorWorker::simpleConsume);
        TASKS.put("cache", CuratorCaches::follow);
        TASKS.put("mutate", CuratorWorker::mutate);
        TASKS.put("transfer", CuratorWorker::transfer);
        TASKS.put("group-member", CuratorWorker::groupMember);
        TASKS.put("victim", CuratorWorker::victim);
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            String[] words = line.split(" ");
            Thread thread = new Thread(() -> {
                String outcome;
                // A victim's session is short, because somebody waits for its end.
                try (CuratorFramework client = connect(args[0], words[1].equals("victim") ? 2_000 : 10_000, false)) {
                    outcome = "ok " + TASKS.get(words[1]).run(client, Arrays.copyOfRange(words, 2, words.length));
                } catch (Throwable problem) {
                    outcome = "failed " + Suite.describe(problem).replace('\n', ' ');
                }
                synchronized (System.out) {
                    System.out.println(words[0] + " " + outcome);
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
    }

    /** A client that is started. With {@code tracker} it takes its servers from the ensemble's configuration. */
    static CuratorFramework connect(String servers, int sessionMs, boolean tracker) {
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(servers).sessionTimeoutMs(sessionMs)
            .connectionTimeoutMs(sessionMs).retryPolicy(new RetryNTimes(20, 100)).ensembleTracker(tracker).build();
        client.start();
        return client;
    }

    /** What is read afterwards is not older than this. (Curator's own sync goes in the background.) */
    static void sync(CuratorFramework client, String path) throws Exception {
        RetryLoop.callWithRetry(client.getZookeeperClient(), () -> {
            client.getZookeeperClient().getZooKeeper().sync(path);
            return null;
        });
    }

    // ---- what is shared

    /** Counts who is inside, over all processes, in memory that they share: that of a file. */
    static final class Gauge {
        private static final VarHandle INTS = MethodHandles.byteBufferViewVarHandle(int[].class, ByteOrder.nativeOrder());
        private final ByteBuffer shared;

        Gauge(Path file) throws Exception {
            try (RandomAccessFile opened = new RandomAccessFile(file.toFile(), "rw")) {
                shared = opened.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 8);
            }
        }

        /** Fails if more than {@code limit} are inside then. */
        void enter(int limit) {
            int inside = (int) INTS.getAndAdd(shared, 0, 1) + 1;
            for (int most; (most = most()) < inside && !INTS.compareAndSet(shared, 4, most, inside); ) { }
            if (inside > limit) {
                leave();
                throw new AssertionError(inside + " are inside, which must be at most " + limit);
            }
        }

        void leave() {
            INTS.getAndAdd(shared, 0, -1);
        }

        int inside() {
            return (int) INTS.getVolatile(shared, 0);
        }

        /** The most that ever were inside. */
        int most() {
            return (int) INTS.getVolatile(shared, 4);
        }
    }

    static Gauge gauge(String dir, String path) throws Exception {
        return new Gauge(Path.of(dir, path.replace('/', '_')));
    }

    static int number(CuratorFramework client, String path) throws Exception {
        return Integer.parseInt(new String(client.getData().forPath(path), StandardCharsets.UTF_8));
    }

    static void setNumber(CuratorFramework client, String path, int number) throws Exception {
        client.setData().forPath(path, Integer.toString(number).getBytes(StandardCharsets.UTF_8));
    }

    /** What must not be done by two at once. */
    private static void addOneAlone(CuratorFramework client, Gauge gauge, String counter) throws Exception {
        gauge.enter(1);
        try {
            setNumber(client, counter, number(client, counter) + 1);
        } finally {
            gauge.leave();
        }
    }

    /** Fails rather than being silent when it has not got the lock in time. */
    private static void acquire(InterProcessLock lock) throws Exception {
        if (!WITHOUT) {
            Suite.check(lock.acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "no lock within " + Suite.WAIT_SECONDS + " s");
        }
    }

    private static void release(InterProcessLock lock) throws Exception {
        if (!WITHOUT) {
            lock.release();
        }
    }

    // ---- locks

    /** KIND DIR ROUNDS PATH...: adds to the counter of each path ROUNDS times, under the locks of all of them. */
    private static String exclusive(CuratorFramework client, String[] args) throws Exception {
        List<String> paths = Arrays.asList(args).subList(3, args.length);
        InterProcessLock lock = switch (args[0]) {
            case "mutex" -> new InterProcessMutex(client, paths.get(0));
            case "semaphore-mutex" -> new InterProcessSemaphoreMutex(client, paths.get(0));
            case "multi-lock" -> new InterProcessMultiLock(client, paths);
            default -> throw new IllegalArgumentException(args[0]);
        };
        for (int round = 0; round < Integer.parseInt(args[2]); round++) {
            acquire(lock);
            // The mutex alone lets its thread in again.
            boolean again = lock instanceof InterProcessMutex && round % 3 == 0;
            if (again) {
                acquire(lock);
            }
            try {
                for (String path : paths) {
                    addOneAlone(client, gauge(args[1], path), path + "-counter");
                }
            } finally {
                release(lock);
                if (again) {
                    release(lock);
                }
            }
        }
        return "";
    }

    /** DIR PATH COUNT: holds the read lock until COUNT hold it. */
    private static String readTogether(CuratorFramework client, String[] args) throws Exception {
        InterProcessLock lock = new InterProcessReadWriteLock(client, args[1]).readLock();
        int count = Integer.parseInt(args[2]);
        Gauge readers = gauge(args[0], args[1] + "-together");
        acquire(lock);
        readers.enter(count);
        Suite.waitFor("all readers to be inside", () -> readers.most() == count);
        readers.leave();
        release(lock);
        return "";
    }

    /** DIR PATH ROUNDS: a third of the rounds writes, the others read. */
    private static String readAndWrite(CuratorFramework client, String[] args) throws Exception {
        InterProcessReadWriteLock lock = new InterProcessReadWriteLock(client, args[1]);
        Gauge readers = gauge(args[0], args[1] + "-readers");
        Gauge writers = gauge(args[0], args[1] + "-writers");
        for (int round = 0; round < Integer.parseInt(args[2]); round++) {
            if (round % 3 == 0) {
                acquire(lock.writeLock());
                Suite.equal(readers.inside(), 0, "readers beside a writer");
                addOneAlone(client, writers, args[1] + "-counter");
                // A writer may become a reader without letting another writer in between.
                acquire(lock.readLock());
                int mine = number(client, args[1] + "-counter");
                readers.enter(Integer.MAX_VALUE);
                release(lock.writeLock());
                Suite.equal(number(client, args[1] + "-counter"), mine, "the counter, read by the writer that has become a reader");
            } else {
                acquire(lock.readLock());
                readers.enter(Integer.MAX_VALUE);
                Suite.equal(writers.inside(), 0, "writers beside a reader");
                int before = number(client, args[1] + "-counter");
                Suite.equal(number(client, args[1] + "-counter"), before, "the counter, read twice");
            }
            readers.leave();
            release(lock.readLock());
        }
        return "";
    }

    /** DIR PATH LIMIT ROUNDS [COUNT-PATH]: by a shared count if there is a path of one. Waits inside until so many were there at once. */
    private static String semaphore(CuratorFramework client, String[] args) throws Exception {
        int limit = Integer.parseInt(args[2]);
        Gauge gauge = gauge(args[0], args[1] + "-" + limit);
        SharedCount count = args.length > 4 ? new SharedCount(client, args[4], 0) : null;
        if (count != null) {
            sync(client, args[4]);
            count.start();
        }
        InterProcessSemaphoreV2 semaphore =
            count == null ? new InterProcessSemaphoreV2(client, args[1], limit) : new InterProcessSemaphoreV2(client, args[1], count);
        for (int round = 0; round < Integer.parseInt(args[3]); round++) {
            Lease lease = WITHOUT ? null : semaphore.acquire(Suite.WAIT_SECONDS, TimeUnit.SECONDS);
            Suite.check(WITHOUT || lease != null, "no lease within " + Suite.WAIT_SECONDS + " s");
            gauge.enter(limit);
            Suite.waitFor("so many to be inside", () -> gauge.most() >= limit);
            client.setData().forPath(args[1] + "-counter");
            gauge.leave();
            if (!WITHOUT) {
                semaphore.returnLease(lease);
            }
        }
        if (count != null) {
            count.close();
        }
        return "";
    }

    // ---- leaders

    /** DIR PATH ROUNDS: until it has led so often. */
    private static String selectLeader(CuratorFramework client, String[] args) throws Exception {
        Gauge gauge = gauge(args[0], args[1]);
        AtomicInteger led = new AtomicInteger();
        int rounds = Integer.parseInt(args[2]);
        List<Throwable> problems = new ArrayList<>();
        try (LeaderSelector selector = new LeaderSelector(client, args[1], new LeaderSelectorListenerAdapter() {
            @Override
            public void takeLeadership(CuratorFramework leader) throws Exception {
                if (led.get() < rounds) {
                    try {
                        addOneAlone(leader, gauge, args[1] + "-counter");
                    } catch (Throwable problem) {
                        problems.add(problem);
                    }
                    led.incrementAndGet();
                }
            }
        })) {
            selector.autoRequeue();
            if (WITHOUT) {
                for (; led.get() < rounds; led.incrementAndGet()) {
                    addOneAlone(client, gauge, args[1] + "-counter");
                }
                return "";
            }
            selector.start();
            Suite.waitFor(() -> "leading " + rounds + " times; it was " + led, 2 * Suite.WAIT_SECONDS, () -> led.get() >= rounds);
        }
        Suite.equal(problems, List.of(), "problems while leading");
        return "";
    }

    /** DIR PATH ROUNDS */
    private static String latch(CuratorFramework client, String[] args) throws Exception {
        Gauge gauge = gauge(args[0], args[1]);
        for (int round = 0; round < Integer.parseInt(args[2]); round++) {
            if (WITHOUT) {
                addOneAlone(client, gauge, args[1] + "-counter");
                continue;
            }
            try (LeaderLatch latch = new LeaderLatch(client, args[1], Thread.currentThread().getName())) {
                latch.start();
                Suite.check(latch.await(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "not leading within " + Suite.WAIT_SECONDS + " s");
                Suite.check(latch.hasLeadership(), "it leads");
                addOneAlone(client, gauge, args[1] + "-counter");
            }
        }
        return "";
    }

    // ---- barriers

    /** PATH NAME: waits there. What {@code PATH-removed} says was made before the barrier was removed. */
    private static String barrier(CuratorFramework client, String[] args) throws Exception {
        client.create().forPath(args[0] + "-waiting/" + args[1]);
        if (!WITHOUT) {
            DistributedBarrier barrier = new DistributedBarrier(client, args[0]);
            Suite.check(barrier.waitOnBarrier(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "the barrier was removed");
        }
        Suite.check(client.checkExists().forPath(args[0] + "-removed") != null, "past the barrier before it was removed");
        return "";
    }

    /** PATH COUNT ROUNDS NAME: notes in {@code PATH-notes} that it comes and goes. */
    private static String doubleBarrier(CuratorFramework client, String[] args) throws Exception {
        int count = Integer.parseInt(args[1]);
        for (int round = 0; round < Integer.parseInt(args[2]); round++) {
            DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(client, args[0] + round, count);
            for (String way : List.of("come", "go")) {
                String notes = args[0] + "-notes/" + way + round;
                client.create().orSetData().creatingParentsIfNeeded().forPath(notes + "/" + args[3]);
                if (!WITHOUT) {
                    Suite.check(way.equals("come") ? barrier.enter(Suite.WAIT_SECONDS, TimeUnit.SECONDS)
                        : barrier.leave(Suite.WAIT_SECONDS, TimeUnit.SECONDS), way + " within " + Suite.WAIT_SECONDS + " s");
                }
                Suite.equal(client.getChildren().forPath(notes).size(), count, "those who " + way + " in round " + round);
            }
        }
        return "";
    }

    // ---- counters

    /** PATH TIMES */
    private static String sharedCount(CuratorFramework client, String[] args) throws Exception {
        try (SharedCount count = new SharedCount(client, args[0], 0)) {
            count.start();
            for (int done = 0; done < Integer.parseInt(args[1]); ) {
                if (WITHOUT) {
                    count.setCount(count.getCount() + 1);
                    done++;
                } else if (count.trySetCount(count.getVersionedValue(), count.getVersionedValue().getValue() + 1)) {
                    done++;
                }
            }
        }
        return "";
    }

    /** KIND PATH TIMES: the values that it got. */
    private static String increment(CuratorFramework client, String[] args) throws Exception {
        // Retries are few, so that the other way, by a lock, is gone as well.
        PromotedToLock lock = PromotedToLock.builder().lockPath(args[1] + "-lock").timeout(Suite.WAIT_SECONDS, TimeUnit.SECONDS)
            .retryPolicy(new RetryNTimes(100, 1)).build();
        DistributedAtomicLong number = args[0].equals("promoted") ? new DistributedAtomicLong(client, args[1], new RetryNTimes(1, 1), lock)
            : new DistributedAtomicLong(client, args[1], new RetryNTimes(10, 1));
        DistributedAtomicInteger integer = new DistributedAtomicInteger(client, args[1], new RetryNTimes(10, 1));
        CachedAtomicLong cached = new CachedAtomicLong(number, 7);
        List<Number> values = new ArrayList<>();
        for (int times = Integer.parseInt(args[2]); values.size() < times; ) {
            if (WITHOUT) {
                number.forceSet(number.get().postValue() + 1);
                values.add(number.get().postValue());
                continue;
            }
            AtomicValue<? extends Number> value = switch (args[0]) {
                case "cached" -> cached.next();
                case "integer" -> integer.increment();
                default -> number.increment();
            };
            if (value.succeeded()) {
                Suite.check(args[0].equals("cached") || value.postValue().longValue() == value.preValue().longValue() + 1, "one more");
                values.add(value.postValue());
            }
        }
        return values.stream().map(Object::toString).collect(Collectors.joining(","));
    }

    // ---- others

    /** PATH NAME TIMES: puts NAME-0, NAME-1, ... into a simple queue. */
    private static String simpleProduce(CuratorFramework client, String[] args) throws Exception {
        SimpleDistributedQueue queue = new SimpleDistributedQueue(client, args[0]);
        for (int i = 0; i < Integer.parseInt(args[2]); i++) {
            Suite.check(queue.offer((args[1] + "-" + i).getBytes(StandardCharsets.UTF_8)), "an offer");
        }
        return "";
    }

    /** PATH FILE: takes what it gets until an item {@code end}, and notes it in the file. */
    private static String simpleConsume(CuratorFramework client, String[] args) throws Exception {
        SimpleDistributedQueue queue = new SimpleDistributedQueue(client, args[0]);
        while (true) {
            byte[] item = queue.poll(Suite.WAIT_SECONDS, TimeUnit.SECONDS);
            Suite.check(item != null, "nothing in the queue for " + Suite.WAIT_SECONDS + " s");
            String text = new String(item, StandardCharsets.UTF_8);
            if (text.equals("end")) {
                return "";
            }
            note(args[1], text);
        }
    }

    /** Adds a line to a file that several processes write. */
    static void note(String file, String line) throws Exception {
        Files.writeString(Path.of(file), line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    /** PATH TIMES SEED: changes the tree below at random, together with others that do the same. */
    private static String mutate(CuratorFramework client, String[] args) throws Exception {
        mutate(client, args[0], Integer.parseInt(args[1]), Integer.parseInt(args[2]));
        return "";
    }

    static void mutate(CuratorFramework client, String base, int times, int seed) throws Exception {
        Random random = new Random(seed);
        for (int i = 0; i < times; i++) {
            String path = base + "/" + random.nextInt(6) + (random.nextBoolean() ? "" : "/" + random.nextInt(4));
            byte[] data = (seed + "-" + i).getBytes(StandardCharsets.UTF_8);
            try {
                switch (random.nextInt(5)) {
                    case 0 -> client.delete().forPath(path);
                    case 1 -> client.delete().deletingChildrenIfNeeded().forPath(path);
                    case 2 -> client.setData().forPath(path, data);
                    default -> client.create().forPath(path, data);
                }
            } catch (KeeperException.NodeExistsException | KeeperException.NoNodeException | KeeperException.NotEmptyException other) {
                // Another was quicker, or it never was there.
            }
        }
    }

    /** What lies below a path and at it, by path. */
    static Map<String, String> tree(CuratorFramework client, String path) throws Exception {
        Map<String, String> all = new TreeMap<>();
        all.put(path, new String(client.getData().forPath(path), StandardCharsets.UTF_8));
        for (String child : client.getChildren().forPath(path)) {
            all.putAll(tree(client, path + "/" + child));
        }
        return all;
    }

    /** PATH TIMES SEED: moves money between accounts, in transactions that check what was read. */
    private static String transfer(CuratorFramework client, String[] args) throws Exception {
        Random random = new Random(Long.parseLong(args[2]));
        int refused = 0;
        for (int done = 0; done < Integer.parseInt(args[1]); ) {
            String from = args[0] + "/" + random.nextInt(3);
            String to = args[0] + "/" + random.nextInt(3);
            if (from.equals(to)) {
                continue;
            }
            Stat fromStat = new Stat();
            Stat toStat = new Stat();
            int fromHas = Integer.parseInt(new String(client.getData().storingStatIn(fromStat).forPath(from), StandardCharsets.UTF_8));
            int toHas = Integer.parseInt(new String(client.getData().storingStatIn(toStat).forPath(to), StandardCharsets.UTF_8));
            byte[] fromWill = Integer.toString(fromHas - 1).getBytes(StandardCharsets.UTF_8);
            byte[] toWill = Integer.toString(toHas + 1).getBytes(StandardCharsets.UTF_8);
            try {
                client.transaction().forOperations(
                    client.transactionOp().setData().withVersion(WITHOUT ? -1 : fromStat.getVersion()).forPath(from, fromWill),
                    client.transactionOp().check().withVersion(WITHOUT ? -1 : toStat.getVersion()).forPath(to),
                    client.transactionOp().setData().forPath(to, toWill),
                    client.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(args[0] + "-receipts/r"));
                done++;
            } catch (KeeperException.BadVersionException stale) {
                refused++;
            }
        }
        return "" + refused;
    }

    /** PATH NAME COUNT: a member until "coordinator", who is one, too, has left. */
    private static String groupMember(CuratorFramework client, String[] args) throws Exception {
        try (GroupMember member = new GroupMember(client, args[0], args[1], args[1].getBytes(StandardCharsets.UTF_8))) {
            member.start();
            Suite.waitFor(() -> "all members; there are " + member.getCurrentMembers().keySet(), Suite.WAIT_SECONDS,
                () -> member.getCurrentMembers().size() == Integer.parseInt(args[2]));
            member.getCurrentMembers().forEach((name, data) ->
                Suite.equal(new String(data, StandardCharsets.UTF_8), name, "the data of a member"));
            client.create().forPath(args[0] + "-seen/" + args[1]);
            Suite.waitFor("the coordinator to leave", () -> !member.getCurrentMembers().containsKey("coordinator"));
        }
        return "";
    }

    /** PATH: gets hold of one of each; to be killed. */
    private static String victim(CuratorFramework client, String[] args) throws Exception {
        new InterProcessMutex(client, args[0] + "/mutex").acquire();
        new InterProcessReadWriteLock(client, args[0] + "/lock").writeLock().acquire();
        new InterProcessSemaphoreV2(client, args[0] + "/semaphore", 1).acquire();
        LeaderLatch latch = new LeaderLatch(client, args[0] + "/latch", "victim");
        latch.start();
        latch.await();
        new GroupMember(client, args[0] + "/group", "victim").start();
        client.create().forPath(args[0] + "/holds");
        Thread.sleep(TimeUnit.HOURS.toMillis(1));
        return "";
    }
}
