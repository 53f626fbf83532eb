import pg from 'pg'

const INSERT = 'INSERT INTO effects VALUES ($1, $2)'
const COUNT = 'SELECT count(*) FROM effects'

export async function usePostgres(connectionString, key) {
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query(INSERT, [key, 'autocommit'])

  await client.query('BEGIN')
  await client.query(COUNT)
  await client.query(INSERT, [key, 'transaction'])
  await client.query('COMMIT')

  await client.query('BEGIN')
  await client.query(COUNT)
  await client.query('COMMIT')

  await client.query("UPDATE effects SET note = 'update' WHERE key = 'nobody'")

  await client.query('BEGIN')
  await client.query(INSERT, [key, 'rolled back'])
  await client.query('ROLLBACK')

  // Several statements in one simple query are one implicit transaction.
  await client.query(`INSERT INTO effects VALUES ('${key}', 'many-1'); INSERT INTO effects VALUES ('${key}', 'many-2')`)
  // A prepared statement: the second time there is no SQL in the frames.
  for (const note of ['named-1', 'named-2']) {
    await client.query({ name: 'insert', text: INSERT, values: [key, note] })
  }
  await client.end()
}
