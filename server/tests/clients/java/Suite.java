import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Runs named cases, some at once, and prints one line for each: {@code ok NAME} or {@code FAILED NAME: why}.
 *
 * The idea: nearly all of a case's time is waiting for a server, so a few run side by side, each below a path of its own. A case that has
 * not ended after {@link #CASE_SECONDS} is reported with the place where it stands, and left behind.
 *
 * Invariants: nothing waits without a deadline, nothing sleeps for a fixed time and then believes that something has happened.
 * Not here: what a case says to the server.
 */
final class Suite {
    /** How long a single expected thing may take on a busy machine. */
    static final int WAIT_SECONDS = 20;
    private static final int CASE_SECONDS = 50;

    interface Body {
        void run() throws Exception;
    }

    private final Map<String, Body> cases = new LinkedHashMap<>();

    void add(String name, Body body) {
        if (cases.put(name, body) != null) {
            throw new IllegalArgumentException("two cases are called " + name);
        }
    }

    /** Runs those whose name has {@code part} in it; returns how many failed. */
    int run(int atOnce, String part) throws InterruptedException {
        AtomicInteger passed = new AtomicInteger();
        AtomicInteger failed = new AtomicInteger();
        ExecutorService runners = Executors.newFixedThreadPool(atOnce);
        cases.forEach((name, body) -> {
            if (name.contains(part)) {
                runners.execute(() -> {
                    String why = outcome(name, body);
                    (why == null ? passed : failed).incrementAndGet();
                    say(why == null ? "ok " + name : "FAILED " + name + ": " + why);
                });
            }
        });
        runners.shutdown();
        runners.awaitTermination(1, TimeUnit.HOURS);
        say(passed + " ok, " + failed + " failed");
        return failed.get();
    }

    private static String outcome(String name, Body body) {
        Throwable[] thrown = new Throwable[1];
        Thread thread = new Thread(() -> {
            try {
                body.run();
            } catch (Throwable problem) {
                thrown[0] = problem;
            }
        }, name);
        thread.setDaemon(true);
        long start = System.nanoTime();
        thread.start();
        try {
            thread.join(TimeUnit.SECONDS.toMillis(CASE_SECONDS));
        } catch (InterruptedException unexpected) {
            return "interrupted";
        }
        if (thread.isAlive()) {
            return "not done after " + CASE_SECONDS + " s; it is at" + places(thread.getStackTrace());
        }
        if (Boolean.getBoolean("times")) {
            say("     " + (System.nanoTime() - start) / 1_000_000 + " ms: " + name);
        }
        return thrown[0] == null ? null : describe(thrown[0]);
    }

    static String describe(Throwable problem) {
        String cause = problem.getCause() == null ? "" : " because of " + describe(problem.getCause());
        return problem + places(problem.getStackTrace()) + cause;
    }

    /** Those places of a stack that are ours. */
    private static String places(StackTraceElement[] stack) {
        StringBuilder all = new StringBuilder();
        for (StackTraceElement frame : stack) {
            if (!frame.getClassName().contains(".") && !frame.getClassName().startsWith("Suite")) {
                all.append(all.length() == 0 ? " (" : ", ").append(frame.getFileName()).append(':').append(frame.getLineNumber());
            }
        }
        return all.length() == 0 ? "" : all + ")";
    }

    private static synchronized void say(String line) {
        System.out.println(line);
    }

    static void waitFor(String what, Callable<Boolean> condition) throws Exception {
        waitFor(() -> what, WAIT_SECONDS, condition);
    }

    /** Polls, with a description that is made when the time is up. */
    static void waitFor(Callable<String> what, int seconds, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        for (long pause = 1; !condition.call(); pause = Math.min(pause * 2, 20)) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("waited " + seconds + " s for " + what.call());
            }
            Thread.sleep(pause);
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void equal(Object got, Object want, String what) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
    }

    interface Thrower {
        void run() throws Exception;
    }

    /** The exception of that class that {@code body} must throw. */
    static <E extends Exception> E thrown(Class<E> kind, String what, Thrower body) {
        try {
            body.run();
        } catch (Exception problem) {
            if (kind.isInstance(problem)) {
                return kind.cast(problem);
            }
            throw new AssertionError(what + ": got " + problem + ", want " + kind.getSimpleName(), problem);
        }
        throw new AssertionError(what + ": got no exception, want " + kind.getSimpleName());
    }

    /** A TCP proxy in front of one server, which can cut what goes through it, and keep it cut. */
    static final class Proxy implements AutoCloseable {
        private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        private final InetSocketAddress target;
        private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
        private volatile boolean cut;
        private volatile boolean mute;

        Proxy(String hostAndPort) throws IOException {
            int colon = hostAndPort.lastIndexOf(':');
            target = new InetSocketAddress(hostAndPort.substring(0, colon), Integer.parseInt(hostAndPort.substring(colon + 1)));
            start("accepts", () -> {
                while (true) {
                    connect(listener.accept());
                }
            });
        }

        String address() {
            return "127.0.0.1:" + listener.getLocalPort();
        }

        /** Closes every connection and refuses new ones. */
        void cut() {
            cut = true;
            disconnect();
        }

        /** Closes every connection; new ones are welcome. */
        void disconnect() {
            for (Socket socket : sockets) {
                shut(socket);
            }
        }

        /** Loses from here on what servers answer, as long as the present connections live. */
        void loseAnswers() {
            mute = true;
        }

        void restore() {
            cut = false;
            mute = false;
        }

        private void connect(Socket client) throws IOException {
            Socket server = new Socket();
            sockets.addAll(List.of(client, server));
            if (!cut) {
                server.connect(target);
                client.setTcpNoDelay(true);
                server.setTcpNoDelay(true);
                start("to the server", () -> copy(client, server, false));
                start("to the client", () -> copy(server, client, true));
            }
            if (cut) {
                shut(client);
                shut(server);
            }
        }

        private void copy(Socket from, Socket to, boolean answers) throws IOException {
            try {
                byte[] bytes = new byte[65536];
                for (int n; (n = from.getInputStream().read(bytes)) >= 0; ) {
                    if (!(answers && mute)) {
                        to.getOutputStream().write(bytes, 0, n);
                    }
                }
            } finally {
                shut(from);
                shut(to);
            }
        }

        private void shut(Socket socket) {
            sockets.remove(socket);
            try {
                socket.close();
            } catch (IOException gone) {
                // That is what was wanted.
            }
        }

        private static void start(String name, Body body) {
            Thread thread = new Thread(() -> {
                try {
                    body.run();
                } catch (Exception closed) {
                    // The end of a connection, or of the proxy.
                }
            }, name);
            thread.setDaemon(true);
            thread.start();
        }

        @Override
        public void close() throws IOException {
            listener.close();
            cut();
        }
    }

    /** A list that events are put into from other threads, and taken out of in their order with a deadline. */
    static final class Inbox<T> {
        private final List<T> items = new ArrayList<>();

        synchronized void put(T item) {
            items.add(item);
            notifyAll();
        }

        synchronized T take(String what) throws InterruptedException {
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
            while (items.isEmpty()) {
                long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                if (left <= 0) {
                    throw new AssertionError("waited " + WAIT_SECONDS + " s for " + what);
                }
                wait(left);
            }
            return items.remove(0);
        }

        synchronized List<T> drain() {
            List<T> all = new ArrayList<>(items);
            items.clear();
            return all;
        }
    }
}
