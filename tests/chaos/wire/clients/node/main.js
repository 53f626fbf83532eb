// One worker in Node, as one would be written: pg, kafkajs and fetch.
//
// What it is told decides what it does: DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS (with TOPIC and GROUP), HTTP_URL.
import { env } from 'node:process'

import { useHTTP } from './use_http.js'
import { useKafka } from './use_kafka.js'
import { usePostgres } from './use_postgres.js'

if (env.DATABASE_URL) await usePostgres(env.DATABASE_URL, env.KEY)
if (env.KAFKA_BOOTSTRAP_SERVERS) await useKafka(env.KAFKA_BOOTSTRAP_SERVERS, env)
if (env.HTTP_URL) await useHTTP(env.HTTP_URL, env.KEY)
