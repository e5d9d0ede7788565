// The official JavaScript SDK, unmodified, in one conversation with a node: tests/gateway/sdk.rs starts both.
//
//     node conversation.mjs URL json|protobuf SECRET
//
// Prints "restart" when the node is to be started anew on the same port, and "done" when all was as it should be.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

const [url, encoding, secret] = process.argv.slice(2);
const Centrifuge = encoding === 'protobuf' ? ProtobufCentrifuge : JsonCentrifuge;
const PATIENCE_MS = 30_000;

// In Protobuf the SDK takes and gives bytes.
const encode = value => (encoding === 'protobuf' ? new TextEncoder().encode(JSON.stringify(value)) : value);
const decode = data => (encoding === 'protobuf' ? JSON.parse(new TextDecoder().decode(data)) : data);

function token(claims) {
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

const inSeconds = seconds => Math.floor(Date.now() / 1000) + seconds;

function client(options) {
  return new Centrifuge(url, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 500, ...options });
}

// The context of the next event of that name.
async function next(emitter, name) {
  const [context] = await once(emitter, name, { signal: AbortSignal.timeout(PATIENCE_MS) });
  return context;
}

const refusal = promise => promise.then(() => 'success', error => error.code);

// ---- two clients in one room

const anna = client({ token: token({ sub: 'anna', info: { seat: 1 } }), name: 'anna' });
const berta = client({ token: token({ sub: 'berta' }) });
const annasRoom = anna.newSubscription('room');
const bertasRoom = berta.newSubscription('room');
anna.on('error', context => console.error('anna', context));
berta.on('error', context => console.error('berta', context));

annasRoom.subscribe();
bertasRoom.subscribe();
const connected = next(anna, 'connected');
anna.connect();
berta.connect();
assert.match((await connected).client, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
await annasRoom.ready(PATIENCE_MS);
await bertasRoom.ready(PATIENCE_MS);

async function published(data, from, ...to) {
  const heard = to.map(subscription => next(subscription, 'publication'));
  await from.publish(encode(data));
  const contexts = await Promise.all(heard);
  for (const context of contexts) {
    assert.deepEqual(decode(context.data), data);
  }
  return contexts[0];
}

const context = await published({ text: 'hello\n', n: [1, 2.5, null] }, annasRoom, annasRoom, bertasRoom);
assert.equal(context.info.user, 'anna');
assert.deepEqual(decode(context.info.connInfo), { seat: 1 });

// A hundred in order, sent without waiting.
const numbers = [];
const collect = context => numbers.push(decode(context.data));
bertasRoom.on('publication', collect);
await Promise.all(Array.from({ length: 100 }, (_, n) => annasRoom.publish(encode(n))));
await published('last', annasRoom, bertasRoom);
bertasRoom.off('publication', collect);
assert.deepEqual(numbers, [...Array(100).keys(), 'last']);

// ---- what is not there says so

assert.equal(await refusal(annasRoom.presence()), 108);
assert.equal(await refusal(annasRoom.presenceStats()), 108);
assert.equal(await refusal(annasRoom.history({ limit: 1 })), 108);
assert.equal(await refusal(anna.rpc('method', encode({}))), 108);
assert.equal(await refusal(anna.publish('nowhere:room', encode(1))), 102);

const nowhere = anna.newSubscription('nowhere:room');
const gone = next(nowhere, 'unsubscribed');
nowhere.subscribe();
assert.equal((await gone).code, 102);

// ---- a private channel, with a token of its own; an expired one is replaced

let asked = 0;
const secretRoom = anna.newSubscription('$secret', {
  token: token({ sub: 'anna', channel: '$secret', exp: inSeconds(-10) }),
  getToken: async ({ channel }) => (asked++, token({ sub: 'anna', channel, exp: inSeconds(2) })),
});
secretRoom.subscribe();
await secretRoom.ready(PATIENCE_MS);
assert.equal(asked, 1);

// ---- unsubscribing

const left = next(bertasRoom, 'unsubscribed');
bertasRoom.unsubscribe();
await left;
const unheard = context => assert.fail(`heard after it had left: ${decode(context.data)}`);
bertasRoom.on('publication', unheard);
await published('without berta', annasRoom, annasRoom);
bertasRoom.off('publication', unheard);
bertasRoom.subscribe();
await bertasRoom.ready(PATIENCE_MS);
await published('with berta again', annasRoom, bertasRoom);

// ---- tokens that expire

let refreshes = 0;
const clara = client({
  token: token({ sub: 'clara', exp: inSeconds(-10) }),
  getToken: async () => (refreshes++, token({ sub: 'clara', exp: inSeconds(2) })),
});
clara.on('disconnected', context => assert.fail(`clara was disconnected: ${JSON.stringify(context)}`));
let reconnects = 0;
clara.connect();
await clara.ready(PATIENCE_MS);
assert.equal(refreshes, 1, 'the expired token is replaced at once');
clara.on('connecting', () => reconnects++);
// Two lives of a token and the second of grace that the node gives.
await new Promise(resolve => setTimeout(resolve, 5500));
assert.ok(refreshes >= 2, `the token is refreshed: ${refreshes}`);
assert.ok(asked >= 2, `the subscription's token is refreshed: ${asked}`);
assert.equal(reconnects, 0);
assert.equal(clara.state, 'connected');
assert.equal(secretRoom.state, 'subscribed');
clara.removeAllListeners();
clara.disconnect();

const stranger = client({ token: 'no.token.atall' });
const refused = next(stranger, 'disconnected');
stranger.connect();
assert.equal((await refused).code, 3500);

// ---- the node is started anew

const again = [next(annasRoom, 'subscribed'), next(bertasRoom, 'subscribed')];
console.log('restart');
await Promise.all(again);
await published('after the restart', bertasRoom, annasRoom, bertasRoom);

const ended = next(anna, 'disconnected');
anna.disconnect();
assert.equal((await ended).code, 0);
berta.disconnect();
console.log('done');
