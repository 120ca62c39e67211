import java.io.Closeable;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;

/**
 * Curator's caches of all kinds in one form: what a cache has now, and what a listener would believe that knows its events alone.
 *
 * <p>Both must become what is in the tree.
 */
@SuppressWarnings("deprecation") // Older caches are still there, and in use.
final class CuratorCaches {
    static final List<String> KINDS = List.of("path-children", "node", "tree", "curator", "curator-single", "bridge");

    private CuratorCaches() {}

    /** A cache that is started. */
    abstract static class Follower implements Closeable {
        /** By path. */
        final Map<String, String> heard = new ConcurrentHashMap<>();

        abstract Map<String, String> now();

        void hear(boolean gone, ChildData data) {
            if (gone) {
                heard.remove(data.getPath());
            } else {
                heard.put(data.getPath(), text(data));
            }
        }
    }

    static Follower open(CuratorFramework client, String kind, String path) throws Exception {
        switch (kind) {
            case "path-children": {
                PathChildrenCache cache = new PathChildrenCache(client, path, true);
                Follower follower = follower(cache, () -> map(cache.getCurrentData()));
                cache.getListenable().addListener((ignored, event) -> {
                    switch (event.getType()) {
                        case CHILD_ADDED, CHILD_UPDATED -> follower.hear(false, event.getData());
                        case CHILD_REMOVED -> follower.hear(true, event.getData());
                        default -> { }
                    }
                });
                cache.start(PathChildrenCache.StartMode.NORMAL);
                return follower;
            }
            case "node": {
                NodeCache cache = new NodeCache(client, path + "/0");
                Follower follower = follower(cache, () -> {
                    ChildData data = cache.getCurrentData();
                    return map(data == null ? List.of() : List.of(data));
                });
                cache.getListenable().addListener(() -> {
                    ChildData data = cache.getCurrentData();
                    follower.heard.clear();
                    if (data != null) {
                        follower.hear(false, data);
                    }
                });
                cache.start();
                return follower;
            }
            case "tree": {
                TreeCache cache = new TreeCache(client, path);
                Follower follower = follower(cache, () -> {
                    Map<String, String> all = new TreeMap<>();
                    collect(cache, path, all);
                    return all;
                });
                cache.getListenable().addListener((ignored, event) -> {
                    switch (event.getType()) {
                        case NODE_ADDED, NODE_UPDATED -> follower.hear(false, event.getData());
                        case NODE_REMOVED -> follower.hear(true, event.getData());
                        default -> { }
                    }
                });
                cache.start();
                return follower;
            }
            default: {
                CuratorCache cache = switch (kind) {
                    case "curator" -> CuratorCache.build(client, path);
                    case "curator-single" -> CuratorCache.build(client, path + "/0", CuratorCache.Options.SINGLE_NODE_CACHE);
                    case "bridge" -> CuratorCache.bridgeBuilder(client, path).build();
                    default -> throw new IllegalArgumentException(kind);
                };
                Follower follower = follower(cache, () -> map(cache.stream().toList()));
                cache.listenable().addListener((type, before, after) -> {
                    switch (type) {
                        case NODE_CREATED, NODE_CHANGED -> follower.hear(false, after);
                        default -> follower.hear(true, before);
                    }
                });
                cache.start();
                return follower;
            }
        }
    }

    private interface Snapshot {
        Map<String, String> take();
    }

    private static Follower follower(Closeable cache, Snapshot snapshot) {
        return new Follower() {
            @Override
            Map<String, String> now() {
                return snapshot.take();
            }

            @Override
            public void close() throws java.io.IOException {
                cache.close();
            }
        };
    }

    private static void collect(TreeCache cache, String path, Map<String, String> all) {
        ChildData data = cache.getCurrentData(path);
        if (data != null) {
            all.put(path, text(data));
            Map<String, ChildData> children = cache.getCurrentChildren(path);
            (children == null ? Collections.<String, ChildData>emptyMap() : children).keySet()
                .forEach(name -> collect(cache, path + "/" + name, all));
        }
    }

    private static Map<String, String> map(List<ChildData> list) {
        Map<String, String> all = new TreeMap<>();
        list.forEach(data -> all.put(data.getPath(), text(data)));
        return all;
    }

    private static String text(ChildData data) {
        return new String(data.getData(), StandardCharsets.UTF_8);
    }

    /** What a cache of that kind should have of a tree. */
    static Map<String, String> part(String kind, String path, Map<String, String> tree) {
        Map<String, String> part = new TreeMap<>(tree);
        switch (kind) {
            case "path-children" -> part.keySet().removeIf(one -> one.equals(path) || one.indexOf('/', path.length() + 1) > 0);
            case "node", "curator-single" -> part.keySet().removeIf(one -> !one.equals(path + "/0"));
            default -> { }
        }
        return part;
    }

    /**
     * Waits until the cache, and who listens to it, have what is in the tree, which nobody changes any more.
     *
     * <p>A CuratorCache tells nothing of a node that was deleted and made again while there was no connection, if its version is the
     * same: it compares versions (5.9.0). So {@code isWhole} says whether there always was one; otherwise its listener need only know the
     * right paths.
     */
    static void converge(CuratorFramework client, Follower cache, String kind, String path, boolean isWhole) throws Exception {
        CuratorWorker.sync(client, path);
        Map<String, String> want = part(kind, path, CuratorWorker.tree(client, path));
        boolean tellsAll = isWhole || List.of("path-children", "node", "tree").contains(kind);
        Suite.waitFor(() -> "cache " + kind + " to have " + want + "; it has " + cache.now() + " and said " + new TreeMap<>(cache.heard),
            Suite.WAIT_SECONDS,
            () -> cache.now().equals(want) && (tellsAll ? cache.heard.equals(want) : cache.heard.keySet().equals(want.keySet())));
    }

    /** PATH NAME KIND: says at PATH-ready that it follows, and compares when there is a PATH-end. */
    static String follow(CuratorFramework client, String[] args) throws Exception {
        String path = args[0];
        try (Follower cache = open(client, args[2], path)) {
            client.create().forPath(path + "-ready/" + args[1]);
            Suite.waitFor(() -> "the end of " + path, 2 * Suite.WAIT_SECONDS, () -> client.checkExists().forPath(path + "-end") != null);
            converge(client, cache, args[2], path, true);
        }
        return "";
    }
}
