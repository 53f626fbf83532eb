export async function useHTTP(address, key) {
  const call = async (method, body) => {
    const headers = body ? { 'Content-Type': 'application/json' } : {}
    const reply = await fetch(`${address}/effects/${key}`, { method, body, headers, duplex: 'half' })
    await reply.arrayBuffer() // or the connection is not used again
    if (!reply.ok) throw new Error(`${method}: ${reply.status}`)
  }
  const json = (note) => JSON.stringify({ key, note })

  await call('GET')
  await call('POST', json('post'))
  await call('POST', new Blob([json('chunked')]).stream()) // of a length that nobody knows
  await call('PUT', json('put'))
  await call('DELETE')
}
