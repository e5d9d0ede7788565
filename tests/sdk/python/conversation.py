"""The official Python SDK, unmodified, in one conversation with a node: tests/gateway/sdk.rs starts both.

    python conversation.py URL json|protobuf SECRET

Prints "restart" when the node is to be started anew on the same port, and "done" when all was as it should be.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time

from centrifuge import Client, ClientEventHandler, ClientState, ReplyError, SubscriptionEventHandler, SubscriptionState

URL, ENCODING, SECRET = sys.argv[1:]
PROTOBUF = ENCODING == "protobuf"
PATIENCE = 30


def encode(value):
    """In Protobuf the SDK takes and gives bytes."""
    return json.dumps(value).encode() if PROTOBUF else value


def decode(data):
    return json.loads(data) if PROTOBUF else data


def token(**claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def in_seconds(seconds):
    return int(time.time()) + seconds


class Events(ClientEventHandler, SubscriptionEventHandler):
    """Every event, in a queue for each name."""

    def __init__(self):
        self.queues = {}

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        async def put(context):
            self.queue(name).put_nowait(context)

        return put

    def queue(self, name):
        return self.queues.setdefault(name, asyncio.Queue())

    async def next(self, name):
        return await asyncio.wait_for(self.queue("on_" + name).get(), PATIENCE)

    def count(self, name):
        return self.queue("on_" + name).qsize()


def client(**options):
    events = Events()
    made = Client(URL, events=events, use_protobuf=PROTOBUF, min_reconnect_delay=0.05, max_reconnect_delay=0.5, **options)
    return made, events


def subscription(of, channel, **options):
    events = Events()
    return of.new_subscription(channel, events=events, **options), events


async def refusal(operation):
    try:
        await operation
    except ReplyError as error:
        return error.code
    return "success"


async def published(data, sender, *events):
    await sender.publish(encode(data))
    for heard in events:
        context = await heard.next("publication")
        assert decode(context.pub.data) == data, context
    return context


async def main():
    # ---- two clients in one room

    anna, annas = client(token=token(sub="anna", info={"seat": 1}), name="anna")
    berta, _ = client(token=token(sub="berta"))
    annas_room, anna_hears = subscription(anna, "room")
    bertas_room, berta_hears = subscription(berta, "room")
    await annas_room.subscribe()
    await bertas_room.subscribe()
    await anna.connect()
    await berta.connect()
    assert len((await annas.next("connected")).client) == 36
    await annas_room.ready(PATIENCE)
    await bertas_room.ready(PATIENCE)

    context = await published({"text": "hello\n", "n": [1, 2.5, None]}, annas_room, anna_hears, berta_hears)
    assert context.pub.info.user == "anna"
    assert decode(context.pub.info.conn_info) == {"seat": 1}

    # A hundred in order, sent without waiting.
    await asyncio.gather(*(annas_room.publish(encode(n)) for n in range(100)))
    heard = [decode((await berta_hears.next("publication")).pub.data) for _ in range(100)]
    assert heard == list(range(100)), heard
    for _ in range(100):
        await anna_hears.next("publication")

    # ---- what is not there says so

    assert await refusal(annas_room.presence()) == 108
    assert await refusal(annas_room.presence_stats()) == 108
    assert await refusal(annas_room.history(limit=1)) == 108
    assert await refusal(anna.rpc("method", encode({}))) == 108
    assert await refusal(anna.publish("nowhere:room", encode(1))) == 102

    nowhere, nowhere_events = subscription(anna, "nowhere:room")
    await nowhere.subscribe()
    assert (await nowhere_events.next("unsubscribed")).code == 102

    # ---- a private channel, with a token of its own; an expired one is replaced

    asked = 0

    async def subscription_token(channel):
        nonlocal asked
        asked += 1
        return token(sub="anna", channel=channel, exp=in_seconds(2))

    expired = token(sub="anna", channel="$secret", exp=in_seconds(-10))
    secret_room, _ = subscription(anna, "$secret", token=expired, get_token=subscription_token)
    await secret_room.subscribe()
    await secret_room.ready(PATIENCE)
    assert asked == 1

    # ---- unsubscribing

    await bertas_room.unsubscribe()
    await berta_hears.next("unsubscribed")
    await published("without berta", annas_room, anna_hears)
    assert berta_hears.count("publication") == 0
    await bertas_room.subscribe()
    await bertas_room.ready(PATIENCE)
    await published("with berta again", annas_room, anna_hears, berta_hears)

    # ---- tokens that expire

    refreshes = 0

    async def connection_token():
        nonlocal refreshes
        refreshes += 1
        return token(sub="clara", exp=in_seconds(2))

    clara, claras = client(token=token(sub="clara", exp=in_seconds(-10)), get_token=connection_token)
    await clara.connect()
    await clara.ready(PATIENCE)
    assert refreshes == 1, "the expired token is replaced at once"
    connecting = claras.count("connecting")
    # Two lives of a token and the second of grace that the node gives.
    await asyncio.sleep(5.5)
    assert refreshes >= 2, refreshes
    assert asked >= 2, asked
    assert claras.count("connecting") == connecting and claras.count("disconnected") == 0
    assert clara.state == ClientState.CONNECTED
    assert secret_room.state == SubscriptionState.SUBSCRIBED
    await clara.disconnect()

    stranger, strangers = client(token="no.token.atall")
    await stranger.connect()
    assert (await strangers.next("disconnected")).code == 3500

    # ---- the node is started anew

    for hears in (anna_hears, berta_hears):
        while hears.count("subscribed"):
            await hears.next("subscribed")
    print("restart", flush=True)
    for hears in (anna_hears, berta_hears):
        await hears.next("subscribed")
    await published("after the restart", bertas_room, anna_hears, berta_hears)

    await anna.disconnect()
    assert (await annas.next("disconnected")).code == 0
    await berta.disconnect()
    print("done", flush=True)


asyncio.run(main())
