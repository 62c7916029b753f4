// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// Topics of an Arvados cluster over WAMP, with nexus' client:
// wamp '[["arvados.event", {"match": "prefix"}]]'
//
// Comes back after a lost connection or a drain. The library drops events that come before its
// Subscribe has returned, so what was is asked for by get_events, and joined to what comes live by
// the publication ids, which are the events' places in the stream; a cursor tells a new stream from the former.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gammazero/nexus/v3/client"
	"github.com/gammazero/nexus/v3/wamp"
)

// place is how far one topic was told; what comes live waits in held until the past is told.
type place struct {
	sync.Mutex
	last   wamp.ID
	cursor string
	held   []*wamp.Event
	live   bool
}

func say(words ...any) { fmt.Fprintln(os.Stderr, append([]any{"*"}, words...)...) }

func join(ctx context.Context) (*client.Client, error) {
	return client.ConnectNet(ctx, os.Getenv("ARVADOS_WAMP_URL"), client.Config{
		Realm:        "arvados",
		HelloDetails: wamp.Dict{"authid": "me"},
		AuthHandlers: map[string]client.AuthFunc{
			"ticket": func(*wamp.Challenge) (string, wamp.Dict) {
				return os.Getenv("ARVADOS_API_TOKEN"), wamp.Dict{}
			},
		},
		Logger: log.New(os.Stderr, "", 0),
	})
}

func tell(number int, message wamp.Dict) {
	line := map[string]any{"on": number}
	for key, value := range message {
		line[key] = value
	}
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
	if _, ended := message["revoked"]; ended {
		say("unsubscribed", number)
	}
}

// take tells an event unless it was told before; other messages have ids beyond all events.
func (p *place) take(number int, publication wamp.ID, message wamp.Dict) {
	if event, _ := wamp.AsDict(message["event"]); event != nil {
		if publication <= p.last {
			return
		}
		p.last = publication
		p.cursor, _ = wamp.AsString(event["cursor"])
	}
	tell(number, message)
}

// now is the present place in the stream of events.
func now(ctx context.Context, session *client.Client) (string, error) {
	answer, err := session.Call(ctx, "arvados.api.events", nil, nil, wamp.Dict{"begin": "now"}, nil)
	if err != nil {
		return "", err
	}
	end, _ := wamp.AsDict(answer.ArgumentsKw["end"])
	cursor, _ := wamp.AsString(end["Arvados-End"])
	return cursor, nil
}

func subscribe(ctx context.Context, session *client.Client, p *place, number int, topic string, options wamp.Dict) error {
	p.Lock()
	p.live, p.held = false, nil
	p.Unlock()
	if p.cursor == "" {
		var err error
		if p.cursor, err = now(ctx, session); err != nil {
			return err
		}
	}
	hear := func(event *wamp.Event) {
		p.Lock()
		defer p.Unlock()
		if p.live {
			p.take(number, event.Publication, event.ArgumentsKw)
		} else {
			p.held = append(p.held, event)
		}
	}
	if err := session.Subscribe(topic, hear, options); err != nil {
		return err
	}
	if strings.HasPrefix(topic, "arvados.event") {
		if err := p.past(ctx, session, number, topic); err != nil {
			return err
		}
	}
	p.Lock()
	defer p.Unlock()
	for _, event := range p.held {
		p.take(number, event.Publication, event.ArgumentsKw)
	}
	p.live, p.held = true, nil
	return nil
}

// past tells what was stored after the last event told.
func (p *place) past(ctx context.Context, session *client.Client, number int, topic string) error {
	id, _ := session.SubscriptionID(topic)
	for {
		after := wamp.Dict{"limit": 100}
		if p.cursor != "" {
			after["cursor"] = p.cursor
		}
		answer, err := session.Call(ctx, "wamp.subscription.get_events", nil, wamp.List{id}, after, nil)
		var refused client.RPCError
		if errors.As(err, &refused) && refused.Err.ArgumentsKw["cursor"] != nil {
			p.cursor, _ = wamp.AsString(refused.Err.ArgumentsKw["cursor"]) // nothing was found up to there
			continue
		}
		if errors.As(err, &refused) && refused.Err.Error == "arvados.error.not_kept" && p.cursor != "" {
			say("gap") // the stream was made anew, or has forgotten: what it has is told from its beginning
			p.cursor, p.last = "", 0
			continue
		}
		if err != nil {
			return err
		}
		events, _ := wamp.AsList(answer.Arguments[0])
		for _, one := range events {
			event, _ := wamp.AsDict(one)
			publication, _ := wamp.AsID(event["publication"])
			message, _ := wamp.AsDict(event["kwargs"])
			p.take(number, publication, message)
		}
		if len(events) == 0 {
			return nil
		}
	}
}

func main() {
	var topics []json.RawMessage
	if err := json.Unmarshal([]byte(os.Args[1]), &topics); err != nil {
		log.Fatal(err)
	}
	places := make([]place, len(topics))
	ctx := context.Background()
	for {
		session, err := join(ctx)
		if err != nil {
			say("left", err)
			// The library tells the text of an ABORT, not its URI.
			if strings.Contains(err.Error(), "does not accept this token") {
				os.Exit(3)
			}
			time.Sleep(time.Second)
			continue
		}
		say("joined", session.ID())
		if answer, err := session.Call(ctx, "arvados.api.whoami", nil, nil, nil, nil); err == nil {
			say("whoami", answer.ArgumentsKw["user_uuid"])
		}
		for number, raw := range topics {
			var topic string
			var options wamp.Dict
			if err := json.Unmarshal(raw, &[]any{&topic, &options}); err != nil {
				log.Fatal(err)
			}
			if err := subscribe(ctx, session, &places[number], number, topic, options); err != nil {
				say("refused", number, err)
			} else {
				say("subscribed", number)
			}
		}
		<-session.Done()
		say("left")
		time.Sleep(time.Duration(rand.Int64N(int64(time.Second))))
	}
}
