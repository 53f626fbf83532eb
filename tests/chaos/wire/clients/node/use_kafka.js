import kafkajs from 'kafkajs'

const { CompressionTypes, Kafka, Partitioners, logLevel } = kafkajs

export async function useKafka(servers, { TOPIC: topic, GROUP: group, KEY: key }) {
  const kafka = new Kafka({ clientId: 'node', brokers: servers.split(','), logLevel: logLevel.ERROR })
  const createPartitioner = Partitioners.DefaultPartitioner

  // Its padding makes compression worth while.
  const messages = (note) => [{ key, value: note.padEnd(200, '.') }]

  const producer = kafka.producer({ createPartitioner })
  await producer.connect()
  await producer.send({ topic, messages: messages('plain') })
  await producer.send({ topic, messages: messages('compressed'), compression: CompressionTypes.GZIP })
  await producer.disconnect()

  const topics = await consume(kafka.consumer({ groupId: group, maxWaitTimeInMs: 200 }), topic, key)

  const transactionalId = `${group}.transaction`
  const careful = kafka.producer({ createPartitioner, transactionalId, idempotent: true, maxInFlightRequests: 1 })
  await careful.connect()
  const committed = await careful.transaction()
  await committed.send({ topic, messages: messages('committed') })
  await committed.sendOffsets({ consumerGroupId: transactionalId, topics })
  await committed.commit()
  const aborted = await careful.transaction()
  await aborted.send({ topic, messages: messages('aborted') })
  await aborted.abort()
  await careful.disconnect()
}

// Reads two messages, commits, leaves; what is returned are the offsets, as `sendOffsets` wants them.
async function consume(consumer, topic, key) {
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const partitions = new Map()
  let seen = 0
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    const eachMessage = async ({ partition, message }) => {
      partitions.set(partition, { partition, offset: String(BigInt(message.offset) + 1n) })
      seen += message.key?.toString() === key ? 1 : 0
      if (seen === 2) resolve()
    }
    consumer.run({ autoCommit: false, eachMessage }).catch(reject)
  })
  const offsets = [...partitions.values()]
  await consumer.commitOffsets(offsets.map((one) => ({ topic, ...one })))
  await consumer.disconnect()
  return [{ topic, partitions: offsets }]
}
