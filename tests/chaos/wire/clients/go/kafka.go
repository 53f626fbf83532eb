package main

import (
	"context"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

func useKafka(ctx context.Context, address string) error {
	topic, group := os.Getenv("TOPIC"), os.Getenv("GROUP")
	servers := kgo.SeedBrokers(address)
	codecs := map[string]kgo.CompressionCodec{"plain": kgo.NoCompression(), "compressed": kgo.ZstdCompression()}
	for _, note := range []string{"plain", "compressed"} {
		client, err := kgo.NewClient(servers, kgo.ProducerBatchCompression(codecs[note]))
		if err != nil {
			return err
		}
		err = client.ProduceSync(ctx, message(topic, note)).FirstErr()
		client.Close()
		if err != nil {
			return err
		}
	}
	if err := consume(ctx, servers, topic, group); err != nil {
		return err
	}
	return transact(ctx, servers, topic, group+".transaction")
}

// Its padding makes compression worth while.
func message(topic, note string) *kgo.Record {
	value := note + strings.Repeat(".", 200-len(note))
	return &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value)}
}

func fromTheStart(topic, group string) []kgo.Opt {
	start := kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())
	return []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), start}
}

func consume(ctx context.Context, servers kgo.Opt, topic, group string) error {
	client, err := kgo.NewClient(append(fromTheStart(topic, group), servers, kgo.DisableAutoCommit())...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := poll(ctx, client.PollFetches); err != nil {
		return err
	}
	return client.CommitUncommittedOffsets(ctx)
}

func poll(ctx context.Context, fetch func(context.Context) kgo.Fetches) error {
	for seen := 0; seen < 2; {
		fetches := fetch(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			if string(record.Key) == key {
				seen++
			}
		})
	}
	return nil
}

// Reads, and commits what it has read together with what it writes: a session, which is a member of the group, too.
func transact(ctx context.Context, servers kgo.Opt, topic, group string) error {
	session, err := kgo.NewGroupTransactSession(append(fromTheStart(topic, group), servers, kgo.TransactionalID(group))...)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := poll(ctx, session.PollFetches); err != nil {
		return err
	}
	for _, end := range []struct {
		note   string
		commit kgo.TransactionEndTry
	}{{"committed", kgo.TryCommit}, {"aborted", kgo.TryAbort}} {
		if err := session.Begin(); err != nil {
			return err
		}
		if err := session.ProduceSync(ctx, message(topic, end.note)).FirstErr(); err != nil {
			return err
		}
		if _, err := session.End(ctx, end.commit); err != nil {
			return err
		}
	}
	return nil
}
