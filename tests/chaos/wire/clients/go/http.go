package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

func useHTTP(ctx context.Context, address string) error {
	json := func(note string) io.Reader {
		return strings.NewReader(fmt.Sprintf(`{"key": %q, "note": %q}`, key, note))
	}
	requests := []struct {
		method string
		body   io.Reader
	}{
		{http.MethodGet, nil},
		{http.MethodPost, json("post")},
		{http.MethodPost, io.MultiReader(json("chunked"), &bytes.Buffer{})}, // of a length that nobody knows
		{http.MethodPut, json("put")},
		{http.MethodDelete, nil},
	}
	for _, one := range requests {
		request, err := http.NewRequestWithContext(ctx, one.method, address+"/effects/"+key, one.body)
		if err != nil {
			return err
		}
		reply, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, reply.Body) // or the connection is not used again
		reply.Body.Close()
		if err != nil {
			return err
		}
		if reply.StatusCode >= 300 {
			return fmt.Errorf("%s: %s", one.method, reply.Status)
		}
	}
	return nil
}
