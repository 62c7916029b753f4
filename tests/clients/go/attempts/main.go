// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// Try what a user may not do: each line "sub SUBJECT" or "pub SUBJECT" on standard input is tried, and
// answered by "refused" or "allowed" on standard output.
//
//	NATS_URL=nats://… ARVADOS_API_TOKEN=v2/… attempts
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

func main() {
	token := os.Getenv("ARVADOS_API_TOKEN")
	parts := strings.Split(token, "/")
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.Token(token),
		nats.CustomInboxPrefix("_INBOX_"+parts[1]),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		verb, subject, _ := strings.Cut(lines.Text(), " ")
		if attempt(nc, verb, subject) {
			fmt.Println("refused")
		} else {
			fmt.Println("allowed")
		}
	}
}

// attempt says whether the server refuses it: its answer comes before that to the flush.
func attempt(nc *nats.Conn, verb, subject string) bool {
	var err error
	if verb == "sub" {
		_, err = nc.SubscribeSync(subject)
	} else {
		err = nc.Publish(subject, []byte("{}"))
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		log.Fatal(err)
	}
	last := nc.LastError()
	return last != nil && strings.Contains(last.Error(), fmt.Sprintf("%q", subject))
}
