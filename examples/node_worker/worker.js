// Pays out refunds: takes one after the other from a table, has the bank transfer it, marks it as paid, and tells
// others on a topic. Run as many of these as you like.
//
// Both steps are done first and marked second, in a transaction that keeps the row locked. So either may be done again
// if something fails in between. For the bank a second request with the same key is the first one; whoever reads the
// topic must expect to be told twice. Whatever fails, both connections are thrown away, which
// rolls back, and everything is tried again.
import { argv, env } from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import kafkajs from 'kafkajs'
import pg from 'pg'

const TIMEOUT_MS = 3000 // for every reply; who waits longer waits for one that was lost
const POLL_MS = Number(env.POLL_MS ?? 1000)

const TAKE = `select id, account, cents from payouts where paid_at is null
  order by created_at limit 1 for update skip locked`
const PAID = 'update payouts set paid_at = now(), reference = $2 where id = $1'
const UNTOLD = `select id, reference from payouts where paid_at is not null and told_at is null
  order by paid_at limit 100 for update skip locked`
const TOLD = 'update payouts set told_at = now() where id = any($1)'

// The key depends on nothing but the payout: a repeated request is recognised by it.
export async function transfer({ id, account, cents }, key = `payout-${id}`) {
  const reply = await fetch(`${env.BANK_URL}/transfers`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    body: JSON.stringify({ payout: id, account, cents }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })
  if (!reply.ok) throw new Error(`the bank answered ${reply.status} to payout ${id}`)
  return (await reply.json()).reference
}

// Each row is told of when the broker has it.
export async function announce(producer, rows) {
  const messages = rows.map((row) => ({ key: row.id, value: JSON.stringify(row) }))
  await producer.send({ topic: env.TOPIC, acks: -1, timeout: TIMEOUT_MS, messages })
}

async function payOne(db, pay) {
  await db.query('begin')
  const [payout] = (await db.query(TAKE)).rows
  if (payout) await db.query(PAID, [payout.id, await pay(payout)])
  await db.query('commit')
  return payout !== undefined
}

async function tellSome(db, producer, tell) {
  await db.query('begin')
  const { rows } = await db.query(UNTOLD)
  if (rows.length > 0) {
    await tell(producer, rows)
    await db.query(TOLD, [rows.map((row) => row.id)])
  }
  await db.query('commit')
  return rows.length > 0
}

export async function main({ pay = transfer, tell = announce } = {}) {
  const kafka = new kafkajs.Kafka({
    brokers: env.KAFKA_BOOTSTRAP_SERVERS.split(','),
    connectionTimeout: TIMEOUT_MS,
    requestTimeout: TIMEOUT_MS,
    retry: { retries: 0 }, // is done here
  })
  const connectionString = env.DATABASE_URL
  for (;;) {
    const db = new pg.Client({ connectionString, connectionTimeoutMillis: TIMEOUT_MS, query_timeout: TIMEOUT_MS })
    db.on('error', (error) => console.error('the connection to the database:', error.message)) // also between queries
    const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
    try {
      await Promise.all([db.connect(), producer.connect()])
      for (;;) {
        const paid = await payOne(db, pay)
        const told = await tellSome(db, producer, tell)
        if (!paid && !told) await sleep(POLL_MS)
      }
    } catch (error) {
      console.error('trying again:', error)
      for (const connection of [db.end(), producer.disconnect()]) connection.catch(() => {}) // nobody waits for it
      await sleep(POLL_MS)
    }
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) await main()
