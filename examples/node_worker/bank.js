// The bank. A payout is made when it is in the log: one line for each request, on disk before the answer.
// The first request with its key has an effect.
import { fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:http'
import { env } from 'node:process'

const log = openSync(env.LEDGER, 'a')
const lines = readFileSync(env.LEDGER, 'utf8').split('\n').filter(Boolean)
const keys = new Set(lines.map((line) => JSON.parse(line).key))

async function answer(request, reply) {
  let body = ''
  for await (const chunk of request) body += chunk
  const key = request.headers['idempotency-key']
  const effect = !keys.has(key)
  writeSync(log, JSON.stringify({ key, ...JSON.parse(body), effect }) + '\n')
  fdatasyncSync(log)
  keys.add(key)
  reply.writeHead(effect ? 201 : 200, { 'Content-Type': 'application/json' })
  reply.end(JSON.stringify({ reference: `transfer-${key}` }))
}

createServer((request, reply) => answer(request, reply).catch(() => reply.destroy())).listen(env.PORT, '127.0.0.1')
