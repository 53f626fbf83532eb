"""Mails invoices: a job queue in Postgres, and a worker that empties it."""
