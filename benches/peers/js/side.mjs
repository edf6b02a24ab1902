// automerge-repo on Node.js, as its documentation sets it up: one document that holds all objects,
// file storage, a WebSocket. One device, driven by the lines that `src/side.rs` describes.

import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import { setTimeout as pause } from "node:timers/promises"
import { parseArgs } from "node:util"

import * as Automerge from "@automerge/automerge"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter, WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"

// Answers are all that is written to standard output: what libraries print goes beside it.
const say = line => process.stdout.write(`${line}\n`)
console.log = console.error

const text = { type: "string" }
const { values: start } = parseArgs({
  options: { dir: text, invitation: text, node: text, "object-bytes": text },
})

// As `benches/src/workload.rs` makes them.
const MASK = (1n << 64n) - 1n
const digits = (number, length) => String(number).padStart(length, "0")
const id = (number) => `bench/${digits(number, 8)}`

function object(number) {
  const mixed = ((BigInt(number) + 1n) * 0x9e3779b97f4a7c15n) & MASK
  const turned = ((mixed << 29n) | (mixed >> 35n)) & MASK
  const hex = (value) => value.toString(16).padStart(16, "0")
  return {
    kind: "file",
    path: `projects/${digits(mixed % 97n, 2)}/src/module_${digits(number, 8)}.rs`,
    size: Number(mixed % 1_000_000n),
    mtime: `2026-03-${digits(1n + (mixed % 28n), 2)}T${digits(mixed % 24n, 2)}:${digits(mixed % 60n, 2)}:00Z`,
    hash: hex(mixed) + hex(turned),
    media: "text/x-rust",
  }
}

let handle
let dialer
let address
let wanted
let expected

const repo = new Repo({ storage: new NodeFSStorageAdapter(`${start.dir}/repo`), network: [] })

if (start.invitation) {
  [address, wanted] = start.invitation.split(" ")
} else {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 })
  await once(server, "listening")
  address = `ws://127.0.0.1:${server.address().port}`
  repo.networkSubsystem.addNetworkAdapter(new WebSocketServerAdapter(server))
  handle = repo.create({ objects: {} })
  wanted = handle.url
}

const held = () => Object.keys(handle?.doc()?.objects ?? {}).length
const isHere = (number) => handle?.doc()?.objects?.[id(number)] !== undefined

const commands = {
  // Each object has a change of its own; the document is told once for all of them.
  async write(first, count) {
    handle.update((doc) => {
      for (let number = first; number < first + count; number++) {
        doc = Automerge.change(doc, (draft) => {
          draft.objects[id(number)] = object(number)
        })
      }
      return doc
    })
  },
  async connect() {
    if (!start.invitation) return
    if (!dialer) {
      dialer = new WebSocketClientAdapter(address)
      repo.networkSubsystem.addNetworkAdapter(dialer)
    } else {
      dialer.connect(repo.peerId, dialer.peerMetadata)
    }
    handle ??= await repo.find(wanted)
  },
  async disconnect() {
    dialer?.disconnect()
  },
  async hold(count, _last, limit) {
    const began = performance.now()
    let lastLook = Infinity
    for (;;) {
      const looked = performance.now()
      const here = held()
      const now = performance.now()
      if (here >= count || now - began >= limit) return here
      // As the sides in Rust look (side.rs); a timer here has no less than a millisecond.
      const look = now - looked
      const takes = Math.min(look, lastLook)
      lastLook = look
      await pause(Math.min(Math.max((now - began) / 100, takes * 4, 1), 20))
    }
  },
  async expect(number) {
    expected = number
  },
  async seen(limit) {
    if (isHere(expected)) return true
    return await new Promise((resolve) => {
      const end = (was) => {
        clearTimeout(late)
        handle.off("change", look)
        resolve(was)
      }
      const look = () => {
        if (isHere(expected)) end(true)
      }
      const late = setTimeout(() => end(false), limit)
      handle.on("change", look)
    })
  },
  async memory() {
    const status = readFileSync("/proc/self/status", "utf8")
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)[1]) * 1024
  },
}

say(`ok ${address} ${wanted}`)
// The input ends when the program that started this one does, however it ends.
const lines = createInterface({ input: process.stdin })
lines.on("close", () => process.exit(0))
let turn = Promise.resolve()
lines.on("line", (line) => {
  turn = turn.then(async () => {
    const [command, ...numbers] = line.split(" ")
    try {
      say(`ok ${(await commands[command](...numbers.map(Number))) ?? ""}`)
    } catch (error) {
      say(`error ${line}: ${String(error).replaceAll("\n", " ")}`)
    }
  })
})
