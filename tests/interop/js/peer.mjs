// A js-libp2p peer that does what the tests tell it, one JSON document per line.
//
//   in   {"id": 1, "do": "dial", "address": "/ip4/..."}
//   out  {"id": 1, "result": ...}  or  {"id": 1, "error": "..."}
//   out  {"event": "message" | "stream" | "data" | "closed", ...}   unasked
//
// Bytes are hexadecimal. The peer ends when its standard input does.

import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'

const TIMEOUT_MS = 15_000
const HEARTBEAT_MS = 100 // of gossip: a mesh forms at a heartbeat

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping({ maxOutboundStreams: 4 }), // the DHT pings as well, when it meets a peer
    pubsub: gossipsub({ emitSelf: false, heartbeatInterval: HEARTBEAT_MS }),
    dht: kadDHT({ protocol: '/ipfs/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper })
  }
})

const identified = new Map() // peer id -> what it said about itself
const waiting = new Map() // peer id -> functions to call once it did
const streams = []

const say = (document) => process.stdout.write(JSON.stringify(document) + '\n')
const hex = (bytes) => Buffer.from(bytes.subarray()).toString('hex')
const unhex = (text) => Uint8Array.from(Buffer.from(text, 'hex'))
const soon = () => ({ signal: AbortSignal.timeout(TIMEOUT_MS) })
const connectionTo = (peer) => {
  const found = node.getConnections().find((connection) => connection.remotePeer.toString() === peer)
  if (found == null) throw new Error(`no connection to ${peer}`)
  return found
}

node.addEventListener('peer:identify', ({ detail }) => {
  const peer = detail.peerId.toString()
  identified.set(peer, { agent: detail.agentVersion, protocols: detail.protocols })
  for (const resolve of waiting.get(peer) ?? []) resolve()
  waiting.delete(peer)
})

node.services.pubsub.addEventListener('message', ({ detail }) => {
  say({ event: 'message', topic: detail.topic, author: detail.from.toString(), data: hex(detail.data) })
})

function adopt (stream) {
  const number = streams.push(stream) - 1
  stream.addEventListener('message', ({ data }) => say({ event: 'data', stream: number, data: hex(data) }))
  stream.addEventListener('close', () => say({ event: 'closed', stream: number }))
  return number
}

const commands = {
  dial: async ({ address }) => {
    const connection = await node.dial(multiaddr(address), soon())
    return { encryption: connection.encryption, multiplexer: connection.multiplexer }
  },
  identify: async ({ peer }) => {
    if (!identified.has(peer)) {
      await new Promise((resolve) => waiting.set(peer, [...(waiting.get(peer) ?? []), resolve]))
    }
    return identified.get(peer)
  },
  ping: async ({ peer }) => await node.services.ping.ping(connectionTo(peer).remotePeer, soon()),
  subscribe: async ({ topic }) => node.services.pubsub.subscribe(topic),
  publish: async ({ topic, data }) => (await node.services.pubsub.publish(topic, unhex(data))).recipients.length,
  open: async ({ peer, protocol }) => adopt(await connectionTo(peer).newStream(protocol, soon())),
  write: async ({ stream, data }) => streams[stream].send(unhex(data)),
  serve: async ({ protocol }) => await node.handle(protocol, (stream, connection) => {
    const number = adopt(stream)
    say({ event: 'stream', stream: number, protocol, peer: connection.remotePeer.toString() })
  }),
  providers: async ({ cid }) => {
    for await (const provider of node.contentRouting.findProviders(CID.decode(unhex(cid)), soon())) {
      return [provider.id.toString()]
    }
    return []
  }
}

async function perform ({ id, do: name, ...rest }) {
  try {
    say({ id, result: (await commands[name](rest)) ?? null })
  } catch (error) {
    say({ id, error: String(error) })
  }
}

const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => perform(JSON.parse(line)))
lines.on('close', () => process.exit(0))
say({ event: 'ready', peer: node.peerId.toString(), address: node.getMultiaddrs()[0].toString() })
