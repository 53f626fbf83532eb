package main

import (
	"context"

	"github.com/jackc/pgx/v5"
)

const (
	insert = "INSERT INTO effects VALUES ($1, $2)"
	count  = "SELECT count(*) FROM effects"
)

func usePostgres(ctx context.Context, address string) error {
	connection, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer connection.Close(ctx)
	if _, err := connection.Exec(ctx, insert, key, "autocommit"); err != nil {
		return err
	}
	var rows int
	err = pgx.BeginFunc(ctx, connection, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, count).Scan(&rows); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insert, key, "transaction")
		return err
	})
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, connection, func(tx pgx.Tx) error { return tx.QueryRow(ctx, count).Scan(&rows) })
	if err != nil {
		return err
	}
	if _, err := connection.Exec(ctx, "UPDATE effects SET note = 'update' WHERE key = 'nobody'"); err != nil {
		return err
	}
	tx, err := connection.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, insert, key, "rolled back"); err != nil {
		return err
	}
	if err := tx.Rollback(ctx); err != nil {
		return err
	}
	return inBulk(ctx, connection)
}

// A batch by itself, one whose transaction is in it, and COPY.
func inBulk(ctx context.Context, connection *pgx.Conn) error {
	alone, whole := &pgx.Batch{}, &pgx.Batch{}
	alone.Queue(insert, key, "many-1")
	alone.Queue(insert, key, "many-2")
	if err := connection.SendBatch(ctx, alone).Close(); err != nil {
		return err
	}
	whole.Queue("BEGIN")
	whole.Queue(insert, key, "pipeline-1")
	whole.Queue(insert, key, "pipeline-2")
	whole.Queue("COMMIT")
	if err := connection.SendBatch(ctx, whole).Close(); err != nil {
		return err
	}
	source := pgx.CopyFromRows([][]any{{key, "copy-1"}, {key, "copy-2"}})
	_, err := connection.CopyFrom(ctx, pgx.Identifier{"effects"}, []string{"key", "note"}, source)
	return err
}
