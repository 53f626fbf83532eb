// Workers with a bug, as one could be written: node bugs.js NAME
import { randomUUID } from 'node:crypto'
import { argv } from 'node:process'

import { announce, main, transfer } from '../worker.js'

const bugs = {
  // The bank is asked again in such a way that it cannot recognise the repetition.
  'new-key': { pay: (payout) => transfer(payout, randomUUID()) },
  // A forgotten await: nobody waits for the broker's answer.
  'no-await': { tell: (producer, rows) => void announce(producer, rows).catch(() => {}) },
}

await main(bugs[argv[2]])
