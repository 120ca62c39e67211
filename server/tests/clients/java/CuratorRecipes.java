import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;

/**
 * usage: java [-Dwithout-recipes=true] CuratorRecipes HOST:PORT[,HOST:PORT...] [PART-OF-A-NAME]
 *
 * <p>Apache Curator's recipes against a running server, each contended for by six threads with sessions of their own in three other
 * processes.
 *
 * <p>What this proves: what each recipe promises. Of locks, semaphores and leaders that never more are inside than may be, and that
 * nothing that is done inside is lost; of counters that they are exact; of queues that each item is taken once, in its order; of barriers
 * that none passes too early; of caches that they become what is in the tree, as does who knows their events alone; and that what a
 * process held that was killed passes on.
 *
 * <p>The idea: the processes ({@link CuratorWorker}) are started once, and are given tasks. With several servers, each process is
 * connected to another. What must not be done by two at once is seen in memory that the processes share, and in counters in nodes that
 * lose an addition then. {@code -Dwithout-recipes=true} leaves the recipes out in the workers, to see that the cases called
 * {@code contended-} can fail: all of them must.
 *
 * <p>The server must have {@code extendedTypesEnabled=true}, a {@code znode.container.checkIntervalMs} of a second or less, a
 * {@code minSessionTimeout} of at most two seconds, and allow 200 connections from this address.
 * Prints {@code ok NAME} or {@code FAILED NAME: why}; exit status 0 only if nothing failed.
 * Not here: recipes used by few, in their order (CuratorAlone); nodes, watchers, lost connections (CuratorNodes).
 */
public final class CuratorRecipes {
    private static final int PROCESSES = 3;
    private static final int CONTENDERS = 6;

    static String[] servers;
    static String root;
    static CuratorFramework client;
    private static Path dir;
    private static final List<Worker> WORKERS = new ArrayList<>();
    private static final AtomicInteger NEXT = new AtomicInteger();

    public static void main(String[] args) throws Exception {
        quiet();
        servers = args[0].split(",");
        root = "/curator-" + ProcessHandle.current().pid() + "-" + System.currentTimeMillis();
        dir = Files.createTempDirectory("curator-recipes");
        Suite suite = new Suite();
        suite.add("killed-process-lets-go", CuratorRecipes::killedProcessLetsGo);
        CuratorAlone.addTo(suite);
        CuratorNodes.addTo(suite);
        for (String kind : List.of("mutex", "semaphore-mutex")) {
            suite.add("contended-" + kind, () -> lock(kind));
        }
        suite.add("contended-multi-lock", CuratorRecipes::multiLock);
        suite.add("contended-read-write-lock", CuratorRecipes::readWriteLock);
        suite.add("read-lock-is-shared", CuratorRecipes::readLockIsShared);
        suite.add("contended-semaphore", CuratorRecipes::semaphore);
        suite.add("contended-semaphore-of-shared-count", CuratorRecipes::semaphoreOfSharedCount);
        suite.add("contended-leader-selector", () -> leader("select-leader"));
        suite.add("contended-leader-latch", () -> leader("latch"));
        suite.add("contended-barrier", CuratorRecipes::barrier);
        suite.add("contended-double-barrier", CuratorRecipes::doubleBarrier);
        suite.add("contended-shared-count", CuratorRecipes::sharedCount);
        for (String kind : List.of("long", "promoted", "integer", "cached")) {
            suite.add("contended-atomic-" + kind, () -> atomic(kind));
        }
        for (String kind : List.of("plain", "locked", "id", "priority", "delay")) {
            suite.add("queue-" + kind, () -> queue(kind));
        }
        suite.add("queue-simple", CuratorRecipes::simpleQueue);
        for (String kind : CuratorCaches.KINDS) {
            suite.add("cache-" + kind, () -> cache(kind));
        }
        suite.add("contended-transactions", CuratorRecipes::transactions);
        suite.add("group-member", CuratorRecipes::groupMember);
        int failed;
        client = CuratorWorker.connect(args[0], 10_000, false);
        try {
            for (int i = 0; i < PROCESSES; i++) {
                WORKERS.add(new Worker(servers[i % servers.length]));
            }
            client.create().forPath(root);
            failed = suite.run(6, args.length > 1 ? args[1] : "");
            client.delete().quietly().deletingChildrenIfNeeded().forPath(root);
        } finally {
            WORKERS.forEach(Worker::end);
            for (File file : dir.toFile().listFiles()) {
                file.delete();
            }
            Files.delete(dir);
        }
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1); // A case that was left behind must not hold up the end.
    }

    /** No log: what matters is thrown, and many things are meant to fail. */
    private static void quiet() {
        System.setProperty("slf4j.internal.verbosity", "ERROR");
        System.setProperty("org.apache.logging.log4j.level", "OFF");
    }

    /** A process with a {@link CuratorWorker}, connected to one server. It ends with its input, which is ours. */
    private static final class Worker {
        final Process process;
        private final PrintStream in;
        private final Map<Integer, CompletableFuture<String>> asked = new ConcurrentHashMap<>();
        private final AtomicInteger number = new AtomicInteger();

        Worker(String server) throws IOException {
            process = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-Xmx256m", "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1", "-Dslf4j.internal.verbosity=ERROR", "-Dorg.apache.logging.log4j.level=OFF",
                "-Dwithout-recipes=" + Boolean.getBoolean("without-recipes"), "-cp", System.getProperty("java.class.path"), "CuratorWorker",
                server).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            in = new PrintStream(process.getOutputStream(), true, StandardCharsets.UTF_8);
            Thread reader = new Thread(this::read, "answers");
            reader.setDaemon(true);
            reader.start();
        }

        private void read() {
            try (BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
                for (String line; (line = out.readLine()) != null; ) {
                    String[] words = line.split(" ", 3);
                    CompletableFuture<String> answer = asked.remove(Integer.parseInt(words[0]));
                    if (words[1].equals("ok")) {
                        answer.complete(words[2]);
                    } else {
                        answer.completeExceptionally(new AssertionError("a worker: " + words[2]));
                    }
                }
            } catch (IOException end) {
                // As when it has ended by itself.
            }
            asked.values().forEach(answer -> answer.completeExceptionally(new AssertionError("a worker's process has ended")));
        }

        synchronized CompletableFuture<String> ask(Object... words) {
            int mine = number.incrementAndGet();
            CompletableFuture<String> answer = new CompletableFuture<>();
            asked.put(mine, answer);
            StringBuilder line = new StringBuilder().append(mine);
            for (Object word : words) {
                line.append(' ').append(word);
            }
            in.println(line);
            return answer;
        }

        void end() {
            process.destroyForcibly();
        }
    }

    /** The words of the task of one contender. */
    private interface Words {
        Object[] of(int contender);
    }

    private static List<CompletableFuture<String>> ask(int contenders, Words words) {
        List<CompletableFuture<String>> answers = new ArrayList<>();
        for (int i = 0; i < contenders; i++) {
            answers.add(WORKERS.get(i % PROCESSES).ask(words.of(i)));
        }
        return answers;
    }

    /** The results of all, or the problem of the first that had one. */
    private static List<String> answers(List<CompletableFuture<String>> asked) throws Exception {
        List<String> results = new ArrayList<>();
        for (CompletableFuture<String> answer : asked) {
            try {
                results.add(answer.get(45, TimeUnit.SECONDS));
            } catch (java.util.concurrent.ExecutionException failed) {
                throw new AssertionError(failed.getCause().getMessage());
            }
        }
        return results;
    }

    private static List<String> contend(Object... words) throws Exception {
        return answers(ask(CONTENDERS, i -> words));
    }

    /** A path of this case alone. Its node is not made; a counter beside it is. */
    static String fresh() throws Exception {
        String path = root + "/" + NEXT.incrementAndGet();
        client.create().forPath(path + "-counter", bytes("0"));
        return path;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void make(String path) throws Exception {
        client.create().forPath(path);
    }

    private static int counter(String path) throws Exception {
        CuratorWorker.sync(client, path);
        return CuratorWorker.number(client, path + "-counter");
    }

    // ---- locks

    private static void lock(String kind) throws Exception {
        String path = fresh();
        contend("exclusive", kind, dir, 20, path);
        Suite.equal(counter(path), CONTENDERS * 20, "the counter");
        Suite.equal(CuratorWorker.gauge(dir.toString(), path).most(), 1, "the most that were inside");
        // What recipes make for themselves are containers, which go.
        Suite.waitFor("the lock's own nodes to go", () -> client.checkExists().forPath(path) == null);
    }

    /** Half of them need both locks, the others one of them. */
    private static void multiLock() throws Exception {
        String one = fresh();
        String two = fresh();
        answers(ask(CONTENDERS, i -> i % 2 == 0 ? new Object[] {"exclusive", "multi-lock", dir, 10, one, two}
            : new Object[] {"exclusive", "mutex", dir, 20, i == 1 ? one : two}));
        Suite.equal(List.of(counter(one), counter(two)), List.of(50, 70), "the counters");
    }

    private static void readLockIsShared() throws Exception {
        contend("read-together", dir, fresh(), CONTENDERS);
    }

    private static void readWriteLock() throws Exception {
        String path = fresh();
        contend("read-and-write", dir, path, 15);
        Suite.equal(counter(path), CONTENDERS * 5, "the counter");
        Suite.equal(CuratorWorker.gauge(dir.toString(), path + "-writers").most(), 1, "the most writers that were inside");
    }

    private static void semaphore() throws Exception {
        String path = fresh();
        contend("semaphore", dir, path, 3, 15);
        Suite.equal(CuratorWorker.gauge(dir.toString(), path + "-3").most(), 3, "the most that were inside");
    }

    private static void semaphoreOfSharedCount() throws Exception {
        String path = fresh();
        try (SharedCount count = new SharedCount(client, path + "-count", 1)) {
            count.start();
            for (int limit : new int[] {1, 3, 2}) {
                count.setCount(limit);
                contend("semaphore", dir, path, limit, 5, path + "-count");
                Suite.equal(CuratorWorker.gauge(dir.toString(), path + "-" + limit).most(), limit, "the most that were inside");
            }
        }
    }

    // ---- leaders, barriers, counters

    private static void leader(String task) throws Exception {
        String path = fresh();
        contend(task, dir, path, 8);
        Suite.equal(counter(path), CONTENDERS * 8, "the counter");
        Suite.equal(CuratorWorker.gauge(dir.toString(), path).most(), 1, "the most that led at once");
    }

    private static void barrier() throws Exception {
        String path = fresh();
        DistributedBarrier barrier = new DistributedBarrier(client, path);
        barrier.setBarrier();
        make(path + "-waiting");
        List<CompletableFuture<String>> waiting = ask(CONTENDERS, i -> new Object[] {"barrier", path, i});
        Suite.waitFor("all to wait", () -> client.getChildren().forPath(path + "-waiting").size() == CONTENDERS);
        Suite.check(waiting.stream().noneMatch(CompletableFuture::isDone), "nobody is past the barrier");
        make(path + "-removed");
        barrier.removeBarrier();
        answers(waiting);
        Suite.check(barrier.waitOnBarrier(1, TimeUnit.SECONDS), "there is no barrier any more");
    }

    private static void doubleBarrier() throws Exception {
        String path = fresh();
        make(path + "-notes");
        answers(ask(CONTENDERS, i -> new Object[] {"double-barrier", path, CONTENDERS, 4, i}));
    }

    private static void sharedCount() throws Exception {
        String path = fresh();
        contend("shared-count", path, 20);
        try (SharedCount count = new SharedCount(client, path, 0)) {
            CuratorWorker.sync(client, path);
            count.start();
            Suite.equal(count.getCount(), CONTENDERS * 20, "the count");
        }
    }

    /** Not only the sum is exact: no two were ever told the same value. */
    private static void atomic(String kind) throws Exception {
        int times = 20;
        List<Long> values = new ArrayList<>();
        for (String some : contend("increment", kind, fresh(), times)) {
            Arrays.stream(some.split(",")).map(Long::valueOf).forEach(values::add);
        }
        Set<Long> different = new TreeSet<>(values);
        Suite.equal(values.size(), CONTENDERS * times, "values");
        Suite.equal(different.size(), values.size(), "different values");
        if (!kind.equals("cached")) { // Who keeps a few in stock may leave some over.
            Suite.equal(new TreeSet<>(different).last(), (long) CONTENDERS * times, "the last value");
        }
    }

    // ---- queues

    private static List<String> noted(Path file) throws IOException {
        return Files.exists(file) ? Files.readAllLines(file) : List.of();
    }

    /** Three who put and six who take. Each item is taken by one of them, once. */
    private static void queue(String kind) throws Exception {
        String path = fresh();
        Path file = dir.resolve("queue-" + kind);
        List<CompletableFuture<String>> takers = ask(CONTENDERS, i -> new Object[] {"consume", kind, path, file});
        answers(ask(3, i -> new Object[] {"produce", kind, path, "p" + i, 40}));
        List<String> want = new ArrayList<>();
        for (int i = 0; i < 120; i++) {
            want.add("p" + i / 40 + "-" + i % 40);
        }
        Suite.waitFor("all to be taken", () -> noted(file).size() >= want.size() && client.getChildren().forPath(path).isEmpty());
        make(path + "-end");
        answers(takers); // Only then is it known that nothing was taken twice.
        Suite.equal(sorted(noted(file)), sorted(want), "what was taken");
    }

    private static void simpleQueue() throws Exception {
        String path = fresh();
        Path file = dir.resolve("queue-simple");
        List<CompletableFuture<String>> takers = ask(CONTENDERS, i -> new Object[] {"simple-consume", path, file});
        answers(ask(3, i -> new Object[] {"simple-produce", path, "p" + i, 40}));
        for (int i = 0; i < CONTENDERS; i++) {
            new SimpleDistributedQueue(client, path).offer(bytes("end")); // One for each of them.
        }
        answers(takers);
        List<String> want = new ArrayList<>();
        for (int i = 0; i < 120; i++) {
            want.add("p" + i / 40 + "-" + i % 40);
        }
        Suite.equal(sorted(noted(file)), sorted(want), "what was taken");
    }

    static List<String> sorted(Collection<String> some) {
        return some.stream().sorted().toList();
    }

    // ---- others

    /** Three follow while three others change the tree. */
    private static void cache(String kind) throws Exception {
        String path = fresh();
        make(path);
        make(path + "-ready");
        List<CompletableFuture<String>> followers = ask(3, i -> new Object[] {"cache", path, i, kind});
        Suite.waitFor("all to follow", () -> client.getChildren().forPath(path + "-ready").size() == 3);
        answers(ask(3, i -> new Object[] {"mutate", path, 120, i}));
        make(path + "-end");
        answers(followers);
    }

    private static void transactions() throws Exception {
        String path = fresh();
        make(path);
        make(path + "-receipts");
        for (int i = 0; i < 3; i++) {
            client.create().forPath(path + "/" + i, bytes("1000"));
        }
        int refused = 0;
        for (String some : answers(ask(CONTENDERS, i -> new Object[] {"transfer", path, 20, i}))) {
            refused += Integer.parseInt(some);
        }
        CuratorWorker.sync(client, path);
        int sum = 0;
        for (int i = 0; i < 3; i++) {
            sum += CuratorWorker.number(client, path + "/" + i);
        }
        Suite.equal(sum, 3000, "the money");
        Suite.equal(client.getChildren().forPath(path + "-receipts").size(), CONTENDERS * 20, "receipts");
        Suite.check(refused > 0, "some were refused, or there was no contention");
    }

    private static void groupMember() throws Exception {
        String path = fresh();
        make(path + "-seen");
        try (GroupMember coordinator = new GroupMember(client, path, "coordinator", bytes("coordinator"))) {
            coordinator.start();
            List<CompletableFuture<String>> members = ask(CONTENDERS, i -> new Object[] {"group-member", path, "m" + i, CONTENDERS + 1});
            Suite.waitFor("all to see all", () -> client.getChildren().forPath(path + "-seen").size() == CONTENDERS);
            coordinator.close(); // Before the end of the block, which is harmless.
            answers(members);
            Suite.waitFor("all to be gone, and the group after them", () -> client.checkExists().forPath(path) == null);
        }
    }

    /** A process is killed that holds one of each. Nobody gets any of it before its session has ended; then all of it passes on. */
    private static void killedProcessLetsGo() throws Exception {
        String path = fresh();
        make(path);
        Worker victim = new Worker(servers[servers.length - 1]);
        CompletableFuture<String> answer = victim.ask("victim", path);
        Suite.waitFor("it to hold all", () -> {
            if (answer.isDone()) {
                answers(List.of(answer)); // Then something has gone wrong.
            }
            return client.checkExists().forPath(path + "/holds") != null;
        });
        try (CuratorAlone.Heirs heirs = new CuratorAlone.Heirs(client, path)) {
            Suite.check(!heirs.haveAny(), "nobody else has any while it lives");
            victim.end();
            victim.process.waitFor();
            heirs.takeAll();
        }
    }
}
