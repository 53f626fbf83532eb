// One worker in Go, as one would be written: pgx, franz-go and net/http.
//
// What it is told decides what it does: DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS (with TOPIC and GROUP), HTTP_URL.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

var key = os.Getenv("KEY")

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	scripts := []struct {
		address string
		do      func(context.Context, string) error
	}{
		{"DATABASE_URL", usePostgres},
		{"KAFKA_BOOTSTRAP_SERVERS", useKafka},
		{"HTTP_URL", useHTTP},
	}
	for _, script := range scripts {
		address := os.Getenv(script.address)
		if address == "" {
			continue
		}
		if err := script.do(ctx, address); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", script.address, err)
			os.Exit(1)
		}
	}
}
