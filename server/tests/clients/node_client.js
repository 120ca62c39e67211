// usage: NODE_PATH=DIR/node_modules node node_client.js HOST:PORT [FILTER]
//
// node-zookeeper-client (pure JavaScript, written by Yahoo) against a running server.
//
// What this proves: every operation that client has does what ZooKeeper promises: all kinds of nodes, versions, lists, watches,
// transactions; a session outlives its connection and does not outlive its time; what changed meanwhile is told; nothing that
// was refused left a trace.
//
// The idea: a case is a function below `cases`; all run side by side, each below a path of its own. A case that loses its
// connection has a proxy of its own in between, which cuts and blocks. Whatever is waited for has a deadline; that nothing more
// comes is proved by an event that must come behind it, as events are in order.
//
// Prints `ok NAME` or `FAILED NAME: why` per case; exit status 0 only if nothing failed. FILTER: only cases with this in the name.
// Not here: what the client does not have (create2, containers, TTL, persistent watches, sync, whoAmI), and what it has wrong:
// `check`, `setData` and `remove` of its transactions send -1 for version 0, so versions there start at 1; listSubTreeBFS and
// removeRecursive see only one level (they rely on async 2, and come with async 3), so trees are removed level by level.
'use strict';

const assert = require('assert');
const crypto = require('crypto');
const net = require('net');
const {
  createClient, ACL, CreateMode, Event, Exception, Id, Permission, State,
} = require('node-zookeeper-client');

const WAIT = 15000; // How long one expected thing may take on a busy machine.
const CASE = 90000; // A case that has not ended by then has failed.
const ADDRESS = process.argv[2];
const FILTER = process.argv[3] || '';
if (!/^.+:\d+$/.test(ADDRESS || '')) {
  console.error('usage: node node_client.js HOST:PORT [FILTER]');
  process.exit(2);
}
const RUN = `${process.pid.toString(16)}-${(Date.now() & 0xffffff).toString(16)}`;

// The client's calls with callbacks as promises; those with several results become arrays.
const OPERATIONS = ['create', 'remove', 'removeRecursive', 'setData', 'getData', 'setACL', 'getACL', 'exists', 'getChildren',
  'listSubTreeBFS', 'mkdirp'];

class Zk {
  constructor(address, options) {
    this.client = createClient(address, { sessionTimeout: 6000, spinDelay: 50, ...options });
    this.states = [];
    this.client.on('state', (state) => this.states.push(state.getName()));
    for (const name of OPERATIONS) {
      this[name] = (...args) => within(`${name} ${args[0]}`, new Promise((resolve, reject) => {
        this.client[name](...args, (error, ...results) => {
          if (error) reject(error); else resolve(results.length > 1 ? results : results[0]);
        });
      }));
    }
  }

  // The operations of one transaction; gives the error, if any, beside the results.
  transact(build) {
    const transaction = build(this.client.transaction());
    return within('transaction', new Promise((resolve) => {
      transaction.commit((error, results) => resolve({ error, results }));
    }));
  }

  connected() {
    return until('a connection', () => this.client.getState() === State.SYNC_CONNECTED);
  }

  id() { return this.client.getSessionId().toString('hex'); }
}

// What one running case is given.
class Case {
  constructor(name) {
    this.root = `/node-${name}-${RUN}`;
    this.cleanups = [];
  }

  async connect(address = ADDRESS, options = {}) {
    const zk = new Zk(address, options);
    this.cleanups.push(() => zk.client.close());
    zk.client.connect();
    await zk.connected();
    return zk;
  }

  // A connection with something in between that can be cut.
  async linked(options) {
    const link = await Link.open();
    this.cleanups.push(() => link.close());
    return [await this.connect(link.address, options), link];
  }

  end() {
    while (this.cleanups.length) {
      try { this.cleanups.pop()(); } catch (error) { /* The case has been judged already. */ }
    }
  }
}

// A proxy in front of the server.
class Link {
  static async open() {
    const link = new Link();
    link.sockets = new Set();
    link.blocked = false;
    link.accepted = 0;
    link.server = net.createServer((near) => {
      if (link.blocked) { near.destroy(); return; }
      link.accepted += 1;
      const colon = ADDRESS.lastIndexOf(':');
      const far = net.connect(Number(ADDRESS.slice(colon + 1)), ADDRESS.slice(0, colon));
      for (const [one, other] of [[near, far], [far, near]]) {
        link.sockets.add(one);
        one.setNoDelay();
        one.pipe(other);
        one.on('error', () => {});
        one.on('close', () => { link.sockets.delete(one); other.destroy(); });
      }
    });
    await new Promise((resolve) => { link.server.listen(0, '127.0.0.1', resolve); });
    link.address = `127.0.0.1:${link.server.address().port}`;
    return link;
  }

  cut() { for (const socket of this.sockets) socket.destroy(); }

  block() { this.blocked = true; this.cut(); }

  unblock() { this.blocked = false; }

  close() { this.cut(); this.server.close(); }
}

// A watcher that keeps what it was told.
function watcher() {
  const events = [];
  const watch = (event) => events.push(`${event.getName()} ${event.getPath()}`);
  watch.events = events;
  watch.gets = (...expected) => until(`events ${expected}`, () => events.length >= expected.length)
    .then(() => assert.deepStrictEqual(events, expected));
  return watch;
}

function within(what, promise, time = WAIT) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited ${time} ms for ${what}`)), time); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function until(what, condition, time = WAIT) {
  const deadline = Date.now() + time;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${time} ms for ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}

async function fails(code, promise) {
  const name = Object.keys(Exception).find((key) => Exception[key] === code);
  let result;
  try { result = await promise; } catch (error) {
    assert.strictEqual(error.code, code, `got ${error.message}, want ${name}`);
    return;
  }
  assert.fail(`got ${JSON.stringify(result)}, want ${name}`);
}

const text = (string) => Buffer.from(string);
const long = (buffer) => buffer.readBigInt64BE(0);
const digest = (user, password) => `${user}:${crypto.createHash('sha1').update(`${user}:${password}`).digest('base64')}`;
const lists = (acls) => acls.map((acl) => `${acl.permission} ${acl.id.scheme}:${acl.id.id}`);

const cases = {
  async modes(t) {
    const a = await t.connect();
    const b = await t.connect();
    assert.strictEqual(await a.create(t.root, text('root')), t.root);
    assert.strictEqual(await a.create(`${t.root}/p`, CreateMode.PERSISTENT), `${t.root}/p`);
    assert.strictEqual(await a.create(`${t.root}/e`, text('x'), CreateMode.EPHEMERAL), `${t.root}/e`);
    // The suffix counts all children that there ever were.
    assert.strictEqual(await a.create(`${t.root}/s-`, CreateMode.PERSISTENT_SEQUENTIAL), `${t.root}/s-0000000002`);
    await a.remove(`${t.root}/s-0000000002`);
    assert.strictEqual(await a.create(`${t.root}/t-`, CreateMode.EPHEMERAL_SEQUENTIAL), `${t.root}/t-0000000003`);
    const owner = async (name) => long((await b.exists(`${t.root}/${name}`)).ephemeralOwner);
    const session = long(a.client.getSessionId());
    assert.deepStrictEqual([await owner('p'), await owner('e'), await owner('t-0000000003')], [0n, session, session]);
    const [children, stat] = await b.getChildren(t.root);
    assert.deepStrictEqual(children.sort(), ['e', 'p', 't-0000000003']);
    assert.deepStrictEqual([stat.numChildren, stat.cversion, stat.version, stat.dataLength], [3, 5, 0, 4]);
    // The end of a session is the end of its nodes, and of no others: at once, not when its time is over.
    const gone = watcher();
    await b.exists(`${t.root}/e`, gone);
    a.client.close();
    await gone.gets(`NODE_DELETED ${t.root}/e`);
    assert.deepStrictEqual(await b.getChildren(t.root).then(([names]) => names), ['p']);
  },

  async data(t) {
    const zk = await t.connect();
    await zk.create(t.root);
    let [data, stat] = await zk.getData(t.root);
    assert(data === null || data === undefined, 'a node made without data has none');
    const first = await zk.setData(t.root, text('1'), 0);
    assert.strictEqual(first.version, 1);
    await fails(Exception.BAD_VERSION, zk.setData(t.root, text('2'), 0));
    await fails(Exception.BAD_VERSION, zk.remove(t.root, 0));
    const second = await zk.setData(t.root, Buffer.alloc(0));
    assert(long(second.mzxid) > long(first.mzxid));
    assert.deepStrictEqual(second.czxid, stat.czxid);
    [data, stat] = await zk.getData(t.root);
    assert.deepStrictEqual([data.length, stat.version, stat.dataLength], [0, 2, 0]);
    assert.deepStrictEqual(stat, second);
    const bytes = crypto.randomBytes(500000);
    await zk.setData(t.root, bytes, 2);
    [data] = await zk.getData(t.root);
    assert(data.equals(bytes), 'half a megabyte comes back as it was written');
    await zk.remove(t.root, 3);
    assert.strictEqual(await zk.exists(t.root), null);
  },

  async names(t) {
    const zk = await t.connect();
    await zk.create(t.root);
    const name = 'Übung 日本 a.b..c ~%"\'';
    assert.strictEqual(await zk.create(`${t.root}/${name}`, text('ü')), `${t.root}/${name}`);
    assert.deepStrictEqual((await zk.getChildren(t.root))[0], [name]);
    assert.strictEqual((await zk.getData(`${t.root}/${name}`))[0].toString(), 'ü');
    for (const bad of ['a\u0000b', 'a\u0001b', 'a\u0085b', 'a\ue000b', 'a\ufffdb']) {
      await fails(Exception.BAD_ARGUMENTS, zk.create(`${t.root}/${bad}`));
    }
    assert.deepStrictEqual((await zk.getChildren(t.root))[0], [name]);
  },

  async trees(t) {
    const zk = await t.connect();
    assert.strictEqual(await zk.mkdirp(`${t.root}/a/b/c`, text('d')), `${t.root}/a/b/c`);
    assert.strictEqual(await zk.mkdirp(`${t.root}/a/b/e`), `${t.root}/a/b/e`);
    assert.strictEqual((await zk.getData(`${t.root}/a/b`))[0].toString(), 'd');
    assert.deepStrictEqual((await zk.listSubTreeBFS(`${t.root}/a/b`)).sort(), ['', '/c', '/e'].map((p) => `${t.root}/a/b${p}`));
    await zk.removeRecursive(`${t.root}/a/b`);
    await zk.removeRecursive(`${t.root}/a`);
    await zk.removeRecursive(t.root);
    assert.strictEqual(await zk.exists(t.root), null);
  },

  async errors(t) {
    const zk = await t.connect();
    await zk.create(t.root);
    await zk.create(`${t.root}/e`, CreateMode.EPHEMERAL);
    const stat = await zk.exists(t.root);
    for (const operation of ['getData', 'getChildren', 'getACL', 'remove']) {
      await fails(Exception.NO_NODE, zk[operation](`${t.root}/none`));
    }
    await fails(Exception.NO_NODE, zk.setData(`${t.root}/none`, text('')));
    await fails(Exception.NO_NODE, zk.setACL(`${t.root}/none`, ACL.OPEN_ACL_UNSAFE));
    await fails(Exception.NO_NODE, zk.create(`${t.root}/none/child`));
    await fails(Exception.NODE_EXISTS, zk.create(`${t.root}/e`));
    await fails(Exception.NOT_EMPTY, zk.remove(t.root));
    await fails(Exception.NO_CHILDREN_FOR_EPHEMERALS, zk.create(`${t.root}/e/child`));
    assert.deepStrictEqual(await zk.exists(t.root), stat);
  },

  async watches(t) {
    const a = await t.connect();
    const b = await t.connect();
    await a.create(t.root);
    await a.create(`${t.root}/n`);
    const [data, exists, children, absent, ofChild] = [watcher(), watcher(), watcher(), watcher(), watcher()];
    await a.getData(`${t.root}/n`, data);
    await a.exists(`${t.root}/n`, exists);
    await a.getChildren(t.root, children);
    await a.getChildren(`${t.root}/n`, ofChild);
    assert.strictEqual(await a.exists(`${t.root}/new`, absent), null);
    // A read with a watch that fails leaves none.
    const none = watcher();
    await fails(Exception.NO_NODE, a.getData(`${t.root}/late`, none));
    await b.setData(`${t.root}/n`, text('1'));
    await data.gets(`NODE_DATA_CHANGED ${t.root}/n`);
    await exists.gets(`NODE_DATA_CHANGED ${t.root}/n`);
    await b.create(`${t.root}/new`);
    await absent.gets(`NODE_CREATED ${t.root}/new`);
    await children.gets(`NODE_CHILDREN_CHANGED ${t.root}`);
    await b.create(`${t.root}/late`);
    await b.setData(`${t.root}/n`, text('2'));
    await b.setData(`${t.root}/new`, text('2'));
    await b.remove(`${t.root}/n`);
    await ofChild.gets(`NODE_DELETED ${t.root}/n`);
    // Each was told once: whatever else there was to tell would have come before this.
    await data.gets(`NODE_DATA_CHANGED ${t.root}/n`);
    await exists.gets(`NODE_DATA_CHANGED ${t.root}/n`);
    await absent.gets(`NODE_CREATED ${t.root}/new`);
    await children.gets(`NODE_CHILDREN_CHANGED ${t.root}`);
    await none.gets();
  },

  // Who sees a change has been told of it.
  async order_of_events(t) {
    const a = await t.connect();
    const b = await t.connect();
    await a.create(t.root, text('0'));
    for (let round = 1; round <= 50; round += 1) {
      const told = watcher();
      await a.getData(t.root, told);
      const write = b.setData(t.root, text(`${round}`));
      await until('the new value', async () => {
        const seen = (await a.getData(t.root))[0].toString();
        assert(seen !== `${round}` || told.events.length === 1, 'the value is seen before its event');
        return seen === `${round}`;
      });
      await write;
    }
  },

  async lists(t) {
    const owner = await t.connect();
    const other = await t.connect();
    owner.client.addAuthInfo('digest', text('ann:secret'));
    await owner.create(t.root, ACL.CREATOR_ALL_ACL);
    await owner.create(`${t.root}/n`, text('x'), ACL.CREATOR_ALL_ACL);
    assert.deepStrictEqual(lists((await owner.getACL(`${t.root}/n`))[0]), [`31 digest:${digest('ann', 'secret')}`]);
    for (const attempt of [
      other.getData(`${t.root}/n`), other.getChildren(`${t.root}/n`), other.exists(`${t.root}/n`), other.getACL(`${t.root}/n`),
      other.setData(`${t.root}/n`, text('y')), other.create(`${t.root}/n/child`), other.remove(`${t.root}/n`),
      other.setACL(`${t.root}/n`, ACL.OPEN_ACL_UNSAFE),
    ]) await fails(Exception.NO_AUTH, attempt);
    // Read for everybody, all but the list for Bob.
    const acls = [
      new ACL(Permission.READ, Id.ANYONE_ID_UNSAFE), new ACL(Permission.ALL, new Id('digest', digest('ann', 'secret'))),
      new ACL(Permission.WRITE | Permission.CREATE, new Id('digest', digest('bob', 'b'))),
    ];
    await fails(Exception.BAD_VERSION, owner.setACL(`${t.root}/n`, acls, 7));
    assert.strictEqual((await owner.setACL(`${t.root}/n`, acls, 0)).aversion, 1);
    assert.strictEqual((await other.getData(`${t.root}/n`))[0].toString(), 'x');
    await fails(Exception.NO_AUTH, other.setData(`${t.root}/n`, text('y')));
    // Whoever may not change the list is not shown the digests.
    assert.deepStrictEqual(lists((await other.getACL(`${t.root}/n`))[0]), ['1 world:anyone', '31 digest:x', '6 digest:x']
      .map((line, index) => (index ? line.replace('x', `${['', 'ann', 'bob'][index]}:x`) : line)));
    other.client.addAuthInfo('digest', text('bob:wrong'));
    await fails(Exception.NO_AUTH, other.setData(`${t.root}/n`, text('y')));
    other.client.addAuthInfo('digest', text('bob:b'));
    assert.strictEqual((await other.setData(`${t.root}/n`, text('y'))).version, 1);
    await other.create(`${t.root}/n/child`);
    await fails(Exception.NO_AUTH, other.remove(`${t.root}/n/child`));
    await fails(Exception.NO_AUTH, other.setACL(`${t.root}/n`, ACL.OPEN_ACL_UNSAFE));
    // A list without a right that means nobody.
    const nobody = await t.connect();
    await fails(Exception.INVALID_ACL, nobody.create(`${t.root}-bad`, ACL.CREATOR_ALL_ACL));
    await fails(Exception.INVALID_ACL, nobody.create(`${t.root}-bad`, [new ACL(31, new Id('nosuch', 'x'))]));
    assert.strictEqual(await nobody.exists(`${t.root}-bad`), null);
  },

  async refused_identity(t) {
    const zk = await t.connect();
    zk.client.addAuthInfo('nosuch', text('x'));
    await until('the refusal', () => zk.states.includes('AUTH_FAILED'));
  },

  async transaction(t) {
    const a = await t.connect();
    const b = await t.connect();
    await a.create(t.root);
    await a.create(`${t.root}/n`, text('0'));
    await a.setData(`${t.root}/n`, text('1'));
    await a.create(`${t.root}/old`);
    const told = watcher();
    await b.getChildren(t.root, told);
    const { error, results } = await a.transact((transaction) => transaction
      .check(`${t.root}/n`, 1)
      .setData(`${t.root}/n`, text('2'), 1)
      .create(`${t.root}/p`, text('p'))
      .create(`${t.root}/p/child`, CreateMode.EPHEMERAL)
      .create(`${t.root}/s-`, CreateMode.PERSISTENT_SEQUENTIAL)
      .remove(`${t.root}/old`)
      .check(`${t.root}/n`, 2));
    assert(!error, error);
    assert.deepStrictEqual(results.map((result) => result.type), [13, 5, 1, 1, 1, 2, 13]);
    assert.deepStrictEqual([results[1].stat.version, results[2].path, results[4].path], [2, `${t.root}/p`, `${t.root}/s-0000000003`]);
    await told.gets(`NODE_CHILDREN_CHANGED ${t.root}`);
    // All of it is one change.
    const stats = await Promise.all(['n', 'p', 'p/child', 's-0000000003'].map((name) => b.exists(`${t.root}/${name}`)));
    assert.strictEqual(new Set(stats.map((stat) => long(stat.mzxid))).size, 1);
    assert.strictEqual(long((await b.exists(t.root)).pzxid), long(stats[0].mzxid));
  },

  async failed_transaction(t) {
    const a = await t.connect();
    const b = await t.connect();
    await a.create(t.root);
    await a.create(`${t.root}/n`, text('0'));
    const before = [await a.exists(t.root), await a.exists(`${t.root}/n`)];
    const told = watcher();
    await b.getChildren(t.root, told);
    await b.getData(`${t.root}/n`, told);
    await b.exists(`${t.root}/p`, told);
    for (const [code, last] of [
      [Exception.BAD_VERSION, (transaction) => transaction.check(`${t.root}/n`, 9)],
      [Exception.NO_NODE, (transaction) => transaction.setData(`${t.root}/none`, text(''))],
      [Exception.NODE_EXISTS, (transaction) => transaction.create(`${t.root}/n`)],
      [Exception.NOT_EMPTY, (transaction) => transaction.remove(t.root)],
    ]) {
      const { error, results } = await a.transact((transaction) => last(transaction
        .create(`${t.root}/p`)
        .create(`${t.root}/s-`, CreateMode.PERSISTENT_SEQUENTIAL)
        .setData(`${t.root}/n`, text('1'))).remove(`${t.root}/n`));
      assert.strictEqual(error.code, code);
      assert.deepStrictEqual(results.map((result) => result.err), [0, 0, 0, code, Exception.RUNTIME_INCONSISTENCY]);
      assert.deepStrictEqual([await a.exists(t.root), await a.exists(`${t.root}/n`)], before);
    }
    // No number was used up, and nobody was told: this is the first that is.
    assert.strictEqual(await a.create(`${t.root}/s-`, CreateMode.PERSISTENT_SEQUENTIAL), `${t.root}/s-0000000001`);
    await told.gets(`NODE_CHILDREN_CHANGED ${t.root}`);
  },

  // Two nodes that a transaction changes together are never seen apart by transactions that check both.
  async one_of_many(t) {
    const clients = await Promise.all([1, 2, 3, 4].map(() => t.connect()));
    await clients[0].create(t.root);
    for (const name of ['x', 'y']) {
      await clients[0].create(`${t.root}/${name}`, text('0'));
      await clients[0].setData(`${t.root}/${name}`, text('0'));
    }
    let retries = 0;
    await Promise.all(clients.map(async (zk) => {
      for (let done = 0; done < 25;) {
        const [[x, xs], [y, ys]] = await Promise.all([zk.getData(`${t.root}/x`), zk.getData(`${t.root}/y`)]);
        const { error } = await zk.transact((transaction) => transaction
          .setData(`${t.root}/x`, text(`${Number(x) + 1}`), xs.version)
          .setData(`${t.root}/y`, text(`${Number(y) - 1}`), ys.version));
        if (!error) done += 1; else { assert.strictEqual(error.code, Exception.BAD_VERSION); retries += 1; }
      }
    }));
    const end = await Promise.all(['x', 'y'].map((name) => clients[1].getData(`${t.root}/${name}`)));
    assert.deepStrictEqual(end.map(([data, stat]) => [Number(data), stat.version]), [[100, 101], [-100, 101]]);
    assert(retries > 0, 'they never met');
  },

  async pipelined(t) {
    const a = await t.connect();
    const b = await t.connect();
    await a.create(t.root, text('-1'));
    // A thousand requests without a wait: in order, each read after the write before it.
    const answers = [];
    await Promise.all(Array.from({ length: 500 }, async (_, number) => {
      const write = a.setData(t.root, text(`${number}`), number).then((stat) => answers.push(stat.version));
      const read = a.getData(t.root).then(([data]) => answers.push(Number(data)));
      await Promise.all([write, read]);
    }));
    assert.deepStrictEqual(answers, Array.from({ length: 500 }, (_, number) => [number + 1, number]).flat());
    // Two clients that number nodes at once get all numbers, each its own in order.
    const numbers = await Promise.all([a, b].map((zk) => Promise.all(Array.from({ length: 200 }, () => zk
      .create(`${t.root}/q-`, CreateMode.PERSISTENT_SEQUENTIAL).then((path) => Number(path.slice(-10)))))));
    for (const own of numbers) assert.deepStrictEqual(own, [...own].sort((x, y) => x - y));
    assert.deepStrictEqual(numbers.flat().sort((x, y) => x - y), Array.from({ length: 400 }, (_, number) => number));
  },

  async limit_of_a_request(t) {
    const [zk, link] = await t.linked();
    await zk.create(t.root);
    const session = zk.id();
    const most = 1048575 - 8 - 4 - t.root.length - 4 - 4;
    assert.strictEqual((await zk.setData(t.root, Buffer.alloc(most, 1))).dataLength, most);
    await fails(Exception.CONNECTION_LOSS, zk.setData(t.root, Buffer.alloc(most + 1, 2)));
    await until('another connection', () => link.accepted === 2 && zk.client.getState() === State.SYNC_CONNECTED);
    assert.strictEqual(zk.id(), session);
    const [data, stat] = await zk.getData(t.root);
    assert.deepStrictEqual([data.length, data[0], stat.version], [most, 1, 1]);
  },

  async cut_connection(t) {
    const b = await t.connect();
    await b.create(t.root);
    b.client.addAuthInfo('digest', text('ann:secret'));
    await b.create(`${t.root}/locked`, text('l'), ACL.CREATOR_ALL_ACL);
    const [zk, link] = await t.linked({ sessionTimeout: 20000 });
    zk.client.addAuthInfo('digest', text('ann:secret'));
    const session = zk.id();
    await zk.create(`${t.root}/e`, CreateMode.EPHEMERAL);
    for (let round = 1; round <= 5; round += 1) {
      link.cut();
      await until('another connection', () => link.accepted === round + 1 && zk.client.getState() === State.SYNC_CONNECTED);
      assert.strictEqual(zk.id(), session);
      assert.strictEqual(long((await zk.exists(`${t.root}/e`)).ephemeralOwner), long(zk.client.getSessionId()));
      // Identities belong to connections; the client tells them again.
      assert.strictEqual((await zk.getData(`${t.root}/locked`))[0].toString(), 'l');
    }
    // Writes in flight while the connection goes: what was acknowledged is there, what was not came in order or not at all.
    await zk.create(`${t.root}/w`);
    const acknowledged = [];
    const writes = Array.from({ length: 300 }, (_, number) => zk.create(`${t.root}/w/${number}`).then(
      () => acknowledged.push(number),
      (error) => assert.strictEqual(error.code, Exception.CONNECTION_LOSS),
    ));
    await until('the first answer', () => acknowledged.length > 0);
    link.cut();
    await Promise.all(writes);
    await until('another connection', () => link.accepted === 7 && zk.client.getState() === State.SYNC_CONNECTED);
    const there = new Set((await zk.getChildren(`${t.root}/w`))[0].map(Number));
    for (const number of acknowledged) assert(there.has(number), `${number} was acknowledged and is lost`);
    assert(!zk.states.includes('EXPIRED'));
  },

  // What changes while a client is away is told when it comes back, and only that.
  async watches_over_a_cut(t) {
    const b = await t.connect();
    await b.create(t.root);
    for (const name of ['changed', 'gone', 'parent', 'same', 'again']) await b.create(`${t.root}/${name}`);
    const [zk, link] = await t.linked({ sessionTimeout: 20000 });
    const watch = {};
    for (const name of ['changed', 'gone', 'same', 'new', 'parent', 'again', 'still']) watch[name] = watcher();
    for (const name of ['changed', 'gone', 'same', 'again']) await zk.getData(`${t.root}/${name}`, watch[name]);
    for (const name of ['new', 'still']) await zk.exists(`${t.root}/${name}`, watch[name]);
    await zk.getChildren(`${t.root}/parent`, watch.parent);
    link.block();
    await until('the loss', () => zk.client.getState() !== State.SYNC_CONNECTED);
    await b.setData(`${t.root}/changed`, text('1'));
    await b.remove(`${t.root}/gone`);
    await b.create(`${t.root}/new`);
    await b.create(`${t.root}/parent/child`);
    link.unblock();
    await watch.changed.gets(`NODE_DATA_CHANGED ${t.root}/changed`);
    await watch.gone.gets(`NODE_DELETED ${t.root}/gone`);
    await watch.new.gets(`NODE_CREATED ${t.root}/new`);
    await watch.parent.gets(`NODE_CHILDREN_CHANGED ${t.root}/parent`);
    await zk.exists(t.root);
    await watch.same.gets();
    await watch.still.gets();
    // What was not told still stands.
    await b.setData(`${t.root}/again`, text('1'));
    await watch.again.gets(`NODE_DATA_CHANGED ${t.root}/again`);
    await b.create(`${t.root}/still`);
    await watch.still.gets(`NODE_CREATED ${t.root}/still`);
    await b.setData(`${t.root}/same`, text('1'));
    await watch.same.gets(`NODE_DATA_CHANGED ${t.root}/same`);
  },

  // A client with nothing to do keeps its session by its pings.
  async idle(t) {
    const b = await t.connect();
    await b.create(t.root);
    const [zk, link] = await t.linked({ sessionTimeout: 3000 });
    await zk.create(`${t.root}/e`, CreateMode.EPHEMERAL);
    const time = zk.client.getSessionTimeout() * 2.5;
    const gone = watcher();
    await b.exists(`${t.root}/e`, gone);
    await new Promise((resolve) => { setTimeout(resolve, time); }); // The time is what this is about.
    await gone.gets();
    assert.deepStrictEqual([link.accepted, zk.states], [1, ['SYNC_CONNECTED']]);
  },

  async expiry(t) {
    const b = await t.connect();
    await b.create(t.root);
    const [zk, link] = await t.linked({ sessionTimeout: 3000 });
    const time = zk.client.getSessionTimeout();
    await zk.create(`${t.root}/e`, CreateMode.EPHEMERAL);
    await zk.create(`${t.root}/p`);
    const gone = watcher();
    await b.exists(`${t.root}/e`, gone);
    link.block();
    const from = Date.now();
    await until('the end of the session', () => gone.events.length, time * 3 + WAIT);
    const took = Date.now() - from;
    assert(took > time * 0.6, `gone after ${took} ms; pings are ${time / 3} ms apart, the time is ${time} ms`);
    await gone.gets(`NODE_DELETED ${t.root}/e`);
    assert.deepStrictEqual((await b.getChildren(t.root))[0], ['p']);
    link.unblock();
    await until('word of it', () => zk.states.includes('EXPIRED'));
    await until('the end of the client', () => zk.client.getState() !== State.SYNC_CONNECTED);
    await fails(Exception.CONNECTION_LOSS, zk.getData(t.root).catch((error) => {
      // Which of the two depends on whether the server has closed the connection yet.
      throw error.code === Exception.SESSION_EXPIRED ? Exception.create(Exception.CONNECTION_LOSS) : error;
    }));
  },

  // Another process goes on with a session whose id and password it was given.
  async handed_over(t) {
    const b = await t.connect();
    await b.create(t.root);
    const [first, link] = await t.linked({ sessionTimeout: 20000 });
    await first.create(`${t.root}/e`, CreateMode.EPHEMERAL);
    const [sessionId, sessionPassword] = [first.client.getSessionId(), first.client.getSessionPassword()];
    assert.strictEqual(sessionPassword.length, 16);
    link.block(); // It hangs, and is taken for dead.
    const thief = new Zk(ADDRESS, { sessionId, sessionPassword: Buffer.alloc(16, 7) });
    thief.client.connect();
    await until('its refusal', () => thief.states.includes('EXPIRED'));
    const second = await t.connect(ADDRESS, { sessionTimeout: 20000, sessionId, sessionPassword });
    assert.strictEqual(second.id(), first.id());
    assert.strictEqual(long((await second.exists(`${t.root}/e`)).ephemeralOwner), long(sessionId));
    const gone = watcher();
    await b.exists(`${t.root}/e`, gone);
    second.client.close();
    await gone.gets(`NODE_DELETED ${t.root}/e`);
    // The first one is told when it comes back.
    link.unblock();
    await until('word of it', () => first.states.includes('EXPIRED'));
  },

  async below_a_root(t) {
    const b = await t.connect();
    await b.create(t.root);
    const zk = await t.connect(`${ADDRESS}${t.root}`);
    const told = watcher();
    assert.strictEqual(await zk.exists('/n', told), null);
    assert.strictEqual(await zk.create('/n', text('1')), '/n');
    await told.gets('NODE_CREATED /n');
    const { error, results } = await zk.transact((transaction) => transaction.create('/m').setData('/n', text('2')));
    assert(!error, error);
    assert.strictEqual(results[0].path, '/m');
    assert.deepStrictEqual((await zk.getChildren('/'))[0].sort(), ['m', 'n']);
    assert.strictEqual((await b.getData(`${t.root}/n`))[0].toString(), '2');
  },
};

async function run(name) {
  const t = new Case(name.replace(/_/g, '-'));
  try {
    await within('its end', cases[name](t), CASE);
    console.log(`ok ${name}`);
    return true;
  } catch (error) {
    const line = /node_client\.js:\d+/.exec((error.stack || '').split('\n').filter((l) => !/at (Object\.)?(async )?(fails|until|within)/.test(l)).join('\n'));
    console.log(`FAILED ${name}: ${String(error.message || error).replace(/\s+/g, ' ').slice(0, 600)}${line ? ` (${line[0]})` : ''}`);
    return false;
  } finally {
    t.end();
  }
}

process.on('unhandledRejection', () => {}); // Of a case that has failed already.
const names = Object.keys(cases).filter((name) => name.includes(FILTER));
Promise.all(names.map(run)).then((results) => {
  const failed = results.filter((ok) => !ok).length;
  console.log(`${results.length - failed} ok, ${failed} failed`);
  process.exit(failed || !results.length ? 1 : 0);
});
