import java.io.Closeable;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBase;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.state.ConnectionState;

/**
 * Curator's queues of all kinds in one form, and the tasks of {@link CuratorWorker} that put into them and take out of them.
 *
 * <p>An item is a text; what is needed for its place (a priority, an id, a time) is the number behind its last dash.
 */
final class CuratorQueues {
    private CuratorQueues() {}

    interface Putter extends Closeable {
        void put(String item) throws Exception;
    }

    interface Taker {
        void take(String item) throws Exception;
    }

    /** A queue that is started. Without a taker it only puts. Kinds: plain, locked, id, priority, delay. */
    static Putter open(CuratorFramework client, String kind, String path, Taker taker) throws Exception {
        QueueBuilder<String> builder = builder(client, path, taker);
        switch (kind) {
            case "plain":
            case "locked":
                DistributedQueue<String> queue = (kind.equals("locked") ? builder.lockPath(path + "-locks") : builder).buildQueue();
                return started(queue, queue::put);
            case "id":
                DistributedIdQueue<String> ids = builder.buildIdQueue();
                return started(ids, item -> ids.put(item, "id" + number(item)));
            case "priority":
                DistributedPriorityQueue<String> priorities = builder.buildPriorityQueue(0);
                return started(priorities, item -> priorities.put(item, (int) number(item)));
            case "delay":
                DistributedDelayQueue<String> delays = builder.buildDelayQueue();
                return started(delays, item -> delays.put(item, number(item) + 1));
            default:
                throw new IllegalArgumentException(kind);
        }
    }

    static QueueBuilder<String> builder(CuratorFramework client, String path, Taker taker) {
        QueueConsumer<String> consumer = taker == null ? null : new QueueConsumer<>() {
            @Override
            public void consumeMessage(String item) throws Exception {
                taker.take(item);
            }

            @Override
            public void stateChanged(CuratorFramework changed, ConnectionState state) {}
        };
        return QueueBuilder.builder(client, consumer, new QueueSerializer<>() {
            @Override
            public byte[] serialize(String item) {
                return item.getBytes(StandardCharsets.UTF_8);
            }

            @Override
            public String deserialize(byte[] bytes) {
                return new String(bytes, StandardCharsets.UTF_8);
            }
        }, path);
    }

    static long number(String item) {
        return Long.parseLong(item.substring(item.lastIndexOf('-') + 1));
    }

    private static Putter started(QueueBase<String> queue, Taker put) throws Exception {
        queue.start();
        return new Putter() {
            @Override
            public void put(String item) throws Exception {
                put.take(item);
            }

            @Override
            public void close() {
                try {
                    // Puts go in the background.
                    Suite.check(queue.flushPuts(Suite.WAIT_SECONDS, TimeUnit.SECONDS), "all was put in time");
                    queue.close();
                } catch (Exception problem) {
                    throw new IllegalStateException(problem);
                }
            }
        };
    }

    /** KIND PATH NAME TIMES: puts NAME-0, NAME-1, ... */
    static String produce(CuratorFramework client, String[] args) throws Exception {
        try (Putter queue = open(client, args[0], args[1], null)) {
            for (int i = 0; i < Integer.parseInt(args[3]); i++) {
                queue.put(args[2] + "-" + i);
            }
        }
        return "";
    }

    /** KIND PATH FILE: notes in the file what it takes, until there is a node PATH-end. */
    static String consume(CuratorFramework client, String[] args) throws Exception {
        try (Putter queue = open(client, args[0], args[1], item -> CuratorWorker.note(args[2], item))) {
            Suite.waitFor(() -> "the end of " + args[1], 2 * Suite.WAIT_SECONDS,
                () -> client.checkExists().forPath(args[1] + "-end") != null);
        }
        return "";
    }
}
