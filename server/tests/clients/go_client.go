// usage: go_client HOST:PORT [FILTER]
//
// go-zookeeper (Debian's golang-github-samuel-go-zookeeper-dev) against a running server.
//
// What this proves: every operation that client has does what ZooKeeper promises: all kinds of nodes, versions, lists, watches,
// Multi, four-letter words; its recipe of a lock excludes, in order, and goes on when a holder dies; a session outlives its
// connection and does not outlive its time. This client differs on the wire from others: its first request has no read-only
// flag, and its identities and watches come with ordinary request numbers.
//
// The idea: a case is a function in `cases`; all run side by side, each below a path of its own. A connection is cut, or kept
// from coming back, in the dialer that the client is given. Whatever is waited for has a deadline; that nothing more comes is
// proved by an event that must come behind it, as events are in order.
//
// Prints `ok NAME`, `skip NAME: why` or `FAILED NAME: why` per case; exit status 0 only if nothing failed.
// Not here: what the client does not have (create2, containers, TTL, persistent watches, whoAmI); its FLWSrvr, which cannot read
// the answer of Apache ZooKeeper since 3.5 (a fraction in the latency, another form of the date).
package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/samuel/go-zookeeper/zk"
)

const (
	wait     = 15 * time.Second // How long one expected thing may take on a busy machine.
	caseTime = 90 * time.Second // A case that has not ended by then has failed.
)

var (
	address string
	run     = fmt.Sprintf("%x-%x", os.Getpid(), time.Now().UnixNano()/1e6&0xffffff)
	open    = zk.WorldACL(zk.PermAll)
)

type failure string
type skip string

// Fails the case that calls this, with the line that did.
func fail(format string, args ...interface{}) {
	lines := ""
	for depth := 1; depth < 12; depth++ {
		pc, _, line, ok := runtime.Caller(depth)
		if !ok || strings.HasSuffix(runtime.FuncForPC(pc).Name(), ".runCase.func1") {
			break
		}
		lines += fmt.Sprintf(" < %d", line)
	}
	panic(failure(fmt.Sprintf(format, args...) + " (go_client.go" + lines + ")"))
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func wants(got, want error) {
	if got != want {
		fail("got %v, want %v", got, want)
	}
}

func equal(got, want interface{}) {
	if !reflect.DeepEqual(got, want) {
		fail("got %+v, want %+v", got, want)
	}
}

func until(what string, condition func() bool) { untilIn(what, wait, condition) }

func untilIn(what string, limit time.Duration, condition func() bool) {
	for deadline := time.Now().Add(limit); !condition(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(deadline) {
			fail("waited %v for %s", limit, what)
		}
	}
}

// A client whose connection can be cut.
type client struct {
	*zk.Conn
	sessions, expired int32 // How often it was told that it has a session, and that it has none any more.
	blocked           int32
	mutex             sync.Mutex
	conn              net.Conn
}

func (c *client) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if atomic.LoadInt32(&c.blocked) != 0 {
		return nil, errors.New("blocked")
	}
	conn, err := net.DialTimeout(network, address, timeout)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.conn = conn
	return conn, err
}

func (c *client) cut() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.conn.Close()
}

func (c *client) block() {
	atomic.StoreInt32(&c.blocked, 1)
	c.cut()
	until("the loss", func() bool { return c.State() != zk.StateHasSession })
}

func (c *client) unblock() { atomic.StoreInt32(&c.blocked, 0) }

func (c *client) awaitSession(number int32) {
	until("a session", func() bool { return atomic.LoadInt32(&c.sessions) >= number })
}

type silent struct{}

func (silent) Printf(string, ...interface{}) {}

// What one running case is given.
type test struct {
	root    string
	clients []*client
	mutex   sync.Mutex
}

func (t *test) connect(timeout time.Duration) *client {
	c := &client{}
	told := func(event zk.Event) {
		switch event.State {
		case zk.StateHasSession:
			atomic.AddInt32(&c.sessions, 1)
		case zk.StateExpired:
			atomic.AddInt32(&c.expired, 1)
		}
	}
	conn, _, err := zk.Connect([]string{address}, timeout, zk.WithDialer(c.dial), zk.WithEventCallback(told), zk.WithLogger(silent{}))
	must(err)
	c.Conn = conn
	t.mutex.Lock()
	t.clients = append(t.clients, c)
	t.mutex.Unlock()
	c.awaitSession(1)
	return c
}

func (t *test) path(name string) string { return t.root + "/" + name }

func create(c *client, path, data string, flags int32) string {
	made, err := c.Create(path, []byte(data), flags, open)
	must(err)
	return made
}

func children(c *client, path string) []string {
	names, stat, err := c.Children(path)
	must(err)
	equal(int(stat.NumChildren), len(names))
	sort.Strings(names)
	return names
}

func get(c *client, path string) (string, *zk.Stat) {
	data, stat, err := c.Get(path)
	must(err)
	return string(data), stat
}

func exists(c *client, path string) (bool, *zk.Stat) {
	there, stat, err := c.Exists(path)
	must(err)
	return there, stat
}

// The one event of a watch.
func gets(events <-chan zk.Event, kind zk.EventType, path string) {
	select {
	case event := <-events:
		equal([]interface{}{event.Type, event.Path, event.Err}, []interface{}{kind, path, nil})
	case <-time.After(wait):
		fail("waited %v for %v of %s", wait, kind, path)
	}
}

func none(events <-chan zk.Event) {
	select {
	case event := <-events:
		fail("told of %v", event)
	default:
	}
}

func dataW(c *client, path string) <-chan zk.Event {
	_, _, events, err := c.GetW(path)
	must(err)
	return events
}

func existsW(c *client, path string, want bool) <-chan zk.Event {
	there, _, events, err := c.ExistsW(path)
	must(err)
	equal(there, want)
	return events
}

func childrenW(c *client, path string) <-chan zk.Event {
	_, _, events, err := c.ChildrenW(path)
	must(err)
	return events
}

var cases = []func(*test){
	modes, data, refusals, watches, eventBeforeValue, lists, refusedIdentity, multi, failedMulti, pairs, pipelined, limitOfARequest,
	cutConnection, watchesOverACut, protectedCreate, idle, expiry, lockExcludes, lockOfTheDead, words,
}

func modes(t *test) {
	a, b := t.connect(6*time.Second), t.connect(6*time.Second)
	equal(create(a, t.root, "root", 0), t.root)
	equal(create(a, t.path("p"), "", 0), t.path("p"))
	equal(create(a, t.path("e"), "x", zk.FlagEphemeral), t.path("e"))
	// The suffix counts all children that there ever were.
	equal(create(a, t.path("s-"), "", zk.FlagSequence), t.path("s-0000000002"))
	must(a.Delete(t.path("s-0000000002"), 0))
	equal(create(a, t.path(""), "", zk.FlagSequence|zk.FlagEphemeral), t.path("0000000003"))
	for name, owner := range map[string]int64{"p": 0, "e": a.SessionID(), "0000000003": a.SessionID()} {
		_, stat := exists(b, t.path(name))
		equal(stat.EphemeralOwner, owner)
	}
	_, stat := get(b, t.root)
	equal([]int32{stat.NumChildren, stat.Cversion, stat.Version, stat.DataLength}, []int32{3, 5, 0, 4})
	// The end of a session is the end of its nodes, and of no others: at once, not when its time is over.
	gone := existsW(b, t.path("e"), true)
	a.Close()
	gets(gone, zk.EventNodeDeleted, t.path("e"))
	equal(children(b, t.root), []string{"p"})
}

func data(t *test) {
	c := t.connect(6 * time.Second)
	_, err := c.Create(t.root, nil, 0, open)
	must(err)
	value, made, err := c.Get(t.root)
	must(err)
	equal(len(value), 0)
	first, err := c.Set(t.root, []byte("1"), 0)
	must(err)
	equal(first.Version, int32(1))
	_, err = c.Set(t.root, []byte("2"), 0)
	wants(err, zk.ErrBadVersion)
	wants(c.Delete(t.root, 0), zk.ErrBadVersion)
	big := make([]byte, 500000)
	rand.Read(big)
	second, err := c.Set(t.root, big, -1)
	must(err)
	if second.Mzxid <= first.Mzxid || second.Czxid != made.Czxid || second.Ctime != made.Ctime {
		fail("%+v after %+v", second, first)
	}
	value, stat, err := c.Get(t.root)
	must(err)
	equal(stat, second)
	equal(bytes.Equal(value, big), true)
	path, err := c.Sync(t.root)
	must(err)
	equal(path, t.root)
	must(c.Delete(t.root, 2))
	there, _ := exists(c, t.root)
	equal(there, false)
}

func refusals(t *test) {
	c := t.connect(6 * time.Second)
	create(c, t.root, "", 0)
	create(c, t.path("e"), "", zk.FlagEphemeral)
	_, before := exists(c, t.root)
	_, _, err := c.Get(t.path("none"))
	wants(err, zk.ErrNoNode)
	_, _, err = c.Children(t.path("none"))
	wants(err, zk.ErrNoNode)
	_, _, err = c.GetACL(t.path("none"))
	wants(err, zk.ErrNoNode)
	_, err = c.SetACL(t.path("none"), open, -1)
	wants(err, zk.ErrNoNode)
	_, err = c.Set(t.path("none"), nil, -1)
	wants(err, zk.ErrNoNode)
	wants(c.Delete(t.path("none"), -1), zk.ErrNoNode)
	_, err = c.Create(t.path("none/child"), nil, 0, open)
	wants(err, zk.ErrNoNode)
	_, err = c.Create(t.path("e"), nil, 0, open)
	wants(err, zk.ErrNodeExists)
	_, err = c.Create(t.path("e/child"), nil, 0, open)
	wants(err, zk.ErrNoChildrenForEphemerals)
	wants(c.Delete(t.root, -1), zk.ErrNotEmpty)
	_, err = c.Create(t.path("n"), nil, 0, nil)
	wants(err, zk.ErrInvalidACL)
	_, after := exists(c, t.root)
	equal(after, before)
}

func watches(t *test) {
	a, b := t.connect(6*time.Second), t.connect(6*time.Second)
	create(a, t.root, "", 0)
	create(a, t.path("n"), "", 0)
	onData, onExists, onChildren := dataW(a, t.path("n")), existsW(a, t.path("n"), true), childrenW(a, t.root)
	ofChild, absent := childrenW(a, t.path("n")), existsW(a, t.path("new"), false)
	_, err := b.Set(t.path("n"), []byte("1"), -1)
	must(err)
	gets(onData, zk.EventNodeDataChanged, t.path("n"))
	gets(onExists, zk.EventNodeDataChanged, t.path("n"))
	none(onChildren)
	create(b, t.path("new"), "", 0)
	gets(absent, zk.EventNodeCreated, t.path("new"))
	gets(onChildren, zk.EventNodeChildrenChanged, t.root)
	// This client forgets the children's watch of a node at its next event, whichever that is.
	ofChild = childrenW(a, t.path("n"))
	must(b.Delete(t.path("n"), -1))
	gets(ofChild, zk.EventNodeDeleted, t.path("n"))
}

// Who sees a change has been told of it.
func eventBeforeValue(t *test) {
	a, b := t.connect(6*time.Second), t.connect(6*time.Second)
	create(a, t.root, "0", 0)
	for round := 1; round <= 50; round++ {
		value := strconv.Itoa(round)
		events := dataW(a, t.root)
		written := make(chan error, 1)
		go func() {
			_, err := b.Set(t.root, []byte(value), -1)
			written <- err
		}()
		until("the new value", func() bool {
			seen, _ := get(a, t.root)
			if seen == value && len(events) != 1 {
				fail("the value is seen before its event")
			}
			return seen == value
		})
		must(<-written)
	}
}

func lists(t *test) {
	owner, other := t.connect(6*time.Second), t.connect(6*time.Second)
	must(owner.AddAuth("digest", []byte("ann:secret")))
	_, err := owner.Create(t.root, []byte("x"), 0, zk.AuthACL(zk.PermAll))
	must(err)
	acl, _, err := owner.GetACL(t.root)
	must(err)
	equal(acl, zk.DigestACL(zk.PermAll, "ann", "secret"))
	_, _, err = other.Get(t.root)
	wants(err, zk.ErrNoAuth)
	_, _, err = other.Children(t.root)
	wants(err, zk.ErrNoAuth)
	_, _, err = other.GetACL(t.root)
	wants(err, zk.ErrNoAuth)
	_, err = other.Set(t.root, nil, -1)
	wants(err, zk.ErrNoAuth)
	_, err = other.Create(t.path("child"), nil, 0, open)
	wants(err, zk.ErrNoAuth)
	_, err = other.SetACL(t.root, open, -1)
	wants(err, zk.ErrNoAuth)
	_, err = other.Multi(&zk.SetDataRequest{Path: t.root, Version: -1})
	wants(err, zk.ErrNoAuth)
	acl = append(zk.WorldACL(zk.PermRead), zk.DigestACL(zk.PermAll, "ann", "secret")...)
	acl = append(acl, zk.DigestACL(zk.PermWrite|zk.PermCreate, "bob", "b")...)
	_, err = owner.SetACL(t.root, acl, 7)
	wants(err, zk.ErrBadVersion)
	stat, err := owner.SetACL(t.root, acl, 0)
	must(err)
	equal(stat.Aversion, int32(1))
	// Whoever may not change the list is not shown the digests.
	acl, _, err = other.GetACL(t.root)
	must(err)
	equal(acl, []zk.ACL{{Perms: 1, Scheme: "world", ID: "anyone"}, {Perms: 31, Scheme: "digest", ID: "ann:x"},
		{Perms: 6, Scheme: "digest", ID: "bob:x"}})
	must(other.AddAuth("digest", []byte("bob:wrong")))
	_, err = other.Set(t.root, nil, -1)
	wants(err, zk.ErrNoAuth)
	must(other.AddAuth("digest", []byte("bob:b")))
	_, err = other.Set(t.root, []byte("y"), -1)
	must(err)
	create(other, t.path("child"), "", 0)
	wants(other.Delete(t.path("child"), -1), zk.ErrNoAuth)
	_, err = other.SetACL(t.root, open, -1)
	wants(err, zk.ErrNoAuth)
	_, err = t.connect(6*time.Second).Create(t.root+"-bad", nil, 0, zk.AuthACL(zk.PermAll))
	wants(err, zk.ErrInvalidACL)
}

func refusedIdentity(t *test) {
	c := t.connect(6 * time.Second)
	wants(c.AddAuth("nosuch", []byte("x")), zk.ErrAuthFailed)
	c.awaitSession(2) // The server closes the connection; this client comes back.
	create(c, t.root, "", 0)
}

func multi(t *test) {
	a, b := t.connect(6*time.Second), t.connect(6*time.Second)
	create(a, t.root, "", 0)
	create(a, t.path("n"), "0", 0)
	create(a, t.path("old"), "", 0)
	told := childrenW(b, t.root)
	results, err := a.Multi(
		&zk.CheckVersionRequest{Path: t.path("n"), Version: 0},
		&zk.SetDataRequest{Path: t.path("n"), Data: []byte("1"), Version: 0},
		&zk.CreateRequest{Path: t.path("p"), Acl: open},
		&zk.CreateRequest{Path: t.path("p/child"), Acl: open, Flags: zk.FlagEphemeral},
		&zk.CreateRequest{Path: t.path("s-"), Acl: open, Flags: zk.FlagSequence},
		&zk.DeleteRequest{Path: t.path("old"), Version: 0},
		&zk.CheckVersionRequest{Path: t.path("n"), Version: 1},
	)
	must(err)
	equal(len(results), 7)
	equal(results[1].Stat.Version, int32(1))
	equal([]string{results[2].String, results[3].String, results[4].String},
		[]string{t.path("p"), t.path("p/child"), t.path("s-0000000003")})
	gets(told, zk.EventNodeChildrenChanged, t.root)
	equal(children(b, t.root), []string{"n", "p", "s-0000000003"})
	for _, name := range []string{"p", "p/child", "s-0000000003"} {
		_, stat := exists(b, t.path(name))
		equal(stat.Mzxid, results[1].Stat.Mzxid)
	}
}

func failedMulti(t *test) {
	a, b := t.connect(6*time.Second), t.connect(6*time.Second)
	create(a, t.root, "", 0)
	create(a, t.path("n"), "0", 0)
	_, before := exists(a, t.root)
	_, nodeBefore := exists(a, t.path("n"))
	onChildren, onData := childrenW(b, t.root), dataW(b, t.path("n"))
	for _, last := range []struct {
		op  interface{}
		err error
	}{
		{&zk.CheckVersionRequest{Path: t.path("n"), Version: 9}, zk.ErrBadVersion},
		{&zk.SetDataRequest{Path: t.path("none"), Version: -1}, zk.ErrNoNode},
		{&zk.CreateRequest{Path: t.path("n"), Acl: open}, zk.ErrNodeExists},
		{&zk.DeleteRequest{Path: t.root, Version: -1}, zk.ErrNotEmpty},
		{&zk.CreateRequest{Path: t.path("m")}, zk.ErrInvalidACL},
	} {
		results, err := a.Multi(
			&zk.CreateRequest{Path: t.path("p"), Acl: open},
			&zk.CreateRequest{Path: t.path("s-"), Acl: open, Flags: zk.FlagSequence},
			&zk.SetDataRequest{Path: t.path("n"), Data: []byte("1"), Version: 0},
			last.op,
			&zk.DeleteRequest{Path: t.path("n"), Version: -1},
		)
		wants(err, last.err)
		got := []error{}
		for _, result := range results {
			got = append(got, result.Error)
		}
		equal(got, []error{nil, nil, nil, last.err, zk.ErrUnknown}) // The client has no name for what was not tried.
		_, after := exists(a, t.root)
		_, nodeAfter := exists(a, t.path("n"))
		equal([]*zk.Stat{after, nodeAfter}, []*zk.Stat{before, nodeBefore})
	}
	none(onChildren)
	none(onData)
	// No number was used up, and nobody was told: this is the first that is.
	equal(create(a, t.path("s-"), "", zk.FlagSequence), t.path("s-0000000001"))
	gets(onChildren, zk.EventNodeChildrenChanged, t.root)
	none(onData)
}

// Two nodes that transactions change together, by versions, from many clients: no change is lost.
func pairs(t *test) {
	const clients, rounds = 4, 25
	first := t.connect(6 * time.Second)
	create(first, t.root, "", 0)
	create(first, t.path("x"), "0", 0)
	create(first, t.path("y"), "0", 0)
	together(clients, func(int) {
		c := t.connect(6 * time.Second)
		for done := 0; done < rounds; {
			x, xs := get(c, t.path("x"))
			y, ys := get(c, t.path("y"))
			nx, _ := strconv.Atoi(x)
			ny, _ := strconv.Atoi(y)
			_, err := c.Multi(
				&zk.SetDataRequest{Path: t.path("x"), Data: []byte(strconv.Itoa(nx + 1)), Version: xs.Version},
				&zk.SetDataRequest{Path: t.path("y"), Data: []byte(strconv.Itoa(ny - 1)), Version: ys.Version})
			if err == nil {
				done++
			} else {
				wants(err, zk.ErrBadVersion)
			}
		}
	})
	x, xs := get(first, t.path("x"))
	y, ys := get(first, t.path("y"))
	equal([]interface{}{x, xs.Version, y, ys.Version}, []interface{}{"100", int32(100), "-100", int32(100)})
}

// Runs so many at once; fails if one of them did.
func together(count int, what func(number int)) {
	var group sync.WaitGroup
	failures := make(chan interface{}, count)
	for number := 0; number < count; number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			defer func() {
				if why := recover(); why != nil {
					failures <- why
				}
			}()
			what(number)
		}(number)
	}
	group.Wait()
	select {
	case why := <-failures:
		panic(why)
	default:
	}
}

// Many requests over one connection at once: each gets its own answer, and numbers are given once.
func pipelined(t *test) {
	a, b := t.connect(6*time.Second), t.connect(6*time.Second)
	create(a, t.root, "", 0)
	var mutex sync.Mutex
	numbers := map[string]string{}
	together(400, func(number int) {
		c, value := []*client{a, b}[number%2], strconv.Itoa(number)
		path := create(c, t.path("q-"), value, zk.FlagSequence)
		got, stat := get(c, path)
		equal([]interface{}{got, stat.Version}, []interface{}{value, int32(0)})
		mutex.Lock()
		defer mutex.Unlock()
		numbers[path] = value
	})
	equal(len(numbers), 400)
	names := children(b, t.root)
	equal([]string{names[0], names[399]}, []string{"q-0000000000", "q-0000000399"})
}

func limitOfARequest(t *test) {
	c := t.connect(6 * time.Second)
	create(c, t.root, "", 0)
	session := c.SessionID()
	most := 1048575 - 8 - 4 - len(t.root) - 4 - 4
	_, err := c.Set(t.root, bytes.Repeat([]byte{1}, most), -1)
	must(err)
	if _, err = c.Set(t.root, bytes.Repeat([]byte{2}, most+1), -1); err == nil {
		fail("one byte too many was taken")
	}
	c.awaitSession(2)
	equal(c.SessionID(), session)
	value, stat := get(c, t.root)
	equal([]interface{}{len(value), value[0], stat.Version}, []interface{}{most, byte(1), int32(1)})
}

func cutConnection(t *test) {
	b := t.connect(6 * time.Second)
	create(b, t.root, "", 0)
	c := t.connect(20 * time.Second)
	must(c.AddAuth("digest", []byte("ann:secret")))
	session := c.SessionID()
	_, err := c.Create(t.path("e"), nil, zk.FlagEphemeral, zk.AuthACL(zk.PermAll))
	must(err)
	create(c, t.path("w"), "", 0)
	for round := int32(1); round <= 3; round++ {
		// Requests in flight while the connection goes: what was acknowledged is there.
		var done int32
		paths := make([]string, 100)
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			together(len(paths), func(number int) {
				path := fmt.Sprintf("%s/%d-%d", t.path("w"), round, number)
				if _, err := c.Create(path, nil, 0, open); err == nil {
					paths[number] = path
				}
				atomic.AddInt32(&done, 1)
			})
		}()
		until("the first answer", func() bool { return atomic.LoadInt32(&done) > 0 })
		c.cut()
		<-finished
		c.awaitSession(round + 1)
		equal(c.SessionID(), session)
		for _, path := range paths {
			if path != "" {
				there, _ := exists(b, path)
				equal(there, true)
			}
		}
		// Identities belong to connections; the client tells them again.
		_, stat, err := c.Get(t.path("e"))
		must(err)
		equal(stat.EphemeralOwner, session)
	}
	equal(atomic.LoadInt32(&c.expired), int32(0))
}

// What changes while a client is away is told when it comes back, and only that.
func watchesOverACut(t *test) {
	b := t.connect(6 * time.Second)
	create(b, t.root, "", 0)
	for _, name := range []string{"changed", "gone", "parent", "same"} {
		create(b, t.path(name), "", 0)
	}
	c := t.connect(20 * time.Second)
	changed, gone, same := dataW(c, t.path("changed")), dataW(c, t.path("gone")), dataW(c, t.path("same"))
	made, still, parent := existsW(c, t.path("new"), false), existsW(c, t.path("still"), false), childrenW(c, t.path("parent"))
	c.block()
	_, err := b.Set(t.path("changed"), nil, -1)
	must(err)
	must(b.Delete(t.path("gone"), -1))
	create(b, t.path("new"), "", 0)
	create(b, t.path("parent/child"), "", 0)
	c.unblock()
	gets(changed, zk.EventNodeDataChanged, t.path("changed"))
	gets(gone, zk.EventNodeDeleted, t.path("gone"))
	gets(made, zk.EventNodeCreated, t.path("new"))
	gets(parent, zk.EventNodeChildrenChanged, t.path("parent"))
	exists(c, t.root)
	none(same)
	none(still)
	_, err = b.Set(t.path("same"), nil, -1)
	must(err)
	gets(same, zk.EventNodeDataChanged, t.path("same"))
	create(b, t.path("still"), "", 0)
	gets(still, zk.EventNodeCreated, t.path("still"))
}

// A protected node is made once, also if the connection goes while its creation is on its way.
func protectedCreate(t *test) {
	c := t.connect(20 * time.Second)
	create(c, t.root, "", 0)
	for round := 0; round < 5; round++ {
		type result struct {
			path string
			err  error
		}
		results := make(chan result, 1)
		go func() {
			path, err := c.CreateProtectedEphemeralSequential(t.path("p-"), nil, open)
			results <- result{path, err}
		}()
		time.Sleep(time.Duration(rand.Intn(1000)) * time.Microsecond) // Anywhere around it.
		c.cut()
		made := <-results
		c.awaitSession(int32(round + 2))
		names := children(c, t.root)
		var network *net.OpError
		switch {
		case made.err == nil:
			equal(names, []string{strings.TrimPrefix(made.path, t.path(""))})
			must(c.Delete(made.path, -1))
		case made.err == zk.ErrNoServer || made.err == zk.ErrConnectionClosed || errors.As(made.err, &network):
			// This client looks for its node only once, and only after some errors.
			if len(names) > 1 {
				fail("%v after one creation", names)
			}
			for _, name := range names {
				must(c.Delete(t.path(name), -1))
			}
		default:
			must(made.err)
		}
	}
}

// A client with nothing to do keeps its session by its pings.
func idle(t *test) {
	b, c := t.connect(6*time.Second), t.connect(3*time.Second)
	create(b, t.root, "", 0)
	create(c, t.path("e"), "", zk.FlagEphemeral)
	gone := existsW(b, t.path("e"), true)
	time.Sleep(7500 * time.Millisecond) // The time is what this is about.
	none(gone)
	equal([]int32{atomic.LoadInt32(&c.sessions), atomic.LoadInt32(&c.expired)}, []int32{1, 0})
}

func expiry(t *test) {
	b, c := t.connect(6*time.Second), t.connect(3*time.Second)
	create(b, t.root, "", 0)
	create(c, t.path("e"), "", zk.FlagEphemeral)
	create(c, t.path("p"), "", 0)
	session, mine, gone := c.SessionID(), dataW(c, t.path("p")), existsW(b, t.path("e"), true)
	c.block()
	from := time.Now()
	untilIn("the end of the session", 60*time.Second, func() bool { return len(gone) > 0 })
	if took := time.Since(from); took < 1800*time.Millisecond {
		fail("gone after %v; pings are a second apart, the time is three", took)
	}
	gets(gone, zk.EventNodeDeleted, t.path("e"))
	equal(children(b, t.root), []string{"p"})
	c.unblock()
	until("word of it", func() bool { return atomic.LoadInt32(&c.expired) == 1 })
	equal((<-mine).Err, zk.ErrSessionExpired)
	c.awaitSession(2) // This client begins another session by itself.
	if c.SessionID() == session {
		fail("the session that is over came back")
	}
	create(c, t.path("e"), "", zk.FlagEphemeral)
}

// Many clients that want one lock: never two of them have it, and what each does under it is lost to none.
func lockExcludes(t *test) {
	const clients, rounds = 6, 10
	first := t.connect(10 * time.Second)
	create(first, t.root, "", 0)
	create(first, t.path("counter"), "0", 0)
	var holders int32
	together(clients, func(int) {
		c := t.connect(10 * time.Second)
		lock := zk.NewLock(c.Conn, t.path("locks/one"), open)
		for round := 0; round < rounds; round++ {
			must(lock.Lock())
			wants(lock.Lock(), zk.ErrDeadlock)
			if atomic.AddInt32(&holders, 1) != 1 {
				fail("two have the lock")
			}
			value, _ := get(c, t.path("counter"))
			number, _ := strconv.Atoi(value)
			_, err := c.Set(t.path("counter"), []byte(strconv.Itoa(number+1)), -1)
			must(err)
			atomic.AddInt32(&holders, -1)
			must(lock.Unlock())
		}
		wants(lock.Unlock(), zk.ErrNotLocked)
	})
	value, _ := get(first, t.path("counter"))
	equal(value, strconv.Itoa(clients*rounds))
	equal(len(children(first, t.path("locks/one"))), 0)
}

// Who waits gets the lock when its holder dies: in the order in which they came.
func lockOfTheDead(t *test) {
	a := t.connect(3 * time.Second)
	create(a, t.root, "", 0)
	lock := zk.NewLock(a.Conn, t.path("lock"), open)
	must(lock.Lock())
	order := make(chan int, 4)
	errs := make(chan error, 4)
	for number := 0; number < 3; number++ {
		c := t.connect(10 * time.Second)
		go func(number int) {
			lock := zk.NewLock(c.Conn, t.path("lock"), open)
			if err := lock.Lock(); err != nil {
				errs <- err
				return
			}
			order <- number
			errs <- lock.Unlock()
		}(number)
		until("its place in the row", func() bool { return len(children(a, t.path("lock"))) == number+2 })
	}
	equal(len(order), 0)
	a.block() // It hangs; the end of its session ends its hold.
	for number := 0; number < 3; number++ {
		select {
		case got := <-order:
			equal(got, number)
			must(<-errs)
		case err := <-errs:
			must(err)
		case <-time.After(3*3*time.Second + wait):
			fail("nobody got the lock")
		}
	}
}

func words(t *test) {
	c := t.connect(6 * time.Second)
	create(c, t.root, "", 0)
	conn, err := net.DialTimeout("tcp", address, wait)
	must(err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	conn.Write([]byte("cons"))
	answer := make([]byte, 400)
	length, _ := conn.Read(answer)
	if strings.Contains(string(answer[:length]), "whitelist") {
		panic(skip("cons is not in the server's whitelist"))
	}
	equal(zk.FLWRuok([]string{address}, wait), []bool{true})
	clients, _ := zk.FLWCons([]string{address}, wait) // It cannot read lines of connections without a session, such as its own.
	for _, other := range clients[0].Clients {
		if other.SessionID == c.SessionID() {
			equal([]interface{}{other.Timeout, other.LastOperation}, []interface{}{int32(6000), "CREA"})
			return
		}
	}
	fail("its session is not among %d", len(clients[0].Clients))
}

func runCase(what func(*test)) (verdict, why string) {
	name := name(what)
	t := &test{root: "/go-" + name + "-" + run}
	result := make(chan interface{}, 1)
	go func() {
		defer func() { result <- recover() }()
		what(t)
	}()
	var panicked interface{}
	select {
	case panicked = <-result:
	case <-time.After(caseTime):
		panicked = failure(fmt.Sprintf("did not end within %v", caseTime))
	}
	t.mutex.Lock()
	for _, c := range t.clients {
		go func(c *client) {
			defer func() { recover() }() // It may be closed already.
			c.Close()
		}(c)
	}
	t.mutex.Unlock()
	switch why := panicked.(type) {
	case nil:
		return "ok", ""
	case skip:
		return "skip", ": " + string(why)
	default:
		return "FAILED", fmt.Sprintf(": %v", why)
	}
}

func name(what func(*test)) string {
	full := runtime.FuncForPC(reflect.ValueOf(what).Pointer()).Name()
	return full[strings.LastIndex(full, ".")+1:]
}

func main() {
	if len(os.Args) < 2 || !strings.Contains(os.Args[1], ":") {
		fmt.Fprintln(os.Stderr, "usage: go_client HOST:PORT [FILTER]")
		os.Exit(2)
	}
	address = os.Args[1]
	filter := ""
	if len(os.Args) > 2 {
		filter = os.Args[2]
	}
	rand.Seed(time.Now().UnixNano())
	lines := make(chan []string)
	started := 0
	for _, what := range cases {
		if strings.Contains(name(what), filter) {
			started++
			go func(what func(*test)) {
				verdict, why := runCase(what)
				lines <- []string{verdict, name(what), why}
			}(what)
		}
	}
	counts := map[string]int{}
	for ; started > 0; started-- {
		line := <-lines
		counts[line[0]]++
		fmt.Println(line[0] + " " + line[1] + line[2])
	}
	fmt.Printf("%d ok, %d skipped, %d failed\n", counts["ok"], counts["skip"], counts["FAILED"])
	if counts["FAILED"] > 0 || counts["ok"] == 0 {
		os.Exit(1)
	}
}
