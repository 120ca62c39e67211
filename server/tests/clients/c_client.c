/*
 * usage: c_client HOST:PORT [filter]
 *
 * The official C client library (libzookeeper-mt) against a running server.
 *
 * What this proves: the library's handshake (it reads a fixed 41 bytes), a thousand pipelined operations completed in order
 * with every read showing the write before it, multi and its results, what authentication protects, watches and their order
 * against completions, what the library does by itself when it loses its connection (same session, auth and setWatches again, no
 * event lost), resuming a session of a process that died, and the refusal of a dead session.
 *
 * The idea: completions and watches of one handle run on one thread, in the order the frames came; they are written into one
 * journal, which a case waits for and compares. A connection is lost by shutting its socket down under the library.
 *
 * Build: cc -O2 -Wall -Wextra -DTHREADED -o c_client c_client.c -lzookeeper_mt -lpthread
 * Prints `ok NAME` or `FAIL NAME: reason` per case; exit status 0 only if nothing failed.
 * Not here: everything a shell can show (c_client.sh).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define SECONDS_MAX 10
#define TIMEOUT_MS 10000
#define MANY 1000

static const char *server;
static int server_port;
static char root[64];
static char why[1024];

/* --- checks ---------------------------------------------------------------------------------------------------------- */

static int fail(int line, const char *format, ...)
{
    va_list arguments;
    int length = snprintf(why, sizeof why, "line %d: ", line);
    va_start(arguments, format);
    vsnprintf(why + length, sizeof why - length, format, arguments);
    va_end(arguments);
    return 0;
}

#define CHECK(condition, ...)                                                                                                \
    do {                                                                                                                     \
        if (!(condition))                                                                                                    \
            return fail(__LINE__, __VA_ARGS__);                                                                              \
    } while (0)
#define CHECK_RC(call, want)                                                                                                 \
    do {                                                                                                                     \
        int rc_ = (call);                                                                                                    \
        if (rc_ != (want))                                                                                                   \
            return fail(__LINE__, "%s: %d, want %d", #call, rc_, (want));                                                    \
    } while (0)

/* --- the journal ----------------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char *journal[2 * MANY + 100];
static int journal_length;

static void note(const char *format, ...)
{
    va_list arguments;
    char *line = NULL;
    va_start(arguments, format);
    if (vasprintf(&line, format, arguments) < 0)
        abort();
    va_end(arguments);
    pthread_mutex_lock(&lock);
    if (journal_length < (int)(sizeof journal / sizeof *journal))
        journal[journal_length++] = line;
    else
        free(line);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void journal_clear(void)
{
    pthread_mutex_lock(&lock);
    while (journal_length)
        free(journal[--journal_length]);
    pthread_mutex_unlock(&lock);
}

static struct timespec deadline(void)
{
    struct timespec when;
    clock_gettime(CLOCK_REALTIME, &when);
    when.tv_sec += SECONDS_MAX;
    return when;
}

/* Waits until the journal has that many lines. */
static int journal_await(int count)
{
    struct timespec when = deadline();
    int late = 0;
    pthread_mutex_lock(&lock);
    while (journal_length < count && !late)
        late = pthread_cond_timedwait(&changed, &lock, &when) != 0;
    int length = journal_length;
    pthread_mutex_unlock(&lock);
    return length >= count;
}

/* The journal must be, or within the deadline become, exactly these lines. */
static int journal_is(int line, int count, ...)
{
    va_list arguments;
    if (!journal_await(count))
        return fail(line, "%d entries of %d, the last \"%s\"", journal_length, count,
                    journal_length ? journal[journal_length - 1] : "");
    va_start(arguments, count);
    for (int i = 0; i < count; i++) {
        const char *want = va_arg(arguments, const char *);
        if (strcmp(journal[i], want)) {
            va_end(arguments);
            return fail(line, "entry %d is \"%s\", want \"%s\"", i, journal[i], want);
        }
    }
    va_end(arguments);
    if (journal_length != count)
        return fail(line, "an entry too many: \"%s\"", journal[count]);
    journal_clear();
    return 1;
}

#define JOURNAL(count, ...)                                                                                                  \
    do {                                                                                                                     \
        if (!journal_is(__LINE__, count, __VA_ARGS__))                                                                       \
            return 0;                                                                                                        \
    } while (0)

/* --- the library's callbacks ------------------------------------------------------------------------------------------ */

/* Changes of a handle's state; `context` of a handle is its struct session. */
struct session {
    zhandle_t *zh;
    int connects, losses, expired;
};

static void on_session(zhandle_t *zh, int type, int state, const char *path, void *context)
{
    struct session *session = context;
    (void)zh, (void)path;
    if (type != ZOO_SESSION_EVENT)
        return;
    pthread_mutex_lock(&lock);
    if (state == ZOO_CONNECTED_STATE)
        session->connects++;
    else if (state == ZOO_EXPIRED_SESSION_STATE)
        session->expired = 1;
    else
        session->losses++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int await(const int *value, int at_least)
{
    struct timespec when = deadline();
    int late = 0;
    pthread_mutex_lock(&lock);
    while (*value < at_least && !late)
        late = pthread_cond_timedwait(&changed, &lock, &when) != 0;
    int reached = *value >= at_least;
    pthread_mutex_unlock(&lock);
    return reached;
}

static const char *below_root(const char *path)
{
    return strncmp(path, root, strlen(root)) ? path : path + strlen(root);
}

static void on_watch(zhandle_t *zh, int type, int state, const char *path, void *context)
{
    (void)zh, (void)state;
    if (type != ZOO_SESSION_EVENT)
        note("%s %d %s", (const char *)context, type, below_root(path));
}

static void on_string(int rc, const char *value, const void *data)
{
    note("%s %d %s", (const char *)data, rc, value ? below_root(value) : "-");
}

static void on_stat(int rc, const struct Stat *stat, const void *data)
{
    note("%s %d %d", (const char *)data, rc, rc == ZOK ? stat->version : -1);
}

static void on_void(int rc, const void *data)
{
    note("%s %d", (const char *)data, rc);
}

static void on_data(int rc, const char *value, int length, const struct Stat *stat, const void *data)
{
    (void)stat;
    note("%s %d %.*s", (const char *)data, rc, rc == ZOK ? length : 0, value ? value : "");
}

/* --- sessions ----------------------------------------------------------------------------------------------------------- */

static int session_open(struct session *session, const clientid_t *id)
{
    memset(session, 0, sizeof *session);
    session->zh = zookeeper_init(server, on_session, TIMEOUT_MS, id, session, 0);
    return session->zh != NULL;
}

#define OPEN(session)                                                                                                        \
    CHECK(session_open(&(session), NULL) && await(&(session).connects, 1), "no connection")

static int session_close(struct session *session)
{
    int rc = zookeeper_close(session->zh);
    session->zh = NULL;
    return rc;
}

/* Shuts down the connections of all handles of this process to the server. */
static int cut_connections(void)
{
    int count = 0;
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length))
            continue;
        int port = peer.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&peer)->sin_port)
                 : peer.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&peer)->sin6_port) : 0;
        if (port == server_port && shutdown(fd, SHUT_RDWR) == 0)
            count++;
    }
    return count;
}

static char *at(const char *name)
{
    static char paths[8][sizeof root + 64];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s%s", root, name);
    return path;
}

static int create(struct session *session, const char *name, const char *data, int mode)
{
    return zoo_create(session->zh, at(name), data, data ? (int)strlen(data) : -1, &ZOO_OPEN_ACL_UNSAFE, mode, NULL, 0);
}

/* --- cases -------------------------------------------------------------------------------------------------------------- */

/* First, and before this process has any thread of the library: the session's owner is a process that dies. */
static int test_session_of_a_dead_process_is_resumed(void)
{
    int ends[2];
    clientid_t id;
    struct session session;
    CHECK(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        struct session owner;
        if (session_open(&owner, NULL) && await(&owner.connects, 1) && create(&owner, "-held", "x", ZOO_EPHEMERAL) == ZOK) {
            const clientid_t *own = zoo_client_id(owner.zh);
            if (write(ends[1], own, sizeof *own) == sizeof *own)
                _exit(0);
        }
        _exit(1);
    }
    close(ends[1]);
    int whole = read(ends[0], &id, sizeof id) == sizeof id, status;
    close(ends[0]);
    waitpid(child, &status, 0);
    CHECK(whole && status == 0, "the child got no session");

    CHECK(session_open(&session, &id) && await(&session.connects, 1), "not resumed%s", session.expired ? ": expired" : "");
    const clientid_t *now = zoo_client_id(session.zh);
    CHECK(now->client_id == id.client_id && !memcmp(now->passwd, id.passwd, sizeof id.passwd), "another session");
    struct Stat stat;
    CHECK_RC(zoo_exists(session.zh, at("-held"), 0, &stat), ZOK);
    CHECK(stat.ephemeralOwner == id.client_id, "owner %llx", (long long)stat.ephemeralOwner);
    CHECK_RC(session_close(&session), ZOK);

    OPEN(session);
    CHECK_RC(zoo_exists(session.zh, at("-held"), 0, &stat), ZNONODE);
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

static int test_dead_session_is_refused(void)
{
    struct session closed, live, refused;
    clientid_t ids[2];
    OPEN(closed);
    ids[0] = *zoo_client_id(closed.zh);
    CHECK_RC(session_close(&closed), ZOK);
    OPEN(live);
    ids[1] = *zoo_client_id(live.zh);
    ids[1].passwd[3] ^= 1;
    for (int i = 0; i < 2; i++) {
        CHECK(session_open(&refused, &ids[i]) && await(&refused.expired, 1), "%s is not refused",
              i ? "a wrong password" : "a closed id");
        CHECK(refused.connects == 0, "connected");
        session_close(&refused);
    }
    CHECK_RC(session_close(&live), ZOK);
    return 1;
}

static int test_pipelined_creates(void)
{
    struct session session;
    OPEN(session);
    CHECK_RC(create(&session, "/many", NULL, 0), ZOK);
    for (int i = 0; i < MANY; i++)
        CHECK_RC(zoo_acreate(session.zh, at("/many/"), "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, on_string, "create"), ZOK);
    CHECK(journal_await(MANY), "%d completions", journal_length);
    for (int i = 0; i < MANY; i++) {
        char want[64];
        snprintf(want, sizeof want, "create 0 /many/%010d", i);
        CHECK(!strcmp(journal[i], want), "completion %d: %s", i, journal[i]);
    }
    journal_clear();
    struct String_vector names;
    struct Stat stat;
    CHECK_RC(zoo_get_children2(session.zh, at("/many"), 0, &names, &stat), ZOK);
    CHECK(names.count == MANY && stat.numChildren == MANY && stat.cversion == MANY, "%d children", names.count);
    for (int i = 0; i < names.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "/many/%s", names.data[i]);
        CHECK_RC(zoo_adelete(session.zh, at(name), 0, on_void, "delete"), ZOK);
    }
    deallocate_String_vector(&names);
    CHECK(journal_await(MANY) && !strcmp(journal[0], "delete 0"), "%d deleted", journal_length);
    journal_clear();
    CHECK_RC(zoo_delete(session.zh, at("/many"), -1), ZOK);
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

static int test_pipelined_sets_and_gets(void)
{
    struct session session;
    OPEN(session);
    CHECK_RC(create(&session, "/one", "", 0), ZOK);
    for (int i = 0; i < MANY; i++) {
        char data[16];
        int length = snprintf(data, sizeof data, "%d", i);
        CHECK_RC(zoo_aset(session.zh, at("/one"), data, length, i, on_stat, "set"), ZOK);
        CHECK_RC(zoo_aget(session.zh, at("/one"), 0, on_data, "get"), ZOK);
    }
    CHECK(journal_await(2 * MANY), "%d completions", journal_length);
    for (int i = 0; i < MANY; i++) {
        char want[64];
        snprintf(want, sizeof want, "set 0 %d", i + 1);
        CHECK(!strcmp(journal[2 * i], want), "completion %d: %s, want %s", 2 * i, journal[2 * i], want);
        snprintf(want, sizeof want, "get 0 %d", i);
        CHECK(!strcmp(journal[2 * i + 1], want), "completion %d: %s, want %s", 2 * i + 1, journal[2 * i + 1], want);
    }
    journal_clear();
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

static int test_large_data(void)
{
    struct session session;
    int size = 1000000, length = size;
    char *data = malloc(size), *back = malloc(size);
    for (int i = 0; i < size; i++)
        data[i] = (char)(i * 31 + i / 251);
    OPEN(session);
    CHECK_RC(zoo_create(session.zh, at("/large"), data, size, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZOK);
    CHECK_RC(zoo_get(session.zh, at("/large"), 0, back, &length, NULL), ZOK);
    CHECK(length == size && !memcmp(data, back, size), "%d bytes came back", length);
    CHECK_RC(session_close(&session), ZOK);
    free(data);
    free(back);
    return 1;
}

static int test_multi(void)
{
    struct session session;
    zoo_op_t ops[5];
    zoo_op_result_t results[5];
    char made[128], numbered[128];
    struct Stat stat;
    OPEN(session);
    zoo_create_op_init(&ops[0], at("/m"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made);
    zoo_create_op_init(&ops[1], at("/m/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, numbered, sizeof numbered);
    zoo_set_op_init(&ops[2], at("/m"), "22", 2, 0, &stat);
    zoo_check_op_init(&ops[3], at("/m"), 1);
    zoo_delete_op_init(&ops[4], at("/m/s-0000000000"), 0);
    CHECK_RC(zoo_multi(session.zh, 5, ops, results), ZOK);
    for (int i = 0; i < 5; i++)
        CHECK(results[i].err == ZOK, "result %d: %d", i, results[i].err);
    CHECK(!strcmp(made, at("/m")) && !strcmp(numbered, at("/m/s-0000000000")), "%s and %s", made, numbered);
    CHECK(stat.version == 1 && stat.dataLength == 2 && stat.numChildren == 1, "version %d", stat.version);

    zoo_set_op_init(&ops[0], at("/m"), "3", 1, 1, &stat);
    zoo_create_op_init(&ops[1], at("/m"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
    zoo_delete_op_init(&ops[2], at("/m"), -1);
    CHECK_RC(zoo_multi(session.zh, 3, ops, results), ZNODEEXISTS);
    CHECK(results[0].err == ZOK && results[1].err == ZNODEEXISTS && results[2].err == ZRUNTIMEINCONSISTENCY,
          "results %d %d %d", results[0].err, results[1].err, results[2].err);
    zoo_check_op_init(&ops[0], at("/m"), 7);
    CHECK_RC(zoo_multi(session.zh, 1, ops, results), ZBADVERSION);
    CHECK_RC(zoo_exists(session.zh, at("/m"), 0, &stat), ZOK);
    CHECK(stat.version == 1 && stat.cversion == 2 && stat.numChildren == 0, "version %d", stat.version);
    CHECK_RC(zoo_delete(session.zh, at("/m"), 1), ZOK);
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

static int test_acl(void)
{
    struct session session;
    struct ACL_vector acl;
    struct Stat stat;
    struct ACL_vector none = {0, NULL};
    OPEN(session);
    CHECK_RC(create(&session, "/acl", "x", 0), ZOK);
    CHECK_RC(zoo_set_acl(session.zh, at("/acl"), 0, &ZOO_READ_ACL_UNSAFE), ZOK);
    CHECK_RC(zoo_get_acl(session.zh, at("/acl"), &acl, &stat), ZOK);
    CHECK(acl.count == 1 && acl.data[0].perms == ZOO_PERM_READ && !strcmp(acl.data[0].id.scheme, "world")
              && !strcmp(acl.data[0].id.id, "anyone") && stat.aversion == 1, "%d entries", acl.count);
    deallocate_ACL_vector(&acl);
    CHECK_RC(zoo_set(session.zh, at("/acl"), "y", 1, -1), ZNOAUTH);
    CHECK_RC(zoo_set_acl(session.zh, at("/acl"), 1, &ZOO_OPEN_ACL_UNSAFE), ZNOAUTH);
    CHECK_RC(zoo_create(session.zh, at("/acl2"), "", 0, &none, 0, NULL, 0), ZINVALIDACL);
    CHECK_RC(zoo_delete(session.zh, at("/acl"), -1), ZOK);
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

/* What its owner has shown goes with a connection; the library shows it again on the next one. */
static int test_auth(void)
{
    static const char credential[] = "owner:secret", guess[] = "owner:guess";
    struct session owner, other;
    struct ACL_vector acl;
    struct Stat stat;
    char data[16];
    int length = sizeof data;
    OPEN(owner);
    OPEN(other);
    CHECK_RC(zoo_add_auth(owner.zh, "digest", credential, strlen(credential), on_void, "auth"), ZOK);
    JOURNAL(1, "auth 0");
    CHECK_RC(zoo_create(owner.zh, at("/own"), "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZOK);
    CHECK_RC(zoo_create(other.zh, at("/other"), "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZINVALIDACL);
    CHECK_RC(zoo_get_acl(owner.zh, at("/own"), &acl, &stat), ZOK);
    CHECK(acl.count == 1 && !strcmp(acl.data[0].id.scheme, "digest") && !strncmp(acl.data[0].id.id, "owner:", 6),
          "%d entries, %s", acl.count, acl.count ? acl.data[0].id.id : "");
    deallocate_ACL_vector(&acl);

    CHECK_RC(zoo_add_auth(other.zh, "digest", guess, strlen(guess), on_void, "guess"), ZOK);
    JOURNAL(1, "guess 0");
    CHECK_RC(zoo_get(other.zh, at("/own"), 0, data, &length, NULL), ZNOAUTH);
    CHECK_RC(zoo_set(other.zh, at("/own"), "y", 1, -1), ZNOAUTH);
    CHECK_RC(zoo_create(other.zh, at("/own/kid"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNOAUTH);
    CHECK_RC(zoo_set_acl(other.zh, at("/own"), -1, &ZOO_OPEN_ACL_UNSAFE), ZNOAUTH);

    int connects = owner.connects;
    CHECK(cut_connections() >= 2 && await(&owner.connects, connects + 1), "not connected again");
    CHECK_RC(zoo_set(owner.zh, at("/own"), "z", 1, -1), ZOK);
    CHECK_RC(zoo_set_acl(owner.zh, at("/own"), -1, &ZOO_READ_ACL_UNSAFE), ZOK);
    CHECK_RC(session_close(&owner), ZOK);

    CHECK(await(&other.connects, 2), "not connected again");
    length = sizeof data;
    CHECK_RC(zoo_get(other.zh, at("/own"), 0, data, &length, NULL), ZOK);
    CHECK(length == 1 && data[0] == 'z', "%d bytes", length);
    journal_clear();
    CHECK_RC(zoo_add_auth(other.zh, "no-such-scheme", guess, strlen(guess), on_void, "auth"), ZOK);
    JOURNAL(1, "auth -115");
    session_close(&other);
    return 1;
}

/* The library hands over events and completions on one thread in the order of the frames. */
static int test_watches_come_before_completions(void)
{
    struct session session, other;
    OPEN(session);
    OPEN(other);
    CHECK_RC(zoo_wexists(session.zh, at("/w"), on_watch, "exists", NULL), ZNONODE);
    struct String_vector names;
    CHECK_RC(zoo_wget_children(session.zh, root, on_watch, "children", &names), ZOK);
    deallocate_String_vector(&names);
    CHECK_RC(zoo_acreate(session.zh, at("/w"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, "create"), ZOK);
    JOURNAL(3, "exists 1 /w", "children 4 ", "create 0 /w");

    char data[16];
    int length = sizeof data;
    CHECK_RC(zoo_wget(session.zh, at("/w"), on_watch, "get", data, &length, NULL), ZOK);
    CHECK_RC(zoo_aset(session.zh, at("/w"), "2", 1, 0, on_stat, "set"), ZOK);
    CHECK_RC(zoo_aget(session.zh, at("/w"), 0, on_data, "read"), ZOK);
    JOURNAL(3, "get 3 /w", "set 0 1", "read 0 2");

    length = sizeof data;
    CHECK_RC(zoo_wget(session.zh, at("/w"), on_watch, "get", data, &length, NULL), ZOK);
    CHECK_RC(zoo_wget_children(session.zh, at("/w"), on_watch, "children", &names), ZOK);
    deallocate_String_vector(&names);
    CHECK_RC(zoo_delete(other.zh, at("/w"), 1), ZOK);
    CHECK(journal_await(2), "%d events", journal_length);
    CHECK_RC(zoo_aget(session.zh, at("/w"), 0, on_data, "read"), ZOK);
    CHECK(journal_await(3), "%d entries", journal_length);
    /* One NodeDeleted reaches both watchers, in the library's own order. */
    CHECK((!strcmp(journal[0], "get 2 /w") && !strcmp(journal[1], "children 2 /w"))
              || (!strcmp(journal[1], "get 2 /w") && !strcmp(journal[0], "children 2 /w")), "%s, %s", journal[0], journal[1]);
    CHECK(journal_length == 3 && !strncmp(journal[2], "read -101", 9), "%s", journal[2]);
    journal_clear();
    CHECK_RC(session_close(&other), ZOK);
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

/* What the library re-registers with setWatches must fire, whether the change falls into the gap or comes after it. */
static int test_lost_connections_lose_no_event(void)
{
    struct session session;
    struct Stat stat;
    char data[16];
    OPEN(session);
    clientid_t id = *zoo_client_id(session.zh);
    CHECK_RC(create(&session, "/kept", "", ZOO_EPHEMERAL), ZOK);
    CHECK_RC(create(&session, "/data", "", 0), ZOK);
    CHECK_RC(create(&session, "/children", "", 0), ZOK);
    for (int round = 0; round < 6; round++) {
        struct String_vector names;
        int length = sizeof data, connects = session.connects, in_the_gap = round % 2;
        CHECK_RC(zoo_wget(session.zh, at("/data"), on_watch, "get", data, &length, NULL), ZOK);
        CHECK_RC(zoo_wexists(session.zh, at("/later"), on_watch, "exists", NULL), ZNONODE);
        CHECK_RC(zoo_wget_children(session.zh, at("/children"), on_watch, "children", &names), ZOK);
        deallocate_String_vector(&names);
        CHECK(cut_connections() > 0, "no connection to cut");
        if (!in_the_gap)
            CHECK(await(&session.connects, connects + 1), "not connected again");
        /* A second handle makes the changes; while it connects, the first may already be back: both are fine. */
        struct session other;
        OPEN(other);
        CHECK_RC(zoo_set(other.zh, at("/data"), "x", 1, -1), ZOK);
        CHECK_RC(create(&other, "/later", "", 0), ZOK);
        CHECK_RC(create(&other, "/children/c", "", 0), ZOK);
        CHECK(await(&session.connects, connects + 1), "not connected again");
        CHECK(journal_await(3), "round %d: %d events of 3", round, journal_length);
        CHECK_RC(zoo_exists(session.zh, at("/kept"), 0, &stat), ZOK);
        CHECK(journal_length == 3, "round %d: an event too many: %s", round, journal[journal_length - 1]);
        CHECK(!strcmp(journal[0], "get 3 /data") && !strcmp(journal[1], "exists 1 /later")
                  && !strcmp(journal[2], "children 4 /children"), "%s, %s, %s", journal[0], journal[1], journal[2]);
        journal_clear();
        CHECK_RC(zoo_delete(other.zh, at("/later"), -1), ZOK);
        CHECK_RC(zoo_delete(other.zh, at("/children/c"), -1), ZOK);
        CHECK_RC(session_close(&other), ZOK);
        CHECK(zoo_client_id(session.zh)->client_id == id.client_id && !session.expired, "another session");
        CHECK(stat.ephemeralOwner == id.client_id, "owner");
    }
    CHECK_RC(session_close(&session), ZOK);
    return 1;
}

static int test_sync_shows_what_others_wrote(void)
{
    struct session reader, writer;
    OPEN(reader);
    OPEN(writer);
    CHECK_RC(create(&writer, "/synced", "", 0), ZOK);
    for (int i = 0; i < 100; i++) {
        char data[16], want[32];
        int length = snprintf(data, sizeof data, "%d", i);
        CHECK_RC(zoo_set(writer.zh, at("/synced"), data, length, i), ZOK);
        CHECK_RC(zoo_async(reader.zh, at("/synced"), on_string, "sync"), ZOK);
        CHECK_RC(zoo_aget(reader.zh, at("/synced"), 0, on_data, "get"), ZOK);
        snprintf(want, sizeof want, "get 0 %d", i);
        JOURNAL(2, "sync 0 /synced", want);
    }
    CHECK_RC(session_close(&reader), ZOK);
    CHECK_RC(session_close(&writer), ZOK);
    return 1;
}

/* --- running them ------------------------------------------------------------------------------------------------------- */

static void remove_tree(zhandle_t *zh, const char *path)
{
    struct String_vector names;
    if (zoo_get_children(zh, path, 0, &names) == ZOK) {
        for (int i = 0; i < names.count; i++) {
            char *child = NULL;
            if (asprintf(&child, "%s/%s", path, names.data[i]) > 0)
                remove_tree(zh, child);
            free(child);
        }
        deallocate_String_vector(&names);
    }
    zoo_delete(zh, path, -1);
}

#define CASE(name) {#name, name}

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    CASE(test_session_of_a_dead_process_is_resumed),
    CASE(test_dead_session_is_refused),
    CASE(test_pipelined_creates),
    CASE(test_pipelined_sets_and_gets),
    CASE(test_large_data),
    CASE(test_multi),
    CASE(test_acl),
    CASE(test_auth),
    CASE(test_watches_come_before_completions),
    CASE(test_lost_connections_lose_no_event),
    CASE(test_sync_shows_what_others_wrote),
};

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    struct session session;
    const char *colon;
    if (argc < 2 || argc > 3 || !(colon = strrchr(argv[1], ':'))) {
        fprintf(stderr, "usage: c_client HOST:PORT [filter]\n");
        return 2;
    }
    server = argv[1];
    server_port = atoi(colon + 1);
    snprintf(root, sizeof root, "/c-client-%d", (int)getpid());
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    zoo_set_log_stream(fopen("/dev/null", "w"));

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc == 3 && !strstr(cases[i].name, argv[2]))
            continue;
        if (i > 0) { /* The first case wants no thread of the library in this process. */
            if (session_open(&session, NULL) && await(&session.connects, 1))
                create(&session, "", NULL, 0);
            session_close(&session);
        }
        journal_clear();
        if (cases[i].run()) {
            printf("ok %s\n", cases[i].name);
            passed++;
        } else {
            printf("FAIL %s: %s\n", cases[i].name, why);
            failed++;
        }
        fflush(stdout);
        if (i > 0) {
            if (session_open(&session, NULL) && await(&session.connects, 1))
                remove_tree(session.zh, root);
            session_close(&session);
        }
    }
    printf("%d ok, 0 skipped, %d failed\n", passed, failed);
    return failed || !passed;
}
